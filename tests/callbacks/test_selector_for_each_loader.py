"""Fits on several train loaders, each of which has a selector of its own."""

import warnings

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers import Hardest, Net, Seen, Shares, WeightedShares, dataset, fit, loader, same_weights
from lightning.pytorch.utilities import CombinedLoader
from matrix_settings import SETTINGS
from ranks import on_ranks
from resume_helpers import SaveAt, checkpoints, saved
from schedule_helpers import one_cycle
from streams import Stream
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import (
    EL2N,
    UCB,
    InfoBatch,
    RandomPruning,
    SelectiveBackprop,
)

QUIET = pytest.mark.filterwarnings("ignore:Dropping samples of loader")
MODES = ["max_size_cycle", "max_size", "min_size"]


def target(n=100, seed=7):
    """Another domain: other inputs, and labels by another rule."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 2] > 0).long() + (x[:, 3] > 0.5).long())


def both(mode="max_size_cycle", n=100, m=80, batch_size=10, other_size=10, shuffle=True, **options):
    others = DataLoader(target(m), other_size, shuffle=shuffle, **options)
    return CombinedLoader({"source": loader(n, batch_size, shuffle, **options), "target": others}, mode)


def double_cross_entropy(logits, classes):
    """Each sample's loss, from its formula, in double precision."""
    logits = logits.astype(np.float64)
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return -logs[np.arange(len(classes)), classes]


class Domains(Net):
    """One network for two domains, in steps of several kinds."""

    def __init__(self, kind="apart", **options):
        super().__init__(**options)
        self.kind, self.met = kind, []

    def training_step(self, batch, batch_idx):
        source, other = batch["source"], batch["target"]
        self.met.append((self.trainer.current_epoch, source, other))
        return getattr(self, self.kind)(*source, *other)

    def apart(self, x, y, u, v):
        return F.cross_entropy(self.net(x), y) + 0.5 * F.cross_entropy(self.net(u), v)

    def others_first(self, x, y, u, v):
        return 0.5 * F.cross_entropy(self.net(u), v) + F.cross_entropy(self.net(x), y)

    def by_one_function(self, x, y, u, v):
        """Both losses end in the same line."""
        return mean_over(F.cross_entropy(self.net(x), y, reduction="none")) + 0.5 * mean_over(
            F.cross_entropy(self.net(u), v, reduction="none")
        )

    def summed(self, x, y, u, v):
        return F.cross_entropy(self.net(x), y) + 0.5 * F.cross_entropy(self.net(u), v, reduction="sum") / len(u)

    def by_mask(self, x, y, u, v):
        """A mask that takes all rows, which only a mode that watches every call can follow."""
        taken = u[:, 0] < 100
        return F.cross_entropy(self.net(x), y) + 0.5 * F.cross_entropy(
            self.net(u)[taken], v[taken], reduction="sum"
        ) / len(u)

    def joined(self, x, y, u, v):
        logits = self.net(torch.cat([x, u]))
        return F.cross_entropy(logits[: len(x)], y) + 0.5 * F.cross_entropy(logits[len(x) :], v)

    def regularized(self, x, y, u, v):
        return self.apart(x, y, u, v) + 0.01 * sum(weight.square().sum() for weight in self.parameters())

    def one_mean(self, x, y, u, v):
        return F.cross_entropy(self.net(torch.cat([x, u])), torch.cat([y, v]))

    def only_source(self, x, y, u, v):
        return F.cross_entropy(self.net(x), y)

    def lengths(self, n_epochs):
        return [sum(e == epoch for e, *_ in self.met) for epoch in range(n_epochs)]

    def true_losses(self, data, factor=1.0):
        x, y = data.tensors
        with torch.no_grad():
            logits = self.net(x)
        return torch.from_numpy(factor * double_cross_entropy(logits.numpy(), y.numpy())).float()


def mean_over(losses):
    return losses.mean()


KINDS = ["apart", "others_first", "by_one_function", "summed", "by_mask", "joined", "regularized"]


