"""Fits on streams: samples have no index, and are known by a key, or by nothing."""

import itertools
import time
import warnings

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Hardest, Net, fit, loader, same_weights
from matrix_settings import SETTINGS
from ranks import on_ranks
from resume_helpers import SaveAt
from streams import Keyed, Placed, Stream, stream, true_losses
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect import (
    DBPD,
    ESWP,
    AutoAssist,
    BatchSelector,
    EvolvedSampling,
    InfoBatch,
    RandomPruning,
    RHOLoss,
    SelectiveBackprop,
)
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.methods.registry import get

METHODS = {
    "SelectiveBackprop": lambda **more: SelectiveBackprop(**more),
    "EvolvedSampling": lambda **more: EvolvedSampling(anneal=0.0, **more),
    "ESWP that drops nothing beforehand": lambda **more: ESWP(prune_ratio=0.0, anneal=0.0, **more),
    "AutoAssist": lambda **more: AutoAssist(base_prob=0.05, synchronous=True, **more),
}
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


class Random(WithinBatches, BatchSelector):
    """Takes a random part of a batch."""

    def choose(self, seen, k, generator):
        return torch.randperm(len(seen.losses), generator=generator)[:k]


def facts(selector):
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]


@every_method
@pytest.mark.parametrize("n", [96, 93])
def test_without_keys(make, n):
    selector, net = make(), Net()
    trainer, _ = fit(selector, net, stream(n), max_epochs=3)
    assert trainer.global_step == 3 * 12 and len(net.steps) == 36
    assert [(r["n_total"], r["n_selected"]) for r in selector.history] == [(n, n)] * 3
    for record in selector.history[1:]:
        assert 0 < record["n_trained"] < n and record["n_trained"] + record["n_left_out"] == n
    for what in ("losses", "scores"):
        with pytest.warns(UserWarning, match=rf"\.{what} is empty: the fit was on a stream without keys.*sample_id="):
            assert getattr(selector, what).numel() == 0
    assert selector.selected.numel() == 0
    assert selector.sample_ids is None


@every_method
def test_the_loader_and_the_module_are_left_as_they_were(make):
    given, net = stream(), Net()
    before = dict(vars(given))
    fit(make(), net, given, max_epochs=1)
    assert dict(vars(given)) == before and "training_step" not in vars(net)


class Losses(L.Callback):
    """Writes down what the selector has observed of each batch; to be listed after the selector."""

    def __init__(self, selector):
        self.selector, self.batches = selector, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(self.selector.store["loss"][: len(batch[0])].clone())


def test_losses_are_those_of_the_batch_under_way():
    selector = Random(batch_ratio=0.5, warmup_epochs=0)
    seen, net = Losses(selector), Net(lr=0.0)
    fit(selector, net, stream(90), callbacks=[seen], max_epochs=1)
    torch.testing.assert_close(torch.cat(seen.batches), true_losses(net, 90))
    assert [len(batch) for batch in seen.batches] == [8] * 11 + [2]


@every_method
def test_keys(make):
    selector, net = make(sample_id="id"), Keyed(lr=0.0)
    fit(selector, net, stream(keyed=True), max_epochs=2)
    assert selector.sample_ids == [f"s{i}" for i in range(96)]
    expected = true_losses(net)
    known = ~selector.losses.isnan()
    torch.testing.assert_close(selector.losses[known], expected[known])
    assert known.sum() > 48


def test_weights_evolve_by_key_as_they_do_by_index():
    """The same samples in the same order: a stream with keys is a map-style set but for ``s`` at first."""

    class Indexed(EvolvedSampling):
        def observe(self, seen, store):
            store["s"].nan_to_num_(0.0)  # 1 / N in a set of N
            super().observe(seen, store)

    by_key, by_index = EvolvedSampling(sample_id="id", anneal=0.0), Indexed(anneal=0.0)
    streamed, indexed = Keyed(), Net()
    fit(by_key, streamed, stream(keyed=True))
    fit(by_index, indexed, loader(96, 8, shuffle=False))
    assert same_weights(streamed, indexed)
    torch.testing.assert_close(by_key.scores, by_index.scores)
    assert facts(by_key) == facts(by_index)


