"""Each flag of the Trainer with a method of each kind: one that selects from the set, one that cuts each batch."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers import SAFELY, Net, Seen, Shares, dataset, fit, loader, same_weights, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dataselect import EvolvedSampling, InfoBatch
from lightning_dataselect.capture import CaptureError

KINDS = {
    "set": lambda: InfoBatch(prune_ratio=0.5, anneal=0.0, warmup_epochs=1),
    "batch": lambda: EvolvedSampling(batch_ratio=0.5, anneal=0.0, warmup_epochs=1),
}
EPOCHS = 3
FLAGS = [
    {},
    {"precision": "16-mixed"},
    {"precision": "bf16-mixed"},
    {"precision": "bf16-true"},
    {"precision": "64-true"},
    {"accumulate_grad_batches": 3},
    {"gradient_clip_val": 0.5},
    {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
    {"max_steps": 13},
    {"max_steps": 13, "accumulate_grad_batches": 2},
    {"max_time": "00:01:00:00"},
    {"limit_train_batches": 6},
    {"limit_train_batches": 0.5},
    {"fast_dev_run": 2},
    {"val_check_interval": 4},
    {"val_check_interval": 0.5},
    {"val_check_interval": 4, "check_val_every_n_epoch": None},
    {"check_val_every_n_epoch": 2},
    {"num_sanity_val_steps": 0},
    {"num_sanity_val_steps": 2},
    {"reload_dataloaders_every_n_epochs": 1},
    {"use_distributed_sampler": False},
    {"detect_anomaly": True},
    {"deterministic": True},
    {"barebones": True},
]

both_kinds = pytest.mark.parametrize("kind", KINDS)


class Typed(Net):
    """Takes its inputs in the type of its weights, as `bf16-true` and `64-true` cast them."""

    def training_step(self, batch, batch_idx):
        self.autocast = torch.is_autocast_enabled("cpu")
        self.dtype_seen = batch[0].dtype
        return super().training_step(batch, batch_idx)

    def log(self, *args, **kwargs):
        if not self.trainer.barebones:
            super().log(*args, **kwargs)


def lengths(selector, flags):
    """Batches of each epoch that the flags leave of what was selected."""
    limit = flags.get("limit_train_batches", 1.0)
    found = []
    for record in selector.history:
        n = math.ceil(record["n_selected"] / 10)
        found.append(min(n, limit) if isinstance(limit, int) else max(1, int(n * limit)))
    return found


@both_kinds
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_steps(kind, flags):
    selector, net = KINDS[kind](), Typed()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*")
        if flags.get("barebones"):
            made = trainer(selector, max_epochs=EPOCHS, **{**dict.fromkeys(BARE), **flags})
            made.fit(net, loader())
        else:
            made, _ = fit(selector, net, **{"max_epochs": EPOCHS, **flags})
    expected = lengths(selector, flags)
    if "fast_dev_run" in flags:
        expected = [2]
    accumulate, max_steps = flags.get("accumulate_grad_batches", 1), flags.get("max_steps", -1)
    if max_steps > 0:
        assert made.global_step == max_steps
        expected = [net.count(e) for e in range(len(expected))]  # the last one is cut short
        assert sum(math.ceil(n / accumulate) for n in expected) == max_steps
    assert [net.count(e) for e in range(len(expected))] == expected
    assert made.global_step == sum(math.ceil(n / accumulate) for n in expected)
    if max_steps < 0:
        assert [s.batch_idx for s in net.steps if s.is_last] == [n - 1 for n in expected]
    trained = [sum(s.size for s in net.steps if s.epoch == e) for e in range(len(expected))]
    assert [record["n_backward"] for record in selector.history] == trained
    assert not selector.losses[selector.selected][: 10 * expected[-1]].isnan().all()
    if kind == "batch" and len(expected) > 1:
        assert trained[1] <= 0.5 * 10 * expected[1]
    elif len(expected) == EPOCHS and flags.get("limit_train_batches", 1.0) == 1.0 and max_steps < 0:
        assert selector.history[1]["n_selected"] < 100


BARE = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


@both_kinds
@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [
        ("16-mixed", torch.float32, 2e-2),
        ("bf16-mixed", torch.float32, 2e-2),
        ("bf16-true", torch.bfloat16, 3e-2),
        ("64-true", torch.float64, 1e-6),
        ("32-true", torch.float32, 1e-6),
    ],
)
def test_losses_in_every_precision(kind, precision, dtype, tolerance):
    selector, net = KINDS[kind](), Typed(lr=0.0)
    fit(selector, net, precision=precision, max_epochs=EPOCHS)
    assert net.dtype_seen == dtype and net.autocast is precision.endswith("mixed")
    x, y = dataset().tensors
    reference = F.cross_entropy(Net(lr=0.0).double().net(x.double()), y, reduction="none")
    torch.testing.assert_close(selector.losses.double(), reference, rtol=tolerance, atol=tolerance)


class Masked(Net):
    """Takes the short way of attention where nothing is masked, which rounds otherwise, as flash attention does."""

    def __init__(self, *, halves: bool = False, casts: bool = False) -> None:
        super().__init__(lr=0.0)
        self.halves, self.casts = halves, casts
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.wide, self.narrow = torch.nn.Linear(8, 256), torch.nn.Linear(256, 3, bias=False)
            torch.nn.init.normal_(self.narrow.weight)

    def training_step(self, batch, batch_idx):
        x, y = batch
        if self.casts:
            x = x.bfloat16()
        hidden = self.wide(x)
        if (x[:, 0] > -0.5).all():
            logits = self.narrow(hidden)
        else:
            logits = self.narrow(hidden * 3) / 3
        loss = F.cross_entropy(logits.float(), y)
        return loss / 2 if self.halves and (x[:, 0] > -0.5).all() else loss


@both_kinds
@pytest.mark.parametrize("casts", [False, True])
def test_a_way_that_only_rounds_otherwise_is_no_reason_to_refuse_a_step(kind, casts):
    selector, net = KINDS[kind](), Masked(casts=casts)
    fit(selector, net, precision="bf16-mixed", max_epochs=EPOCHS)
    x, y = dataset().tensors
    reference = F.cross_entropy(net.narrow(net.wide(x)), y, reduction="none").detach()
    torch.testing.assert_close(selector.losses, reference, rtol=5e-2, atol=0.5)


@both_kinds
def test_a_way_by_which_samples_lose_half_is_refused_in_half_precision_too(kind):
    with pytest.raises(CaptureError, match="decides by a number of the whole batch which way it takes"):
        fit(KINDS[kind](), Masked(halves=True), precision="bf16-mixed", max_epochs=EPOCHS)


@pytest.mark.gpu
@both_kinds
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "64-true", "32-true"])
def test_losses_in_every_precision_on_a_gpu(kind, precision):
    selector, net = KINDS[kind](), Net(lr=0.0)
    made = trainer(selector, max_epochs=EPOCHS, precision=precision, cls=_on_gpu)
    made.fit(net, loader(), loader(50, 25, False))
    x, y = dataset().tensors
    reference = F.cross_entropy(Net(lr=0.0).double().net(x.double()), y, reduction="none")
    torch.testing.assert_close(selector.losses.double(), reference, rtol=3e-2, atol=3e-2)


def _on_gpu(**options):
    import lightning as L

    return L.Trainer(**options | {"accelerator": "gpu", "devices": 1})


@pytest.mark.gpu
@both_kinds
def test_fsdp_on_a_gpu(kind):
    import lightning as L

    def run(strategy):
        selector, net = KINDS[kind](), Net()
        made = trainer(
            selector, max_epochs=EPOCHS, cls=lambda **o: L.Trainer(**o | {"accelerator": "gpu", "devices": 1}),
            strategy=strategy,
        )  # fmt: skip
        made.fit(net, loader(), loader(50, 25, False))
        return selector, made.global_step

    (alone, steps), (sharded, sharded_steps) = run("auto"), run("fsdp")
    assert steps == sharded_steps
    torch.testing.assert_close(sharded.losses, alone.losses, rtol=1e-3, atol=1e-4)


@both_kinds
def test_max_time_ends_an_endless_fit(kind):
    selector, net = KINDS[kind](), Net()
    made, _ = fit(selector, net, max_epochs=-1, max_time={"seconds": 2})
    assert selector.max_epochs is None and made.global_step == len(net.steps) > 0
    assert sum(s.size for s in net.steps) == sum(r["n_backward"] for r in selector.history)


@both_kinds
def test_an_unpruned_fit_under_clipping_and_accumulation_is_that_of_no_callback(kind):
    everything = {"set": {"prune_ratio": 0.0}, "batch": {"batch_ratio": 1.0}}[kind]
    method = type(KINDS[kind]())
    flags = {
        "gradient_clip_val": 0.1, "accumulate_grad_batches": 3, "precision": "bf16-mixed", "max_epochs": EPOCHS,
        "detect_anomaly": True,
    }  # fmt: skip
    with_callback = fit(method(**everything), train=loader(shuffle=False), **flags)[1]
    assert same_weights(with_callback, fit(None, train=loader(shuffle=False), **flags)[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_data_loader_goes_on_where_it_was(tmp_path, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def train():
        return stateful(dataset(), batch_size=20, shuffle=True, num_workers=workers)

    def run(path=None, seed=0):
        selector, net = Shares(1.0, 0.6, 0.4, 1.0), Net(seed=seed)
        seen = Seen(selector)
        keep = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step:02d}")
        made = trainer(selector, seen, keep, enable_checkpointing=True, max_epochs=4)
        made.fit(net, train(), **({"ckpt_path": path, **SAFELY} if path else {}))
        return selector, net, seen

    selector, net, seen = run()
    assert [len(seen.of_epoch(e)) for e in range(4)] == [100, 60, 40, 100]
    for path in sorted(tmp_path.glob("*.ckpt"))[: -1 : 4 if workers else 1]:
        again, resumed, rest = run(path, seed=9)
        assert rest.batches == seen.batches[len(seen.batches) - len(rest.batches) :], path
        assert len(rest.batches) == 15 - int(path.stem.split("=")[1])
        assert same_weights(net, resumed) and torch.equal(again.losses, selector.losses)