def check_losses(net, source, other):
    for selector, data, factor in ((source, dataset(source.store.n), 1.0), (other, target(other.store.n), 0.5)):
        true = net.true_losses(data, factor)
        known = ~selector.losses.isnan()
        assert known.any()
        torch.testing.assert_close(selector.losses[known], true[known], atol=1e-5, rtol=1e-4)


# ---- losses and weights ------------------------------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(10, 10), (10, 7), (6, 9)], ids=str)
def test_losses_of_both_are_those_of_their_own_samples(kind, sizes):
    source, other = Hardest(loader="source"), Hardest(loader="target")
    net = Domains(kind, lr=0.0)
    fit(source, net, both(batch_size=sizes[0], other_size=sizes[1]), callbacks=[other], max_epochs=2)
    check_losses(net, source, other)
    assert not source.losses.isnan().any() and not other.losses.isnan().any()


@QUIET
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [(True, True), (True, False), (False, True)], ids=str)
def test_weights_of_both_enter_their_own_losses(kind, weighted):
    """A step of SGD is that of the loss in which each sample has the weight that its own selector gives it."""

    class Once(Domains):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.5)

    source, other = (
        (WeightedShares if w else Shares)(0.5, loader=name)
        for w, name in zip(weighted, ("source", "target"), strict=True)
    )
    net, reference = Once(kind), Once(kind)
    fit(source, net, both(), callbacks=[other], max_epochs=1, max_steps=4)
    optimizer = reference.configure_optimizers()
    for _, (x, y), (u, v) in net.met[-4:]:
        own, theirs = weights_of(source, dataset(), x), weights_of(other, target(80), u)
        loss = (F.cross_entropy(reference.net(x), y, reduction="none") * own).mean()
        loss = loss + 0.5 * (F.cross_entropy(reference.net(u), v, reduction="none") * theirs).mean()
        if kind == "regularized":
            loss = loss + 0.01 * sum(weight.square().sum() for weight in reference.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for a, b in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def weights_of(selector, data, rows):
    """The weight of each row, found by its numbers."""
    index = {tuple(x.tolist()): i for i, (x, _) in enumerate(data)}
    weights = torch.ones(len(data))
    if selector.weights is not None:
        weights[selector.selected] = selector.weights
    return weights[[index[tuple(row)] for row in rows.tolist()]]


@QUIET
def test_logits_are_those_of_their_own_samples():
    scores = EL2N(loader="source", warmup_epochs=1), EL2N(loader="target", warmup_epochs=1)
    net = Domains(lr=0.0)
    fit(scores[0], net, both(), callbacks=[scores[1]], max_epochs=2)
    for selector, data in zip(scores, (dataset(), target(80)), strict=True):
        x, y = data.tensors
        with torch.no_grad():
            error = (net.net(x).softmax(1) - F.one_hot(y, 3)).norm(dim=1)
        torch.testing.assert_close(selector.scores, error, atol=1e-5, rtol=1e-4)


@QUIET
def test_losses_that_the_step_returns_for_one_of_them():
    class Told(Domains):
        def apart(self, x, y, u, v):
            theirs = 0.5 * F.cross_entropy(self.net(u), v, reduction="none")
            return {"loss": F.cross_entropy(self.net(x), y) + theirs.mean(), "theirs": theirs}

    source, other = Hardest(loader="source"), Hardest(loader="target", sample_loss="theirs")
    net = Told(lr=0.0)
    fit(source, net, both(), callbacks=[other], max_epochs=2)
    check_losses(net, source, other)


@QUIET
def test_three_loaders_of_which_two_are_selected_from():
    class Three(Domains):
        def training_step(self, batch, batch_idx):
            third = self.net(batch["third"][0]).square().mean()
            return super().training_step(batch, batch_idx) + 0.1 * third

    train = both().iterables | {"third": DataLoader(TensorDataset(torch.randn(60, 8)), 10)}
    source, other = WeightedShares(1.0, 0.5, loader="source"), Hardest(loader="target")
    net = Three(lr=0.0)
    fit(source, net, train, callbacks=[other], max_epochs=3)
    check_losses(net, source, other)


@QUIET
def test_what_cannot_be_told_apart_is_refused():
    pair = Hardest(loader="source"), Hardest(loader="target")
    with pytest.raises(ValueError, match="With loader='.*cross_entropy is computed from the samples of several"):
        fit(pair[0], Domains("one_mean"), both(), callbacks=[pair[1]])
    with pytest.raises(ValueError, match="With loader='target': None of the step's losses is computed from"):
        fit(Hardest(loader="source"), Domains("only_source"), both(), callbacks=[Hardest(loader="target")])


@QUIET
def test_a_method_that_needs_no_losses_goes_without():
    with pytest.warns(UserWarning, match="RandomPruning goes on without per-sample losses, .* With loader='target'"):
        fit(Hardest(loader="source"), Domains("only_source"), both(), callbacks=[RandomPruning(loader="target")])


# ---- nothing else changes ----------------------------------------------------------------------------------------


class OwnNorm(nn.BatchNorm1d):
    """A layer that is not torch's own, but writes to its buffers as torch's does: without a trace."""


class Noisy(Domains):
    """Has layers that draw and count when they train, and a step that does both itself."""

    def __init__(self, **options):
        super().__init__(**options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            hidden = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), OwnNorm(16)
            self.net = nn.Sequential(*hidden, nn.Linear(16, 3))
        self.n_steps = 0
        self.register_buffer("mean_input", torch.zeros(()))

    def apart(self, x, y, u, v):
        self.n_steps += 1
        self.mean_input.mul_(0.9).add_(0.1 * x.mean())
        loss = super().apart(x + 0.1 * torch.randn_like(x), y, u, v)
        self.log("loss", loss)
        return loss


@pytest.mark.parametrize("accumulate", [1, 3])
def test_nothing_pruned_gives_the_bits_of_no_callback(accumulate):
    runs = []
    for selectors in ([], [RandomPruning(prune_ratio=0, loader="source"), InfoBatch(prune_ratio=0, loader="target")]):
        L.seed_everything(3, verbose=False)
        net = Noisy()
        train = both("min_size", shuffle=False)
        fit(None, net, train, callbacks=selectors, accumulate_grad_batches=accumulate, max_epochs=3)
        runs.append((net, torch.get_rng_state()))
    assert same_weights(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0].n_steps == runs[1][0].n_steps == 24
    for selector in selectors:
        assert all(record["n_forward"] == 80 for record in selector.history)


@QUIET
@pytest.mark.parametrize("selectors", [(Shares(0.5, loader="source"), InfoBatch(loader="target"))])
def test_the_global_random_state_is_untouched(selectors):
    states = []
    for chosen in ([], selectors):
        L.seed_everything(3, verbose=False)
        fit(None, Domains(), both("min_size", shuffle=False), callbacks=list(chosen), max_epochs=3)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_loaders_of_one_size_are_not_shuffled_alike():
    pair = RandomPruning(loader="source"), RandomPruning(loader="target")
    seen = [Seen(selector) for selector in pair]
    fit(pair[0], Domains(), both(m=100), callbacks=[pair[1], *seen], max_epochs=2)
    for epoch in range(2):
        first, second = (each.of_epoch(epoch) for each in seen)
        assert len(first) == len(second) and first != second
        assert sum(a == b for a, b in zip(first, second, strict=True)) < 20
    assert set(first) != set(second)


# ---- the length of an epoch --------------------------------------------------------------------------------------


class MayEnd(Domains):
    """Takes what there is: a loader may have ended."""

    def training_step(self, batch, batch_idx):
        parts = [batch[name] for name in ("source", "target")]
        self.met.append((self.trainer.current_epoch, *parts))
        factors = zip((1.0, 0.5), parts, strict=True)
        return sum(f * F.cross_entropy(self.net(part[0]), part[1]) for f, part in factors if part is not None)


@QUIET
@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("mode", "m", "lengths"),
    [  # of the source half is dropped, of the target a fifth
        ("max_size_cycle", 80, [10, 7, 7]),
        ("max_size_cycle", 40, [10, 5, 5]),
        ("max_size", 80, [10, 7, 7]),
        ("max_size", 40, [10, 5, 5]),
        ("min_size", 80, [8, 5, 5]),
        ("min_size", 40, [4, 4, 4]),
    ],
)
def test_every_mode_counts_what_both_keep(mode, m, lengths, workers):
    source = Shares(1.0, 0.5, 0.5, loader="source", warmup_epochs=1)
    other = Shares(1.0, 0.8, 0.8, loader="target", warmup_epochs=1)
    seen, net = [Seen2(source, "source"), Seen2(other, "target")], MayEnd(lr=0.0)
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    fit(source, net, both(mode, m=m, **options), callbacks=[other, *seen], max_epochs=3)
    assert [sum(epoch == e for e, *_ in net.met) for epoch in range(3)] == lengths
    for watcher, data in zip(seen, (dataset(), target(m)), strict=True):
        for _, indices, part in watcher.batches:
            assert (indices is None) == (part is None)
            if part is not None:
                assert torch.equal(data.tensors[0][indices], part[0])
            assert part is not None or mode == "max_size"
    whole = {"max_size_cycle": (10, 10), "max_size": (10, m // 10), "min_size": (m // 10, m // 10)}[mode]
    for selector, watcher, n_batches in zip((source, other), seen, whole, strict=True):
        assert [record["n_full"] for record in selector.history] == [10 * n_batches] * 3
        kept = {i for epoch, indices, _ in watcher.batches if epoch == 2 for i in indices or []}
        assert kept <= set(selector.selected.tolist())
        if mode != "min_size":
            assert kept == set(selector.selected.tolist())
        assert selector.history[2]["n_trained"] == sum(len(i or []) for e, i, _ in watcher.batches if e == 2)
    check_losses(net, source, other)


class Seen2(L.Callback):
    """Writes down which samples each batch held, as the selector has it, and its part of the batch."""

    def __init__(self, selector, name):
        self.selector, self.name, self.batches = selector, name, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        indices = None if self.selector.batch is None else self.selector.batch.indices.tolist()
        self.batches.append((trainer.current_epoch, indices, batch[self.name]))


@QUIET
@pytest.mark.parametrize("order", [("source", "target"), ("target", "source")], ids=str)
def test_schedules_and_validation_go_by_the_common_length(order):
    """A step-wise schedule ends where it would have ended, whichever selector comes first."""

    def linear(optimizer, trainer):
        n = trainer.estimated_stepping_batches
        made = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / n))
        return {"scheduler": made, "interval": "step"}

    class Dated(Domains):
        def training_step(self, batch, batch_idx):
            self.steps.append((self.trainer.current_epoch, self.trainer.optimizers[0].param_groups[0]["lr"]))
            return super().training_step(batch, batch_idx)

    shares = {"source": 0.5, "target": 0.8}
    pair = [Shares(1.0, *[shares[name]] * 3, loader=name) for name in order]
    net = Dated(schedule=linear, lr=0.1)
    trainer, _ = fit(pair[0], net, both(m=80), callbacks=[pair[1]], max_epochs=4, val_check_interval=0.5)
    lengths = [sum(e == epoch for e, _ in net.steps) for epoch in range(4)]
    assert lengths == [10, 7, 7, 7]
    firsts = [next(lr for e, lr in net.steps if e == epoch) for epoch in range(4)]
    np.testing.assert_allclose(firsts, [0.1, 0.075, 0.05, 0.025], atol=1e-9)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-9
    assert [sum(e == epoch for e, _ in net.validated) for epoch in range(4)] == [2, 2, 2, 2]