def test_a_small_history_keeps_what_came_last():
    selector = SelectiveBackprop(sample_id="id", history_size=32)
    fit(selector, Keyed(), stream(keyed=True), max_epochs=2)
    assert sorted(selector.sample_ids) == sorted(f"s{i}" for i in range(64, 96))


@pytest.mark.parametrize(
    ("sample_id", "words"),
    [
        ("key", "sample_id='key' is no field of the batch \\(dict with 'x', 'y', 'id'\\)"),
        ("x", "gives the key .*must be strings or whole numbers"),
        (lambda batch: "abc", "gives a str for a batch: it must give one key per sample"),
        (lambda batch: [], "sample_id=<lambda> gives no keys for a batch"),
        (lambda batch: batch["y"] > 0, "gives the key (True|False): keys must be strings or whole numbers"),
    ],
)
def test_keys_that_are_none(sample_id, words):
    with pytest.raises(ValueError, match=words):
        fit(SelectiveBackprop(sample_id=sample_id), Keyed(), stream(keyed=True))


NOT_ONE_EACH = {
    7: lambda batch: batch["id"][:-1],
    9: lambda batch: [*batch["id"], "another"],
    4: lambda batch: batch["id"][::2],
    1: lambda batch: batch["id"][:1],
}


@pytest.mark.parametrize("make", [*METHODS.values(), DBPD], ids=[*METHODS, "DBPD"])
@pytest.mark.parametrize("n", NOT_ONE_EACH)
def test_a_function_that_does_not_give_one_key_a_sample_is_named(make, n):
    words = rf"sample_id=<lambda> gives {n} keys? for a batch \(dict\) whose parts have 8 rows each. If each row is a"
    with pytest.raises(ValueError, match=words):
        fit(make(sample_id=NOT_ONE_EACH[n]), Keyed(), stream(keyed=True))


def test_a_function_that_gives_too_few_keys_for_a_later_batch_is_named():
    def sample_id(batch):
        return batch["id"] if "s0" in batch["id"] else batch["id"][:-1]

    with pytest.raises(ValueError, match="sample_id=sample_id gives 7 keys"):
        fit(SelectiveBackprop(sample_id=sample_id), Keyed(), stream(keyed=True))


def test_a_field_that_is_one_for_the_batch_is_named():
    def of_a_shard(rows):
        return {**torch.utils.data.default_collate(rows), "id": ["shard"]}

    with pytest.raises(ValueError, match="sample_id='id' gives 1 key for a batch .* 8 rows each"):
        fit(SelectiveBackprop(sample_id="id"), Keyed(), DataLoader(Stream(keyed=True), 8, collate_fn=of_a_shard))


@pytest.mark.parametrize("fails", [lambda batch: batch["key"], lambda batch: batch["x"]["a"], lambda batch: 1 / 0])
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_function_that_fails_is_named_and_its_error_kept(make, fails):
    words = (
        r"sample_id=<lambda> fails for the batch \(dict with 'x', 'y', 'id'\): (KeyError|TypeError|ZeroDivisionError)"
    )
    with pytest.raises(ValueError, match=words) as caught:
        fit(make(sample_id=fails), Keyed(), stream(keyed=True))
    assert isinstance(caught.value.__cause__, KeyError | TypeError | ZeroDivisionError)


@pytest.mark.parametrize(
    "kind", [np.str_, np.bytes_, lambda name: np.int64(name[1:]), lambda n: torch.tensor(int(n[1:]))]
)
def test_keys_of_numpy_and_torch_are_as_good_as_pythons(kind, tmp_path):
    def make():
        return EvolvedSampling(anneal=0.0, sample_id=lambda batch: [kind(name) for name in batch["id"]])

    path = tmp_path / "end.ckpt"
    selector, net = make(), Keyed()
    fit(selector, net, stream(keyed=True), callbacks=[SaveAt(path, 1, 11)])
    assert {type(key) for key in selector.sample_ids} <= {str, bytes, int} and len(selector.sample_ids) == 96
    again, resumed = make(), Keyed(seed=9)
    fit(again, resumed, stream(keyed=True), ckpt_path=path)  # safely, which NumPy's strings are not
    assert same_weights(resumed, net) and again.sample_ids == selector.sample_ids


