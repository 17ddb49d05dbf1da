"""Every method against everything that a user may combine it with; `matrix_settings` is the table of methods."""

import functools
import inspect
import math
import pickle

import lightning as L
import pytest
import torch
from helpers import Seen, same_weights
from matrix_settings import (
    BATCH,
    CLASSES,
    EPOCHS,
    SETTINGS,
    Manual,
    N,
    Sentences,
    Stream,
    Texts,
    Tiny,
    encode,
    fit,
    loader,
    of_each_kind,
    samples,
)
from ranks import on_ranks
from torch.utils.data import DataLoader

from lightning_dataselect import DataSelector, list_methods
from lightning_dataselect.methods.registry import get
from lightning_dataselect.numerics.sizes import keep_count

every_method = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
each_kind = pytest.mark.parametrize("setting", of_each_kind(SETTINGS))


def fits(count, promise):
    return count in promise if isinstance(promise, range) else count == promise


def assert_promise(setting, selector):
    selected = [record["n_selected"] for record in selector.history]
    backward = [record["n_backward"] for record in selector.history]
    assert len(selected) == len(setting.selected)
    assert all(map(fits, selected, setting.selected)), selected
    assert all(map(fits, backward, setting.backward or selected)), backward


def cut_by(selector):
    """Tell of each epoch if it may have been cut: the last one of a fit that a budget ends."""
    return [False] * (len(selector.history) - 1) + [selector.budget is not None]


def is_whole(n_batches, expected, may_be_cut):
    return 0 < n_batches <= expected if may_be_cut else n_batches == expected


def refused(setting, column):
    """A context in which the method must say no, or None."""
    refusal = setting.refuses.get(column)
    return refusal and pytest.raises(refusal.error, match=f"(?s){refusal.words}")


def facts(selector):
    """Return all that must be equal in two fits that are the same."""
    counts = [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]
    columns = {name: column.nan_to_num(-1).tolist() for name, column in selector.state_dict()["columns"].items()}
    return counts, columns, selector.selected.tolist()


def test_the_table_has_every_method():
    assert {setting.method for setting in SETTINGS.values()} == {method.name for method in list_methods()}
    for setting in SETTINGS.values():
        promise = setting.backward if get(setting.method).kind == "batch-level" else setting.selected
        assert set(promise) != {N} or len(promise) < EPOCHS, setting.method


@every_method
def test_promised_number(setting, tmp_path):
    selector = setting.make(tmp_path)
    fit(selector)
    assert_promise(setting, selector)
    assert sum(record["n_backward"] for record in selector.history[1:]) < N * (EPOCHS - 1)


class SaveWithin(L.Callback):
    """Saves a checkpoint after the first batch of an epoch; to be listed after the selector."""

    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 0):
            assert not trainer.is_last_batch
            trainer.save_checkpoint(self.path)


@every_method
def test_resumes_within_an_epoch(setting, tmp_path):
    path = tmp_path / "within.ckpt"
    selector = setting.make(tmp_path)
    _, whole = fit(
        selector, callbacks=[SaveWithin(path, epoch=min(2, len(setting.selected) - 2) or 1)], enable_checkpointing=True
    )
    again = setting.make(tmp_path)
    resumed_trainer, resumed = fit(again, Tiny(seed=9), ckpt_path=path)
    assert resumed_trainer.current_epoch == len(setting.selected)
    if setting.repeats:
        assert same_weights(resumed, whole)
        assert facts(again) == facts(selector)
    assert_promise(setting, again)


@every_method
def test_on_disk_everything_is_as_in_memory(setting, tmp_path):
    folder, path = tmp_path / "scratch", tmp_path / "within.ckpt"
    folder.mkdir()
    saves = [SaveWithin(path, epoch=min(2, len(setting.selected) - 2) or 1)]
    in_memory, on_disk = setting.make(tmp_path), setting.make(tmp_path, scratch_dir=folder)
    _, expected = fit(in_memory, callbacks=saves, enable_checkpointing=True)
    _, found = fit(on_disk)
    again = setting.make(tmp_path, scratch_dir=folder)
    _, resumed = fit(again, Tiny(seed=9), ckpt_path=path)
    if setting.repeats:
        assert same_weights(found, expected) and same_weights(resumed, expected)
        assert facts(on_disk) == facts(again) == facts(in_memory)
    for selector in (on_disk, again):
        assert_promise(setting, selector)
    assert not list(folder.iterdir())


