"""A pruned epoch has no ragged last batch where the full one had none, and losses that were never seen are no NaN."""

import numpy as np
import pytest
import torch
from helpers import N, Net, Seen, Shares, dataset, fit, loader
from torch.utils.data import DataLoader, RandomSampler, Sampler, WeightedRandomSampler

from lightning_dataselect import EL2N, ESWP, KAKURENBO, InfoBatch, RandomPruning, Selection, SeTa
from lightning_dataselect.numerics import parts
from lightning_dataselect.state.planning import resize

METHODS = {
    "InfoBatch": lambda: InfoBatch(prune_ratio=0.6, anneal=0.0),
    "RandomPruning": lambda: RandomPruning(prune_ratio=0.33),
    "EL2N": lambda: EL2N(prune_ratio=0.45, warmup_epochs=1),
    "ESWP": lambda: ESWP(prune_ratio=0.17, anneal=0.0),
    "KAKURENBO": lambda: KAKURENBO(prune_ratio=0.33, tau=0.0, phases=[]),
    "SeTa": lambda: SeTa(prune_ratio=0.37, anneal=0.0),
}


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_every_batch_is_full(name, drop_last):
    selector = METHODS[name]()
    seen = Seen(selector)
    _, net = fit(selector, train=loader(batch_size=20, drop_last=drop_last), callbacks=[seen], max_epochs=4)
    sizes = {len(indices) for _, indices in seen.batches}
    assert sizes == {20}
    assert any(r["n_selected"] < N for r in selector.history)
    for epoch, record in enumerate(selector.history):
        assert len(set(seen.of_epoch(epoch))) == record["n_selected"]


def test_what_is_added_was_next_in_line():
    selector = EL2N(prune_ratio=0.45, warmup_epochs=1)
    exact = EL2N(prune_ratio=0.45, warmup_epochs=1, whole_batches=False)
    for each in (selector, exact):
        fit(each, train=loader(batch_size=20), max_epochs=2)
    assert len(exact.selected) == 55 and len(selector.selected) == 60
    assert set(exact.selected.tolist()) < set(selector.selected.tolist())
    assert set(selector.selected.tolist()) == set(selector.scores.topk(60).indices.tolist())


def test_rounding_up_never_takes_everything():
    selector = EL2N(prune_ratio=0.1, warmup_epochs=1)
    fit(selector, train=loader(batch_size=50), max_epochs=2)
    assert [r["n_selected"] for r in selector.history] == [100, 50]
    assert set(selector.selected.tolist()) == set(selector.scores.topk(50).indices.tolist())


def test_where_the_full_epoch_has_a_ragged_batch_the_share_is_exact():
    selector = RandomPruning(prune_ratio=0.33)
    fit(selector, train=loader(batch_size=30), max_epochs=2)
    assert [r["n_selected"] for r in selector.history] == [67, 67]


@pytest.mark.parametrize("sampler", [None, RandomSampler(dataset())])
def test_where_a_budget_ends_the_fit_every_batch_is_full_all_the_same(sampler):
    selector = RandomPruning(prune_ratio=0.33, budget=0.5, warmup_epochs=1)
    seen = Seen(selector)
    train = loader(batch_size=30) if sampler is None else DataLoader(dataset(), 30, sampler=sampler)
    fit(selector, train=train, callbacks=[seen], max_epochs=8)
    first, *pruned = [
        [len(indices) for epoch, indices in seen.batches if epoch == e] for e in range(len(selector.history))
    ]
    assert first == [30, 30, 30, 10] and pruned and {size for sizes in pruned for size in sizes} == {30}
    assert 400 - 30 <= sum(first) + sum(map(sum, pruned)) <= 400 + 30


def test_a_share_that_is_to_be_exact_stays_so_under_a_budget():
    selector = RandomPruning(prune_ratio=0.33, budget=0.5, whole_batches=False)
    fit(selector, train=loader(batch_size=30), max_epochs=4)
    assert [r["n_selected"] for r in selector.history[:-1]] == [67, 67]


class Backwards(Sampler[int]):
    def __iter__(self):
        return iter(range(N - 1, -1, -1))

    def __len__(self):
        return N