def test_samples_that_share_a_key_are_said_once(recwarn):
    fit(EvolvedSampling(sample_id="y"), Keyed(), stream(keyed=True), max_epochs=2)
    said = [str(one.message) for one in recwarn if "the same key" in str(one.message)]
    assert len(said) == 1 and "sample_id='y' gives" in said[0] and "name a field that tells them apart" in said[0]
    recwarn.clear()
    fit(EvolvedSampling(sample_id="id"), Keyed(), stream(keyed=True), max_epochs=2)
    assert not [one for one in recwarn if "the same key" in str(one.message)]


def as_triples(rows):
    return torch.stack([row["x"] for row in rows]), torch.stack([row["y"] for row in rows]), [r["id"] for r in rows]


class Triples(Net):
    """Takes batches of inputs, classes and keys."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch[:2], batch_idx)


def test_a_callable_and_a_position_name_keys():
    by_position = SelectiveBackprop(sample_id=2)
    fit(by_position, Triples(), DataLoader(Stream(keyed=True), 8, collate_fn=as_triples), max_epochs=1)
    by_function = SelectiveBackprop(sample_id=lambda batch: [int(name[1:]) for name in batch["id"]])
    fit(by_function, Keyed(), stream(keyed=True), max_epochs=1)
    assert by_position.sample_ids == [f"s{i}" for i in range(96)] and by_function.sample_ids == list(range(96))


def test_export_by_key(tmp_path):
    selector = SelectiveBackprop(sample_id="id")
    fit(selector, Keyed(), stream(keyed=True), max_epochs=2)
    frame = pd.read_csv(selector.export(tmp_path / "samples.csv"))
    assert frame["key"].tolist() == [f"s{i}" for i in range(96)] and "index" not in frame
    assert (frame["times_trained"] + frame["times_dropped"]).tolist() == [2] * 96
    torch.testing.assert_close(torch.tensor(frame["loss"].to_numpy(), dtype=torch.float32), selector.losses)
    with pytest.raises(ValueError, match=r"plot\('gallery'\) does not know its samples: samples must have an index"):
        selector.plot("gallery")


def test_what_needs_names_says_so(tmp_path):
    selector = SelectiveBackprop()
    fit(selector, Net(), stream(), max_epochs=1)
    with pytest.raises(ValueError, match=r"export\(\) does not know its samples: give the selector sample_id="):
        selector.export(tmp_path / "samples.csv")


# ---- RHO-LOSS: a held-out model measures as samples pass -----------------------------------------------------------


def test_a_holdout_model_measures_as_the_samples_pass():
    holdout, net = Keyed(seed=5), Keyed(lr=0.0)
    before = {name: value.clone() for name, value in holdout.state_dict().items()}
    selector = RHOLoss(holdout_model=holdout, batch_ratio=0.25, sample_id="id")
    fit(selector, net, stream(keyed=True), max_epochs=2)
    reducible = true_losses(net) - true_losses(holdout)
    torch.testing.assert_close(selector.scores, reducible)
    hardest = reducible.view(12, 8).topk(2).indices + 8 * torch.arange(12).unsqueeze(1)
    trained = selector.column("times_trained").nonzero().squeeze(1)
    assert trained.tolist() == sorted(hardest.flatten().tolist())
    assert [(r["n_forward"], r["n_backward"]) for r in selector.history] == [(96 + 96 + 24, 24)] * 2
    assert holdout.training and all(torch.equal(value, before[name]) for name, value in holdout.state_dict().items())
    assert all(p.grad is None for p in holdout.parameters())


def test_a_holdout_model_chooses_as_its_losses_do():
    """By index too: the model in place of its losses."""
    measured, given = Net(), Net()
    holdout = Net(seed=5)
    losses = true_losses(holdout, 96)
    fit(RHOLoss(holdout_model=holdout, batch_ratio=0.25), measured, loader(96, 8))
    fit(RHOLoss(holdout_losses=losses, batch_ratio=0.25), given, loader(96, 8))
    assert same_weights(measured, given)


def test_without_a_holdout_model_a_stream_is_refused():
    for selector in (RHOLoss(), RHOLoss(holdout_losses=torch.zeros(96))):
        with pytest.raises(ValueError, match=r"On a stream RHOLoss cannot.*give RHOLoss\(holdout_model="):
            fit(selector, Net(), stream())


def test_holdout_models_that_are_none():
    with pytest.raises(TypeError, match="holdout_model=Linear.* is not a LightningModule"):
        RHOLoss(holdout_model=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="holdout_model is given, and holdout_losses too"):
        RHOLoss(holdout_model=Net(), holdout_losses=torch.zeros(3))
    with pytest.raises(ValueError, match="holdout_model is given, and holdout_epochs too"):
        RHOLoss(holdout_model=Net(), holdout_epochs=2)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [InfoBatch, RandomPruning, Hardest, ESWP])
@pytest.mark.parametrize("sample_id", [None, "id"])
def test_a_choice_of_epochs_is_refused(make, sample_id):
    net = Keyed()
    with pytest.raises(TypeError, match="Stream is a stream.* choose .*SelectiveBackprop, EvolvedSampling, AutoA"):
        fit(make(sample_id=sample_id), net, stream(keyed=True))
    assert net.steps == [] and "training_step" not in vars(net)


def test_the_message_names_every_method_within_batches():
    named = {get(setting.method).name for setting in SETTINGS.values() if not setting_chooses(setting)}
    with pytest.raises(TypeError) as caught:
        fit(Hardest(), Net(), stream())
    assert all(name in str(caught.value) for name in named) and named >= {"RHOLoss", "AutoAssist"}


def setting_chooses(setting):
    return not issubclass(get(setting.method).cls, WithinBatches)


def test_keys_that_an_indexed_set_has_not_are_refused():
    with pytest.raises(ValueError, match="sample_id='id' names no keys of the data set TensorDataset"):
        fit(SelectiveBackprop(sample_id="id"))


def test_suspects_need_an_index():
    selector = SelectiveBackprop(sample_id="id")
    fit(selector, Keyed(), stream(keyed=True), max_epochs=1)
    with pytest.raises(ValueError, match=r"suspects\(\) does not know its samples: samples must have an index"):
        selector.suspects()


@pytest.mark.parametrize("value", [1.5, True, ["id"]])
def test_a_sample_id_that_is_none(value):
    with pytest.raises(TypeError, match="must be the name or the position of a field"):
        SelectiveBackprop(sample_id=value)


# ---- the Trainer's settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ({"limit_train_batches": 5}, 15),
        ({"max_steps": 17, "max_epochs": -1}, 17),
        ({"accumulate_grad_batches": 5}, 9),
        ({"val_check_interval": 4}, 36),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, 36),
        ({"fast_dev_run": 2}, 2),
    ],
    ids=str,
)
def test_the_trainer_does_as_it_would_without(flags, steps):
    selector, net, plain = SelectiveBackprop(), Net(), Net()
    options = {"max_epochs": 3} | flags
    with_it, _ = fit(selector, net, stream(), **options)
    without, _ = fit(None, plain, stream(), **options)
    assert with_it.global_step == without.global_step == steps
    assert net.validated == plain.validated
    assert [(s.epoch, s.batch_idx, s.is_last) for s in net.steps] == [
        (s.epoch, s.batch_idx, s.is_last) for s in plain.steps
    ]
    assert len(selector.history) == len({step.epoch for step in net.steps})


def test_a_stepwise_schedule_is_left_alone():
    def schedule(optimizer, trainer):
        made = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=36)
        return {"scheduler": made, "interval": "step"}

    net, plain = Net(schedule), Net(schedule)
    fit(SelectiveBackprop(), net, stream(), max_epochs=3)
    fit(None, plain, stream(), max_epochs=3)
    assert [step.lr for step in net.steps] == [step.lr for step in plain.steps]


@every_method
def test_workers(make):
    selector = make(sample_id="id")
    fit(selector, Keyed(), stream(93, keyed=True, num_workers=2, persistent_workers=True), max_epochs=2)
    assert sorted(selector.sample_ids) == sorted(f"s{i}" for i in range(93))
    assert [r["n_total"] for r in selector.history] == [93, 93]


class FirstIsSlow(Stream):
    """Its first worker is the last one to have a batch."""

    def __iter__(self):
        for sample in super().__iter__():
            if get_worker_info().id == 0:
                time.sleep(0.02)
            yield sample


@pytest.mark.timeout(60)
@pytest.mark.parametrize("limit", [{}, {"limit_train_batches": 7}], ids=["whole", "left early"])
@pytest.mark.parametrize("persistent", [False, True])
def test_batches_that_come_in_any_order(persistent, limit):
    """Their samples are known by their keys; so are their losses."""
    net, batches = Reading(), FirstIsSlow(keyed=True)
    batches = DataLoader(batches, 8, num_workers=2, in_order=False, persistent_workers=persistent)
    selector = SelectiveBackprop(sample_id="id", warmup_epochs=9)
    net.configure_optimizers = lambda: torch.optim.SGD(net.parameters(), 0.0)
    fit(selector, net, batches, max_epochs=2, **limit)
    seen = [key for _, keys in net.read for key in keys]
    assert sorted(selector.sample_ids) == sorted({*seen})
    expected = dict(zip((f"s{i}" for i in range(96)), true_losses(net).tolist(), strict=True))
    found = dict(zip(selector.sample_ids, selector.losses.tolist(), strict=True))
    assert found == pytest.approx({key: expected[key] for key in found}, rel=1e-5)
    workers = [int(keys[0][1:]) % 2 for epoch, keys in net.read if epoch == 0]
    assert workers != [i % 2 for i in range(len(workers))]  # else this has tried nothing


def test_any_iterable_is_a_stream():
    selector = EvolvedSampling(anneal=0.0, batch_ratio=0.5)
    batches = Batches(stream())
    fit(selector, Net(), batches, max_epochs=3)
    assert [r["n_trained"] for r in selector.history] == [96, 48, 48]
    assistant = AutoAssist(base_prob=0.05, synchronous=True)
    fit(assistant, Net(), batches, max_epochs=2)
    assert [r["n_total"] for r in assistant.history] == [96, 96]


class Once(IterableDataset):
    """Yields its samples once, and nothing after that."""

    def __init__(self, n):
        self.rows = iter(Stream(n))

    def __iter__(self):
        return self.rows


@pytest.mark.parametrize(
    "make", [*METHODS.values(), lambda: SelectiveBackprop(constant_batch_size=True)], ids=[*METHODS, "gathered"]
)
@pytest.mark.parametrize("n", [0, 40])
@pytest.mark.parametrize("more", [{}, {"limit_train_batches": 20}, {"min_steps": 20}], ids=str)
def test_a_fit_that_only_steps_would_end_ends_with_a_stream_that_is_empty(make, n, more):
    selector = make()
    with pytest.warns(UserWarning, match=f"no batch in epoch {n // 40}, so the fit ends before.*iterated again"):
        made, net = fit(selector, Net(), DataLoader(Once(n), 8), max_epochs=-1, max_steps=100, **more)
    assert len(net.steps) == n // 8 and made.current_epoch == n // 40 + 1
    assert made.fit_loop.max_epochs == -1 and made.max_steps == 100


def test_epochs_in_which_a_stream_yields_nothing_are_said_once(recwarn):
    made, net = fit(SelectiveBackprop(), Net(), DataLoader(Once(40), 8), max_epochs=4)
    said = [str(one.message) for one in recwarn if "yielded no batch" in str(one.message)]
    assert len(said) == 1 and "in epoch 1. A generator" in said[0]
    assert made.current_epoch == 4 and len(net.steps) == 5


class Batches:
    """Yields batches, and is no DataLoader."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