@every_method
@pytest.mark.parametrize("sample_id", [None, lambda batch: [x.numpy().tobytes() for x in batch[0]]], ids=["", "keys"])
def test_stream(setting, sample_id, tmp_path):
    given = {} if "sample_id" in get(setting.method).cls.unused else {"sample_id": sample_id}
    selector, module = setting.make(tmp_path, **given), Tiny()
    expected = refused(setting, "stream")
    by_key = selector.leaves_out_by_key and sample_id is not None
    if expected is None and selector.chooses_epochs and not by_key:
        words = "cannot choose among them before they are read" if sample_id is None else "must choose before that"
        advice = selector.on_streams[:40] or "within each batch"
        expected = pytest.raises(TypeError, match=f"is a stream.*{words}.*{advice}")
    if expected:
        with expected:
            fit(selector, module, DataLoader(Stream(), BATCH))
        assert same_weights(module, Tiny()) and "training_step" not in vars(module)
        return
    fit(selector, module, DataLoader(Stream(), BATCH))
    assert len(selector.losses) == (0 if sample_id is None or not setting.measures else N)
    if by_key:  # a pass is an epoch, however short it is
        trained = sum(record["n_trained"] for record in selector.history)
        assert trained == pytest.approx(selector.budget * N * EPOCHS, abs=BATCH)
        assert [record["n_total"] for record in selector.history[:-1]] == [N] * (len(selector.history) - 1)
        return
    if selector.budget is not None and selector.history[-1]["done"] < 1:
        selector.history[-1]["n_selected"] = N  # counted as they come, so that a cut epoch has fewer
    assert_promise(setting, selector)


def on_one_rank(setting, files, **spread):
    selector = setting.make(files)
    seen = Seen(selector)
    expected = refused(setting, "ranks")
    if expected:
        with expected:
            fit(selector, callbacks=[seen], **spread)
        return None
    _, module = fit(selector, callbacks=[seen], **spread)
    counts, columns, selected = facts(selector)
    n_batches = [sum(e == epoch for e, _ in seen.batches) for epoch in range(len(counts))]
    weights = [tensor.tolist() for tensor in module.state_dict().values()]
    return {"alike": (counts, columns, selected, n_batches, weights), "batches": seen.batches, "counts": counts}


@each_kind
def test_two_ranks(setting, tmp_path):
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks", setting=setting, files=tmp_path)
    if "ranks" in setting.refuses:
        assert first is second is None
        return
    assert first["alike"] == second["alike"]
    assert all(map(fits, [record["n_selected"] for record in first["counts"]], setting.selected))
    assert first["batches"] != second["batches"]
    of_first_epoch = [i for rank in (first, second) for e, batch in rank["batches"] if e == 0 for i in batch]
    record = first["counts"][0]
    assert len(of_first_epoch) == len(set(of_first_epoch)) in (record["n_selected"], record["n_backward"])


@each_kind
def test_gradient_accumulation(setting, tmp_path):
    selector = setting.make(tmp_path)
    seen = Seen(selector)
    trainer, _ = fit(selector, callbacks=[seen], accumulate_grad_batches=4)
    assert_promise(setting, selector)
    n_batches = [sum(e == epoch for e, _ in seen.batches) for epoch in range(len(selector.history))]
    assert all(
        map(is_whole, n_batches, [math.ceil(r["n_selected"] / BATCH) for r in selector.history], cut_by(selector))
    )
    if getattr(selector, "constant_batch_size", False):  # only the gathered ones are accumulated
        n_batches = [math.ceil(record["n_backward"] / BATCH) for record in selector.history]
    assert trainer.global_step == sum(math.ceil(n / 4) for n in n_batches)


class Precise(Tiny):
    """Writes down which precisions the logits had in training; rehearsals run in eval mode, and in full precision."""

    def __init__(self):
        super().__init__()
        self.seen = set()
        self.model.register_forward_hook(self.note)

    def note(self, model, args, output):
        if model.training:
            self.seen.add(output.dtype)


@each_kind
def test_bf16_mixed(setting, tmp_path):
    selector, module = setting.make(tmp_path), Precise()
    fit(selector, module, precision="bf16-mixed")
    assert_promise(setting, selector)
    assert module.seen == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32} and not same_weights(module, Precise())
    assert not setting.measures or torch.isfinite(selector.losses).sum() >= N / 2