@QUIET
@pytest.mark.parametrize(("limit", "lengths"), [(4, [4, 4, 4]), (0.5, [5, 3, 5])])
def test_limited_batches(limit, lengths):
    pair, net = (Shares(1.0, 0.5, loader="source"), Shares(1.0, 0.8, loader="target")), Domains()
    fit(pair[0], net, both(), callbacks=[pair[1]], max_epochs=3, limit_train_batches=limit)
    assert net.lengths(3) == lengths


@QUIET
def test_the_same_trainer_fits_longer():
    pair, net = (Shares(1.0, 0.5, loader="source"), Shares(1.0, 0.8, loader="target")), Domains()
    trainer, _ = fit(pair[0], net, both(), callbacks=[pair[1]], max_epochs=-1, max_steps=13)
    assert net.lengths(3) == [10, 3, 0]
    trainer.fit_loop.epoch_loop.max_steps = 24
    trainer.fit(net, both(), loader(50, 25, False))
    for selector in pair:  # Lightning takes the epoch that was cut for done
        assert [record["n_trained"] for record in selector.history] == [100, 30, 100, 10]


# ---- resumed, and on two ranks -----------------------------------------------------------------------------------


def facts(selectors, net, trainer):
    records = [[{k: v for k, v in r.items() if "seconds" not in k} for r in each.history] for each in selectors]
    columns = [each.losses.nan_to_num(-1).tolist() for each in selectors]
    schedulers = [config.scheduler.last_epoch for config in trainer.lr_scheduler_configs]
    return records, columns, schedulers, [weight.tolist() for weight in net.state_dict().values()]


