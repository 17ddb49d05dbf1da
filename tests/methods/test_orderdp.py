"""OrderDP against NumPy written from the paper's two steps, and in fits."""

import itertools
import math

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_settings import N, fit

from lightning_dataselect import OrderDP
from lightning_dataselect.methods.orderdp import order_subset


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def inclusion(ranks, drawn, kept):
    """The chance of each sample to be among the ``kept`` highest of ``drawn``, over all subsets."""
    n = len(ranks)
    counts, subsets = np.zeros(n), list(itertools.combinations(range(n), drawn))
    for subset in subsets:
        counts[sorted(subset, key=lambda i: -ranks[i])[:kept]] += 1
    return counts / len(subsets)


@pytest.mark.parametrize(("drawn", "kept"), [(5, 3), (4, 1)])
def test_chances_are_those_of_order_statistics(drawn, kept):
    losses = torch.tensor([0.3, 2.0, 0.1, 1.0, 5.0, 0.7])
    counts = np.zeros(6)
    for seed in range(300):
        counts[order_subset(losses, drawn, kept, gen(seed))] += 1
    np.testing.assert_allclose(counts / 300, inclusion(losses.double().numpy(), drawn, kept), atol=0.08)
    # the closed form of the paper: the j-th highest of n is the l-th highest of s with l <= q
    n = 6
    for j, i in enumerate(np.argsort(-losses.numpy())):
        among = sum(
            math.comb(j, above) * math.comb(n - 1 - j, drawn - 1 - above) for above in range(min(kept - 1, j) + 1)
        )
        assert inclusion(losses.numpy(), drawn, kept)[i] == pytest.approx(among / math.comb(n, drawn))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 2**32))
def test_number_is_exact_and_none_left_of_the_subset_is_higher(n, prune_ratio, more, seed):
    prune_ratio = round(prune_ratio, 3)
    selector = OrderDP(prune_ratio=prune_ratio, random_ratio=round(1 - prune_ratio + more * prune_ratio, 3))
    draw = np.random.default_rng(seed)
    losses = torch.tensor(np.where(draw.random(n) < 0.2, np.nan, draw.random(n)), dtype=torch.float32)
    chosen = selector.select(1, losses, gen(seed)).indices
    assert len(chosen) == len(set(chosen.tolist())) == max(math.floor((1 - prune_ratio) * n + 0.5 + 1e-9), 1)
    # fewer samples were drawn than the higher ones left out and those kept
    known = losses.nan_to_num(math.inf)
    left = np.setdiff1d(np.arange(n), chosen)
    higher = sum(bool(known[i] > known[chosen].min()) for i in left)
    drawn = max(math.floor(selector.random_ratio * n + 0.5 + 1e-9), len(chosen))
    assert higher <= n - drawn


def test_each_epoch_takes_the_highest_of_a_fresh_subset(monkeypatch):
    selector, asked = OrderDP(prune_ratio=0.5, random_ratio=0.75, whole_batches=False), []
    select = selector.select

    def spied(epoch, scores, generator):
        chosen = select(epoch, scores, generator)
        asked.append((scores.clone(), chosen.indices))
        return chosen

    class Losses(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(selector.losses.clone())

    seen = []
    monkeypatch.setattr(selector, "select", spied)
    fit(selector, callbacks=[Losses()], max_epochs=6)
    assert [r["n_selected"] for r in selector.history] == [N // 2] * 6
    assert asked[0][0].isnan().all()
    for (scores, chosen), losses in zip(asked[1:], seen, strict=False):
        assert torch.equal(scores.nan_to_num(-1), losses.nan_to_num(-1)), "the last losses"
        known = scores.nan_to_num(math.inf)
        left = np.setdiff1d(np.arange(N), chosen)
        assert 0 < (known[left] > known[chosen].min()).sum() <= N // 4, "no more than the first step leaves out"
    assert len({tuple(chosen.tolist()) for _, chosen in asked}) == 6


def test_with_all_drawn_it_is_the_highest_losses():
    losses = torch.rand(50, generator=gen(3))
    chosen = OrderDP(prune_ratio=0.6, random_ratio=1.0).select(1, losses, gen()).indices
    assert set(chosen.tolist()) == set(np.argsort(-losses.double().numpy())[:20].tolist())


def test_batches_are_filled_up_by_chance():
    selector = OrderDP(prune_ratio=0.4)
    assert (selector.line_up(torch.rand(9, generator=gen())) == 0).all()


def test_a_subset_smaller_than_what_is_kept_is_refused():
    words = r"random_ratio=0.5 draws fewer samples than prune_ratio=0.3 keeps: give random_ratio=0.7 or more"
    with pytest.raises(ValueError, match=words):
        OrderDP(prune_ratio=0.3, random_ratio=0.5)
    OrderDP(prune_ratio=0.9, random_ratio=0.1)  # 1 - 0.9 is not 0.1 in floating point
    with pytest.raises(ValueError, match=r"random_ratio=2 is outside \[0, 1\]"):
        OrderDP(random_ratio=2)


def test_where_more_is_kept_than_the_authors_draw_just_that_is_drawn():
    losses = torch.rand(100, generator=gen())
    for selector in (OrderDP(prune_ratio=0.1), OrderDP(prune_ratio="linear(start=0.1, end=0.6)")):
        kept = [selector.select(1, losses, gen(seed)).indices for seed in range(2)]
        assert [len(each) for each in kept] == [90, 90] and not torch.equal(*kept), "a uniform subset"
    fit(falling := OrderDP(prune_ratio="linear(start=0.5, end=0)", random_ratio=0.75, whole_batches=False))
    assert [record["n_selected"] for record in falling.history] == [24, 32, 40, 48]


def test_published_defaults():
    assert (OrderDP().prune_ratio, OrderDP().random_ratio, OrderDP().anneal, OrderDP().warmup_epochs) == (
        0.4,
        0.75,
        0.0,
        0,
    )