@pytest.mark.slow
@every_method
def test_compiled(setting, tmp_path):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, selector = setting.make(tmp_path), setting.make(tmp_path)
    _, expected = fit(plain)
    _, module = fit(selector, torch.compile(Tiny(), backend="eager"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()
    assert_promise(setting, selector)
    if setting.repeats:
        assert facts(selector)[0] == facts(plain)[0]
        torch.testing.assert_close(list(module._orig_mod.parameters()), list(expected.parameters()))


@each_kind
def test_hugging_face_batches(setting, tmp_path):
    selector = setting.make(tmp_path)
    train = DataLoader(Sentences(), BATCH, shuffle=True, collate_fn=encode)
    _, module = fit(selector, Texts(), train)
    assert_promise(setting, selector)
    assert not same_weights(module, Texts())
    assert not setting.measures or torch.isfinite(selector.losses).sum() >= N / 2


@pytest.mark.filterwarnings("error:The losses of")
@each_kind
@pytest.mark.parametrize("limit", [2, 0.5])
def test_limit_train_batches(setting, tmp_path, limit):
    selector = setting.make(tmp_path)
    seen = Seen(selector)
    fit(selector, callbacks=[seen], limit_train_batches=limit)
    for epoch, record in enumerate(selector.history):
        n_batches = math.ceil(record["n_selected"] / BATCH)
        limited = min(limit, n_batches) if isinstance(limit, int) else max(1, int(limit * n_batches))
        assert is_whole(sum(e == epoch for e, _ in seen.batches), limited, cut_by(selector)[epoch])
        assert epoch == 0 or 0 < record["n_backward"] <= limited * BATCH
    assert selector.budget or len(selector.history) == EPOCHS
    assert selector.history[-1]["n_selected"] > 0


@each_kind
def test_persistent_workers(setting, tmp_path):
    plain, selector = setting.make(tmp_path), setting.make(tmp_path)
    _, expected = fit(plain)
    _, module = fit(selector, train=loader(num_workers=1, persistent_workers=True))
    assert_promise(setting, selector)
    if setting.repeats:
        assert facts(selector) == facts(plain)
        assert same_weights(module, expected)


def is_cached(cls, name):
    return isinstance(inspect.getattr_static(cls, name, None), functools.cached_property)


def arguments_of(selector):
    """Return what the constructor has made of its arguments; its collaborators hold nothing of them."""
    given = {k: v for k, v in vars(selector).items() if not is_cached(type(selector), k)}
    own = {k: v for k, v in given.items() if k not in vars(DataSelector())}
    common = {k: v for k, v in given.items() if isinstance(v, int | float | str | None)}
    return {k: v.nan_to_num(-1).tolist() if isinstance(v, torch.Tensor) else v for k, v in (own | common).items()}


@each_kind
def test_lightning_cli_config_and_back(setting, tmp_path):
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    def read(config):
        cli = LightningCLI(Tiny, run=False, save_config_callback=None, args=config)
        (selector,) = (c for c in cli.trainer.callbacks if type(c) is cls)
        return cli, selector

    cls, arguments = get(setting.method).cls, {"seed": 3, **setting.written(tmp_path)}
    described = {"class_path": f"lightning_dataselect.{setting.method}", "init_args": arguments}
    cli, selector = read({"trainer": {"accelerator": "cpu", "logger": False, "callbacks": [described]}})
    # as Lightning's SaveConfigCallback does
    cli.parser.save(cli.config, tmp_path / "config.yaml", skip_none=False)
    again, restored = read(["--config", str(tmp_path / "config.yaml")])
    assert arguments_of(selector) == arguments_of(restored) == arguments_of(cls(**arguments)) and restored.seed == 3
    assert again.config.trainer.callbacks[0].init_args == cli.config.trainer.callbacks[0].init_args


@each_kind
def test_pickling(setting, tmp_path):
    original = setting.make(tmp_path)
    fresh = pickle.loads(pickle.dumps(original))
    _, expected = fit(original)
    copied = pickle.loads(pickle.dumps(original))
    assert facts(copied) == facts(original)
    _, module = fit(fresh)
    assert_promise(setting, fresh)
    if setting.repeats:
        assert same_weights(module, expected)
        assert facts(fresh) == facts(original)


@every_method
def test_quotas_by_class(setting, tmp_path, monkeypatch):
    expected = refused(setting, "balance")
    if expected:
        with expected:
            setting.make(tmp_path, balance="class")
        return
    # no class is known before a first epoch on everything
    warmup = max(1, setting.make(tmp_path).warmup_epochs)
    selector = setting.make(tmp_path, balance="class", warmup_epochs=warmup)
    select, asked = selector.select, []

    def spied(epoch, scores, generator):
        asked.append(len(scores))
        return select(epoch, scores, generator)

    monkeypatch.setattr(selector, "select", spied)
    fit(selector)
    classes = samples().tensors[1]
    kept, sizes = (torch.bincount(y, minlength=CLASSES).tolist() for y in (classes[selector.selected], classes))
    assert asked == sizes * (len(selector.history) - warmup)
    assert all(0 < k <= size for k, size in zip(kept, sizes, strict=True)) and sum(kept) < N
    if setting.share:
        assert kept == [keep_count(size, 1 - setting.share) for size in sizes]


@every_method
def test_everything_is_the_fit_without(setting, tmp_path):
    selector = setting.make(tmp_path, **setting.everything)
    _, module = fit(selector, train=loader(shuffle=False))
    _, plain = fit(None, train=loader(shuffle=False))
    assert [r["n_selected"] for r in selector.history] == [N] * EPOCHS
    assert [r["n_backward"] for r in selector.history[1:]] == [N] * (EPOCHS - 1)
    assert same_weights(module, plain)


@every_method
def test_manual_optimization(setting, tmp_path):
    selector, module = setting.make(tmp_path), Manual()
    expected = refused(setting, "manual")
    if expected:
        with expected:
            fit(selector, module)
        assert same_weights(module, Manual()) and "training_step" not in vars(module)
        return
    fit(selector, module)
    assert_promise(setting, selector)
    assert not same_weights(module, Manual())