@QUIET
@pytest.mark.timeout(280)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_fit_goes_on_bit_for_bit_from_every_step(mode, swapped, tmp_path):
    """Both loaders go on where they were, whatever the order of the callbacks that resume."""

    def go(folder=None, ckpt_path=None, *, swaps=False, seed=0):
        pair = [InfoBatch(loader=name, anneal=0.0) for name in ("source", "target")]
        net = MayEnd(schedule=one_cycle, seed=seed)
        keep = [] if folder is None else checkpoints(folder, "step", "validation", "epoch")
        order = pair[::-1] if swaps else pair
        options = {"callbacks": [*order, *keep], "enable_checkpointing": bool(keep), "ckpt_path": ckpt_path}
        trainer, _ = fit(None, net, both(mode, batch_size=20, other_size=20), max_epochs=3, **options)
        return facts(pair, net, trainer)

    expected = go(tmp_path)
    paths = saved(tmp_path)
    assert len(paths) > 12
    for path in paths:
        assert go(ckpt_path=path, swaps=swapped, seed=9) == expected, path


def on_one_rank(mode, **spread):
    pair, net = (InfoBatch(loader="source", anneal=0.0), Shares(1.0, 0.6, loader="target")), Domains(lr=0.0)
    seen = [Seen(selector) for selector in pair]
    trainer, _ = fit(pair[0], net, both(mode, m=90), callbacks=[pair[1], *seen], max_epochs=3, **spread)
    return {
        "losses": [selector.losses.tolist() for selector in pair],
        "true": [net.true_losses(dataset()).tolist(), net.true_losses(target(90), 0.5).tolist()],
        "lengths": net.lengths(3),
        "own": [watcher.of_epoch(2) for watcher in seen],
        "counts": [[(r["n_selected"], r["n_trained"]) for r in selector.history] for selector in pair],
    }