@pytest.mark.parametrize("sampler", [Backwards(), WeightedRandomSampler(torch.ones(N), 3 * N)])
def test_a_sampler_of_ones_own_is_cut_to_whole_batches(sampler):
    selector = RandomPruning(prune_ratio=0.33)
    seen = Seen(selector)
    fit(selector, train=DataLoader(dataset(), 20, sampler=sampler), callbacks=[seen], max_epochs=2)
    assert {len(indices) for _, indices in seen.batches} == {20}
    assert all(r["n_selected"] == 80 for r in selector.history)


class Unmeasurable(Net):
    """Some losses are NaN."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step((torch.where(x[:, :1] > self.above, torch.nan, x), y), batch_idx)

    def configure_optimizers(self):
        """Leave the weights alone, which would become NaN."""
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)

    def __init__(self, above):
        super().__init__()
        self.above = above


FITS = {
    "with replacement": ({}, lambda: DataLoader(dataset(), 10, sampler=RandomSampler(dataset(), True, 60))),
    "cut": ({"limit_train_batches": 3}, loader),
    "cut, with replacement": (
        {"limit_train_batches": 3}, lambda: DataLoader(dataset(), 10, sampler=RandomSampler(dataset(), True)),
    ),
    "cut by steps": ({"max_steps": 13}, loader),
}  # fmt: skip


@pytest.mark.parametrize("flags, train", FITS.values(), ids=FITS)
def test_a_sample_that_was_never_drawn_is_not_taken_for_nan(flags, train, recwarn):
    fit(InfoBatch(prune_ratio=0.5), train=train(), max_epochs=2, **flags)
    assert not [w for w in recwarn if "NaN or infinite" in str(w.message)]


def test_samples_whose_losses_are_nan_are_counted_among_those_drawn():
    selector = Shares(1.0)
    seen = Seen(selector)
    with pytest.warns(UserWarning, match="losses of (.*) samples of epoch 0 were NaN or infinite") as caught:
        fit(selector, Unmeasurable(0.5), FITS["cut, with replacement"][1](), callbacks=[seen], max_epochs=1,
            limit_train_batches=3)  # fmt: skip
    drawn = set(seen.of_epoch(0))
    bad = sum(bool(dataset().tensors[0][i, 0] > 0.5) for i in drawn)
    (told,) = [str(w.message) for w in caught if "NaN or infinite" in str(w.message)]
    assert f"The losses of {bad} samples" in told and bad > 0


def test_batches_that_the_step_passes_over_are_no_nan(recwarn):
    class First(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 0 else super().training_step(batch, batch_idx)

    selector = InfoBatch(prune_ratio=0.5, whole_batches=False)
    fit(selector, First(), max_epochs=2)
    assert int(selector.losses.isnan().sum()) > 0
    assert not [w for w in recwarn if "NaN or infinite" in str(w.message)]


@pytest.mark.parametrize("size", [300, 320, 341, 400])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [7, 2**20], ids=["many parts", "one part"])
def test_a_selection_is_resized_by_those_first_and_last_in_line(size, weighted, chunk, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    line, indices = rng.permutation(500).astype(np.float32), np.sort(rng.permutation(500)[:320])
    line[[3, 77]] = np.nan  # never measured: before all others
    weights = rng.random(320).astype(np.float32)
    rank = np.argsort(np.argsort(np.where(np.isnan(line), np.inf, line), kind="stable"), kind="stable")
    others = np.setdiff1d(np.arange(500), indices)
    added = others[np.argsort(-rank[others])][: max(size - 320, 0)]
    stay = np.sort(indices[np.argsort(-rank[indices])][: min(size, 320)])
    expected = np.sort(np.concatenate([stay, added]))
    weight_of = dict(zip(indices.tolist(), weights.tolist(), strict=True))
    chosen = Selection(torch.from_numpy(indices), torch.from_numpy(weights) if weighted else None)
    found = resize(chosen, size, torch.from_numpy(line), torch.Generator().manual_seed(0))
    assert found.indices.tolist() == expected.tolist()
    assert (found.weights is not None) == weighted
    if weighted:
        assert found.weights.tolist() == [weight_of.get(i, 1.0) for i in expected.tolist()]