# ---- resumed -----------------------------------------------------------------------------------------------------


def everything(selector):
    state = selector.state_dict()["ranks"]
    columns = {} if not state or not state[0]["store"] else state[0]["store"]["columns"]
    return facts(selector), {name: column.nan_to_num(-1).tolist() for name, column in columns.items()}


@pytest.mark.parametrize("sample_id", [None, "id"])
@every_method
def test_resumes_at_the_end_of_an_epoch(make, sample_id, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=True)
    selector, net = make(sample_id=sample_id), Keyed()
    fit(selector, net, stream(keyed=True), callbacks=[saving], enable_checkpointing=True)
    again, resumed = make(sample_id=sample_id), Keyed(seed=9)
    fit(again, resumed, stream(keyed=True), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert same_weights(resumed, net) and everything(again) == everything(selector)


@pytest.mark.parametrize("flags", [{"max_epochs": 4}, {"max_epochs": -1, "max_steps": 44}], ids=str)
@pytest.mark.parametrize("when", ["the last batch", "a validation", "the end"])
@pytest.mark.parametrize(
    "make", [*METHODS.values(), lambda **more: DBPD(threshold=0.4, **more)], ids=[*METHODS, "DBPD"]
)
def test_an_epoch_that_was_saved_as_it_ended_is_one_of_its_own(make, when, flags, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    n_batches = sum(1 for _ in stream(keyed=True))
    moments = {
        "the last batch": {"every_n_train_steps": n_batches},
        "a validation": {"save_on_train_epoch_end": False, "monitor": "val_loss"},
        "the end": {"save_on_train_epoch_end": True},
    }
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", **moments[when])
    selector, net = make(sample_id="id"), Keyed()
    fit(selector, net, stream(keyed=True), callbacks=[saving], enable_checkpointing=True, **flags)
    assert len(selector.history) == 4
    for epoch in range(3):
        again, resumed = make(sample_id="id"), Keyed(seed=9)
        fit(again, resumed, stream(keyed=True), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", **flags)
        assert resumed.steps[0].batch_idx == 0
        assert same_weights(resumed, net) and everything(again) == everything(selector), epoch


class Reading(Keyed):
    """Writes down whose turn it is."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.read = []

    def training_step(self, batch, batch_idx):
        self.read.append((self.current_epoch, batch["id"]))
        return super().training_step(batch, batch_idx)


LIMITED = {"limit_train_batches": 10}
READERS = {
    **METHODS,
    "a random part": lambda **more: Random(batch_ratio=0.5, **more),
    "gathered": lambda **more: SelectiveBackprop(beta=1, constant_batch_size=True, **more),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "n_workers", "sample_id", "limit"),
    [(name, 0, "id", {}) for name in READERS]
    + [("SelectiveBackprop", n_workers, None, limit) for n_workers in (0, 2) for limit in ({}, LIMITED)],
)
def test_resumes_within_an_epoch_where_the_loader_has_a_state(name, n_workers, sample_id, limit, tmp_path):
    def go(net, **more):
        selector = READERS[name](sample_id=sample_id)
        fit(selector, net, StatefulDataLoader(Placed(world_size=1), 8, num_workers=n_workers), **limit, **more)
        return everything(selector)

    path, net, resumed = tmp_path / "within.ckpt", Reading(), Reading(seed=9)
    expected = go(net, callbacks=[SaveAt(path, 2, 4)])
    assert go(resumed, ckpt_path=path) == expected
    assert same_weights(resumed, net) and resumed.read == net.read[-len(resumed.read) :]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("at", [0, 9, 10, 11])
@pytest.mark.parametrize("make", [METHODS["SelectiveBackprop"], METHODS["AutoAssist"]], ids=["cut", "judged ahead"])
def test_resumes_within_epochs_again_and_again(make, at, tmp_path):
    """After each resume the batch that Lightning has read ahead is one of the epoch that it is read for."""

    def go(net, *where, **more):
        saving = [SaveAt(tmp_path / f"{len(where)}-{i}.ckpt", *batch) for i, batch in enumerate(where)]
        fit(make(), net, StatefulDataLoader(Placed(world_size=1), 8), callbacks=saving, max_epochs=4, **more)

    net, again, thrice = Keyed(), Keyed(seed=9), Keyed(seed=8)
    go(net, (1, at))
    go(again, (2, 1), (2, 11), ckpt_path=tmp_path / "1-0.ckpt")
    go(thrice, ckpt_path=tmp_path / "2-0.ckpt")
    assert same_weights(again, net) and same_weights(thrice, net)
    go(thrice, ckpt_path=tmp_path / "2-1.ckpt")
    assert same_weights(thrice, net)


class Saving(Batches):
    """Yields batches, is no DataLoader, and saves where it is."""

    done = put_back_to = 0

    def __iter__(self):
        self.done, self.put_back_to = self.put_back_to, 0
        for batch in itertools.islice(self.loader, self.done, None):
            self.done += 1
            yield batch

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.put_back_to = state["done"]


@pytest.mark.parametrize("name", ["SelectiveBackprop", "AutoAssist"])
def test_any_iterable_that_saves_where_it_is_goes_on(name, tmp_path, recwarn):
    path, net, resumed = tmp_path / "within.ckpt", Keyed(), Keyed(seed=9)
    fit(METHODS[name](), net, Saving(stream(keyed=True)), callbacks=[SaveAt(path, 1, 4)])
    fit(METHODS[name](), resumed, Saving(stream(keyed=True)), ckpt_path=path)
    assert same_weights(resumed, net) and not [w for w in recwarn if "goes on" in str(w.message)]


@pytest.mark.parametrize("loader_class", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("limit", [{}, {"limit_train_batches": 12}], ids=["no length", "limited"])
def test_an_assistant_goes_on_within_an_epoch(loader_class, limit, tmp_path):
    path = tmp_path / "within.ckpt"
    selector, net = METHODS["AutoAssist"](sample_id="id"), Keyed()
    fit(selector, net, stream(keyed=True, loader=loader_class), callbacks=[SaveAt(path, 1, 4)], max_epochs=3, **limit)
    again, resumed = METHODS["AutoAssist"](sample_id="id"), Keyed(seed=9)
    fit(again, resumed, stream(keyed=True, loader=loader_class), ckpt_path=path, max_epochs=3, **limit)
    assert resumed.steps[0].epoch == 1 and resumed.steps[0].batch_idx == 5 and resumed.count(2) == 12
    if loader_class is StatefulDataLoader:
        assert same_weights(resumed, net) and everything(again) == everything(selector)


def test_a_stream_that_does_not_go_on_where_it_was_is_said(tmp_path):
    path = tmp_path / "within.ckpt"
    fit(SelectiveBackprop(), Net(), stream(), callbacks=[SaveAt(path, 1, 4)], max_epochs=2)
    with pytest.warns(UserWarning, match="goes on after batch 4.*the train loader does not save its position"):
        fit(SelectiveBackprop(), Net(), stream(), ckpt_path=path, max_epochs=3)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("at", [4, 11], ids=["within", "the last batch"])
@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_assistant_that_has_read_to_the_end_of_a_stream_goes_on(n_workers, at, tmp_path, recwarn):
    """Its thread had all batches waiting when the checkpoint was written: they are read again, and no others are."""

    def go(net, **more):
        selector = AutoAssist(base_prob=0.05, queue_size=32, sample_id="id")
        batches = stream(keyed=True, loader=StatefulDataLoader, num_workers=n_workers)
        fit(selector, net, batches, max_epochs=3, **more)
        return [record["n_total"] for record in selector.history]

    path, resumed = tmp_path / "within.ckpt", Keyed(seed=9)
    go(Keyed(), callbacks=[SaveAt(path, 1, at)])
    assert go(resumed, ckpt_path=path) == [96] * 3
    expected = [(1, i) for i in range(at + 1, 12)] + [(2, i) for i in range(12)]
    assert [(step.epoch, step.batch_idx) for step in resumed.steps] == expected
    assert not [w for w in recwarn if "ahead" in str(w.message)]


def test_samples_known_by_something_else_are_refused(tmp_path):
    path = tmp_path / "within.ckpt"
    saving = SaveAt(path, 1, 4)
    fit(SelectiveBackprop(sample_id="id"), Keyed(), stream(keyed=True), callbacks=[saving])
    with pytest.raises(ValueError, match="known by their keys in a stream, but now.*by nothing, in a stream without"):
        fit(SelectiveBackprop(), Keyed(), stream(keyed=True), ckpt_path=path)
    with pytest.raises(ValueError, match="known by their keys in a stream, but now.*by their index in a map-style"):
        fit(SelectiveBackprop(), Net(), loader(), ckpt_path=path)


# ---- ranks -------------------------------------------------------------------------------------------------------


def on_one_rank(method, path, ckpt_path=None, **spread):
    selector, net = METHODS[method](sample_id="id"), Keyed()
    batches = stream(keyed=True, world_size=2, num_workers=1)
    saving = [] if ckpt_path else [SaveAt(path, 1, 5)]
    fit(selector, net, batches, callbacks=saving, ckpt_path=ckpt_path, max_epochs=3, **spread)
    return {
        "counts": facts(selector),
        "ids": selector.sample_ids,
        "losses": selector.losses.nan_to_num(-1).tolist(),
        "weights": [tensor.tolist() for tensor in net.state_dict().values()],
    }


@pytest.mark.parametrize("method", ["SelectiveBackprop", "AutoAssist"])
def test_two_ranks(method, tmp_path):
    path = tmp_path / "saved.ckpt"
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks", method=method, path=path)
    assert first["counts"] == second["counts"] and first["weights"] == second["weights"]
    assert sorted(first["ids"] + second["ids"]) == sorted(f"s{i}" for i in range(96))
    assert [record["n_total"] for record in first["counts"]] == [96] * 3
    ranks = torch.load(path, weights_only=True)["callbacks"][f"lightning_dataselect.{method}"]["ranks"]
    assert [sorted(rank["store"]["keys"]) for rank in ranks] == [sorted(first["ids"]), sorted(second["ids"])]


def within_on_one_rank(make, path, ckpt_path=None, **spread):
    selector, net = make(), Reading(seed=9 if ckpt_path else 0)
    saving = [] if ckpt_path else [SaveAt(path, 1, 2)]
    flags = {"max_epochs": 3, "limit_train_batches": 6, "ckpt_path": ckpt_path}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(selector, net, StatefulDataLoader(Placed(), 8), callbacks=saving, **flags, **spread)
    said = [str(w.message) for w in caught if "The fit goes on" in str(w.message)]
    return net.read, [tensor.tolist() for tensor in net.state_dict().values()], said


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "make", [lambda: SelectiveBackprop(sample_id="id"), lambda: SelectiveBackprop()], ids=["keys", "no keys"]
)
def test_two_ranks_resume_each_where_its_own_loader_was(make, tmp_path):
    path = tmp_path / "within.ckpt"
    wholes = on_ranks(within_on_one_rank, 2, tmp_path / "whole", make=make, path=path)
    again = on_ranks(within_on_one_rank, 2, tmp_path / "again", make=make, path=path, ckpt_path=path)
    for rank, (whole, resumed) in enumerate(zip(wholes, again, strict=True)):
        assert {int(key[1:]) % 2 for _, keys in whole[0] for key in keys} == {rank}
        assert resumed[0] == whole[0][6 + 3 :] and resumed[1] == whole[1] and not resumed[2]


@pytest.mark.timeout(240)
def test_another_number_of_ranks_within_an_epoch_is_said(tmp_path):
    path = tmp_path / "within.ckpt"
    on_ranks(within_on_one_rank, 2, tmp_path / "two", make=SelectiveBackprop, path=path)
    (said,) = within_on_one_rank(SelectiveBackprop, path, ckpt_path=path)[2]
    assert "after batch 2 of an epoch that 2 ranks began, with 1 rank: the loaders" in said
    assert "Resume with 2, or from the end" in said