@QUIET
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size"])
def test_two_ranks(mode, tmp_path):
    ranks = on_ranks(on_one_rank, 2, tmp_path / "ranks", mode=mode)
    first, second = ranks
    for name in ("losses", "lengths", "counts"):
        assert str(first[name]) == str(second[name])
    for losses, true in zip(first["losses"], first["true"], strict=True):
        losses, true = torch.tensor(losses), torch.tensor(true)
        known = ~losses.isnan()
        assert known.sum() >= 90 - 10
        torch.testing.assert_close(losses[known], true[known], atol=1e-5, rtol=1e-4)
    for own, others, n in zip(first["own"], second["own"], (100, 90), strict=True):
        assert not set(own) & set(others) - {n}


def resumed_on_a_rank(path, mode, **spread):
    expected = run_on_rank(mode, [SaveAt(path, 2, 1)], None, 0, **spread)
    return expected == run_on_rank(mode, [], path, 9, **spread)


def run_on_rank(mode, callbacks, ckpt_path, seed, **spread):
    pair, net = (InfoBatch(loader="source", anneal=0.0), UCB(loader="target")), Domains(seed=seed)
    options = {"callbacks": [pair[1], *callbacks], "ckpt_path": ckpt_path, "max_epochs": 3, **spread}
    trainer, _ = fit(pair[0], net, both(mode), **options)
    return facts(pair, net, trainer)


@QUIET
@pytest.mark.timeout(120)
def test_two_ranks_go_on_within_an_epoch(tmp_path):
    options = {"path": tmp_path / "within.ckpt", "mode": "max_size_cycle"}
    assert on_ranks(resumed_on_a_rank, 2, tmp_path / "ranks", **options) == [True, True]


class Talking(Domains):
    """Has its ranks communicate where it trains, as SyncBatchNorm does."""

    def apart(self, x, y, u, v):
        if self.net.training:
            dist.all_reduce(torch.ones(()))
        return super().apart(x, y, u, v)


def refused_on_a_rank(**spread):
    with pytest.raises(TypeError, match="The ranks communicate within training_step.*Keep the selector of one loader"):
        fit(InfoBatch(loader="source"), Talking(), both(), callbacks=[UCB(loader="target")], max_epochs=2, **spread)
    return True


@QUIET
@pytest.mark.timeout(120)
def test_ranks_that_communicate_within_the_step_are_refused(tmp_path):
    assert on_ranks(refused_on_a_rank, 2, tmp_path / "ranks") == [True, True]


# ---- steps of other kinds ----------------------------------------------------------------------------------------


class Translator(L.LightningModule):
    """A generator for each of two domains, and a critic for each, under manual optimization."""

    def __init__(self, lr=0.0):
        super().__init__()
        self.automatic_optimization, self.lr = False, lr
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.to_b, self.to_a = nn.Linear(8, 8), nn.Linear(8, 8)
            self.critic_a, self.critic_b = nn.Linear(8, 1), nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        (a, _), (b, _) = batch["source"], batch["target"]
        generators, critics = self.optimizers()
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        judge = F.binary_cross_entropy_with_logits
        generators.zero_grad()
        fooled = judge(self.critic_b(fake_b), torch.ones(len(a), 1)) + judge(
            self.critic_a(fake_a), torch.ones(len(b), 1)
        )
        self.manual_backward(fooled + F.l1_loss(self.to_a(fake_b), a) + 2 * F.l1_loss(self.to_b(fake_a), b))
        generators.step()
        critics.zero_grad()
        self.manual_backward(judge(self.critic_b(fake_b.detach()), torch.zeros(len(a), 1)))
        self.manual_backward(judge(self.critic_a(fake_a.detach()), torch.zeros(len(b), 1)))
        critics.step()

    def configure_optimizers(self):
        generators = [*self.to_b.parameters(), *self.to_a.parameters()]
        critics = [*self.critic_a.parameters(), *self.critic_b.parameters()]
        return torch.optim.SGD(generators, self.lr), torch.optim.SGD(critics, self.lr)


def test_a_gan_under_manual_optimization():
    pair, net = (Hardest(loader="source"), Hardest(loader="target")), Translator()
    fit(pair[0], net, both("min_size", m=100), callbacks=[pair[1]], val=[], max_epochs=2)
    for selector, data, there, back, critic, factor in (
        (pair[0], dataset(), net.to_b, net.to_a, net.critic_b, 1),
        (pair[1], target(100), net.to_a, net.to_b, net.critic_a, 2),
    ):
        inputs = data.tensors[0]
        with torch.no_grad():
            fake = there(inputs)
            judged, cycle = critic(fake).squeeze(1), factor * (back(fake) - inputs).abs().mean(1)
        torch.testing.assert_close(selector.losses, F.softplus(-judged) + F.softplus(judged) + cycle)


def test_a_gan_trains_as_without_selectors():
    nets = [Translator(lr=0.1), Translator(lr=0.1)]
    pair = Hardest(prune_ratio=0, loader="source"), Hardest(prune_ratio=0, loader="target")
    for net, selectors in zip(nets, ([], pair), strict=True):
        fit(None, net, both("min_size", shuffle=False), callbacks=list(selectors), val=[], max_epochs=2)
    assert same_weights(*nets)


def compiled(net):
    net.net = torch.compile(net.net, backend="eager")
    return net


@QUIET
@pytest.mark.parametrize("kind", ["apart", "by_one_function"])
def test_a_compiled_model(kind):
    source, other = WeightedShares(1.0, 0.5, loader="source"), Hardest(loader="target")
    net = compiled(Domains(kind, lr=0.0))
    fit(source, net, both(), callbacks=[other], max_epochs=2)
    check_losses(net, source, other)


@QUIET
def test_a_step_that_changes_is_read_again():
    """From the second epoch on, one of the losses is another one."""

    class Changing(Domains):
        def apart(self, x, y, u, v):
            if self.trainer.current_epoch == 0:
                return super().apart(x, y, u, v)
            theirs = F.mse_loss(self.net(u).softmax(1), F.one_hot(v, 3).float(), reduction="sum") / len(u)
            return F.cross_entropy(self.net(x), y) + theirs

    source, other = Hardest(prune_ratio=0, loader="source"), Hardest(prune_ratio=0, loader="target")
    net = Changing(lr=0.0)
    fit(source, net, both(), callbacks=[other], max_epochs=3)
    u, v = target(80).tensors
    with torch.no_grad():
        theirs = (net.net(u).softmax(1) - F.one_hot(v, 3)).square().sum(1)
    torch.testing.assert_close(other.losses, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(source.losses, net.true_losses(dataset()), atol=1e-5, rtol=1e-4)


@QUIET
@pytest.mark.parametrize("name", [name for name in SETTINGS if "constant size" not in name])
def test_every_method_works_beside_another_or_says_why_not(name, tmp_path):
    setting = SETTINGS[name]
    made, beside, net = setting.make(tmp_path, loader="source"), Hardest(loader="target"), Domains(lr=0.0)

    def go():
        fit(made, net, both(n=48, batch_size=8), callbacks=[beside], max_epochs=4)

    refused = {
        "chooses within batches": made.chooses_within_batches,
        "in which the other train loaders have no batch": made.needs_one_loader,
        "those of the other train loaders are not counted": made.budget is not None,
    }
    if words := next((words for words, is_refused in refused.items() if is_refused), None):
        with pytest.raises((TypeError, ValueError), match=words):
            go()
        return
    go()
    known = ~made.losses.isnan()
    torch.testing.assert_close(made.losses[known], net.true_losses(dataset(48))[known], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(beside.losses, net.true_losses(target(80), 0.5), atol=1e-5, rtol=1e-4)
    for record, selected in zip(made.history, setting.selected, strict=True):
        assert record["n_selected"] in (selected if isinstance(selected, range) else [selected])


# ---- what is refused, and what is said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (
            (InfoBatch(loader="source"), UCB(loader="source")),
            "2 selectors for loader='source' .*only one",
        ),
        ((InfoBatch(loader=0), UCB(loader=0)), "2 selectors for loader=0 .*only one"),
        ((InfoBatch(loader="source"), UCB()), r"only one can decide which samples.*as in UCB\(loader='labelled'\)"),
        ((InfoBatch(), InfoBatch()), r"only one can decide which samples.*as in InfoBatch\(loader='labelled'\)"),
        (
            (InfoBatch(loader="source"), SelectiveBackprop(loader="target")),
            r"SelectiveBackprop\(loader='target'\) chooses within batches.*such as InfoBatch or RandomPruning",
        ),
        (
            (InfoBatch(loader="source"), UCB(loader="target", lr_schedule="steps")),
            "lr_schedule='st[a-z]*' and 'st[a-z]*', but there is one learning rate",
        ),
    ],
    ids=["same key", "same position", "one is not named", "none is named", "within batches", "schedules"],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_selectors_that_do_not_go_together(pair, words, swapped):
    with pytest.raises(ValueError, match=words):
        fit(None, Domains(), both(), callbacks=pair[::-1] if swapped else pair, max_epochs=2)


def test_a_selector_that_comes_after_another_was_set_up_is_refused():
    class Adds(L.Callback):
        def setup(self, trainer, pl_module, stage):
            trainer.callbacks.append(UCB(loader="target"))

    with pytest.raises(ValueError, match=r"UCB\(loader='target'\) was added to the Trainer's callbacks after another"):
        fit(InfoBatch(loader="source"), Domains(), both(), callbacks=[Adds()], max_epochs=2)


def test_a_stream_beside_another_selector_is_refused():
    train = {"source": loader(), "target": DataLoader(Stream(60), 10)}
    pair = InfoBatch(loader="source"), RandomPruning(loader="target")
    with pytest.raises(TypeError, match="loader='target' is a stream"):
        fit(pair[0], Domains(), train, callbacks=[pair[1]], max_epochs=2, limit_train_batches=4)


@QUIET
def test_a_checkpoint_of_fewer_or_more_selectors_is_refused(tmp_path):
    def pair():
        return [InfoBatch(loader="source"), UCB(loader="target")]

    paths = {n: tmp_path / f"{n}.ckpt" for n in (1, 2)}
    for n, path in paths.items():
        fit(None, Domains(), both(), callbacks=[*pair()[:n], SaveAt(path, 1, 2)], max_epochs=2)
    with pytest.raises(ValueError, match=r"written by InfoBatch\(loader='source'\), but this Trainer has .*UCB"):
        fit(None, Domains(), both(), callbacks=pair(), ckpt_path=paths[1], max_epochs=2)
    both_names = r"InfoBatch\(loader='source'\), UCB\(loader='target'\)|UCB.*, InfoBatch.*"
    with pytest.raises(
        ValueError, match=rf"written by ({both_names}), but this Trainer has InfoBatch\(loader='source'\):"
    ):
        fit(None, Domains(), both(), callbacks=pair()[:1], ckpt_path=paths[2], max_epochs=2)


@QUIET
def test_what_is_logged_and_said_has_the_name_of_the_loader(capfd, tmp_path):
    pair = Shares(1.0, 0.5, loader="source"), Shares(1.0, 0.8, loader="target")
    trainer, _ = fit(pair[0], Domains(), both(), callbacks=[pair[1]], max_epochs=2)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["dataselect/source/kept_share"] == logged["kept/source"] == 0.5
    assert round(logged["dataselect/target/kept_share"], 4) == round(logged["kept/target"], 4) == 0.8
    for name, selector in (("source", pair[0]), ("target", pair[1])):
        assert f"dataselect/{name}/train_loss" in logged and selector.history[-1]["select_seconds"] > 0
    assert not {"dataselect/kept_share", "kept"} & set(logged)


def test_a_warning_that_nothing_gets_shorter_reckons_with_what_the_others_drop():
    def warned(first, second, **options):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            pair = RandomPruning(prune_ratio=first, loader="source"), RandomPruning(prune_ratio=second, loader="target")
            fit(pair[0], Domains(), both(**options), callbacks=[pair[1]], max_epochs=2)
        words = [str(warning.message) for warning in told if "makes no epoch shorter" in str(warning.message)]
        return {name for name in ("source", "target") for line in words if f"loader='{name}'" in line}

    assert warned(0.5, 0.5, m=100) == set()
    assert warned(0.5, 0.0, m=100) == {"source"}
    assert warned(0.5, 0.5, m=300) == {"source"}
    assert warned(0.5, 0.5, m=300, mode="min_size") == set()
