import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_dataselect.numerics import parts, sampling
from lightning_dataselect.numerics.sampling import top_k, uniform_subset, weighted_subset
from lightning_dataselect.numerics.shuffle import random_order

NAN, INF = math.nan, math.inf


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def is_sorted_subset(indices, n, k):
    i = indices.tolist()
    return indices.dtype == torch.int64 and len(i) == k and i == sorted(set(i) & set(range(n)))


@pytest.fixture(params=[None, 7], ids=["one chunk", "chunks of 7"])
def chunk(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(parts, "_CHUNK", request.param)
    return request.param


# ---- top_k

any_float = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=200)
@given(data=st.data(), values=st.lists(any_float, min_size=1, max_size=40))
def test_top_k_agrees_with_a_sort(data, values):
    k = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=torch.float32)
    chosen = top_k(scores, k, gen(len(values)))
    assert is_sorted_subset(chosen, len(values), k)
    oracle = np.where(np.isnan(scores.numpy()), np.inf, scores.numpy().astype(np.float64))
    assert np.array_equal(np.sort(oracle[chosen.numpy()]), np.sort(oracle)[len(values) - k :])


@pytest.mark.parametrize("k", [0, 1, 30, 59, 100])
def test_top_k_takes_the_highest_across_chunks(chunk, k):
    scores = torch.randn(100, generator=gen(3)).round(decimals=1)
    chosen = top_k(scores, k, gen())
    assert is_sorted_subset(chosen, 100, k)
    rest = np.setdiff1d(np.arange(100), chosen.numpy())
    if 0 < k < 100:
        assert scores[chosen].min() >= scores[rest].max()


def test_top_k_takes_what_was_never_measured_first(chunk):
    scores = torch.tensor([NAN, 1.0, INF, -INF, 5.0, NAN])
    assert top_k(scores, 4, gen()).tolist() == [0, 2, 4, 5]
    pairs = {tuple(top_k(scores, 2, gen(s)).tolist()) for s in range(60)}
    assert pairs == {(0, 2), (0, 5), (2, 5)}


def test_top_k_breaks_ties_uniformly(chunk):
    scores = torch.tensor([1.0] * 30 + [2.0] * 10 + [0.0] * 10)
    counts = np.zeros(50)
    generator = gen(1)
    for _ in range(400):
        counts[top_k(scores, 20, generator)] += 1
    assert (counts[30:40] == 400).all() and (counts[40:] == 0).all()
    # the 30 counts of one draw are negatively correlated: (n - 1) / n * chi-square
    z2 = ((counts[:30] - 400 / 3) ** 2 / (400 * (1 / 3) * (2 / 3))).sum() * 29 / 30
    assert 1e-4 < stats.chi2.sf(z2, 29) < 1 - 1e-4


def test_top_k_reads_other_dtypes_signs_of_zero_and_strides():
    assert top_k(torch.tensor([3, -1, 7, 0]), 2, gen()).tolist() == [0, 2]
    assert top_k(torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64), 1, gen()).tolist() == [1]
    assert top_k(torch.arange(8.0).view(4, 2)[:, 0], 2, gen()).tolist() == [2, 3]
    zeros = torch.tensor([0.0, -0.0])
    assert {top_k(zeros, 1, gen(s)).item() for s in range(30)} == {0, 1}


def test_inputs_are_left_alone():
    scores = torch.tensor([NAN, -0.0, 3.0])
    before = scores.clone()
    top_k(scores, 2, gen())
    weighted_subset(scores.abs(), 2, gen())
    assert torch.equal(scores.view(torch.int32), before.view(torch.int32))


def test_same_seed_gives_the_same_choice(chunk):
    scores = torch.ones(40)
    for choose in (top_k, weighted_subset):
        assert torch.equal(choose(scores, 20, gen(5)), choose(scores, 20, gen(5)))
        assert not torch.equal(choose(scores, 20, gen(5)), choose(scores, 20, gen(6)))


def test_global_random_state_is_not_touched():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    weighted_subset(torch.rand(50, generator=gen()), 20, gen())
    uniform_subset(50, 20, gen())
    random_order(50, gen())
    top_k(torch.zeros(50), 20, gen())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


# ---- uniform_subset


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(0, 60))
def test_uniform_subset_is_a_sorted_subset(data, n):
    k = data.draw(st.integers(0, n))
    assert is_sorted_subset(uniform_subset(n, k, gen(n)), n, k)


@pytest.mark.parametrize("n", [1, 2, 255, 4096])
def test_uniform_subset_is_the_beginning_of_a_random_order(n):
    """So a fit's choice does not depend on whether the order was made besides."""
    for k in {0, 1, n // 3, n - 1, n}:
        assert uniform_subset(n, k, gen(n)).tolist() == sorted(random_order(n, gen(n))[:k].tolist())


def test_uniform_subset_takes_each_pair_equally_often(monkeypatch):
    for fewest in (2**20, 3):  # a random order of six samples, and a random key for each
        monkeypatch.setattr(sampling, "_FEWEST_KEYS", fewest)
        generator = gen(2)
        seen = {}
        for _ in range(900):
            pair = tuple(uniform_subset(6, 2, generator).tolist())
            seen[pair] = seen.get(pair, 0) + 1
        assert len(seen) == 15
        assert stats.chisquare(list(seen.values())).pvalue > 1e-4


# ---- weighted_subset


def inclusion_probabilities(p, k):
    """Drawing one after another in proportion to p, summed over every order (float64)."""
    p = np.asarray(p, dtype=np.float64)
    included = np.zeros(len(p))

    def draw(taken, probability):
        if len(taken) == k:
            included[list(taken)] += probability
            return
        left = p.sum() - p[list(taken)].sum()
        for i in set(range(len(p))) - set(taken):
            draw((*taken, i), probability * p[i] / left)

    draw((), 1.0)
    return included


@pytest.mark.parametrize(("scale", "chunk"), [(1.0, 2**20), (1e-37, 2**20), (1e30, 3)])
def test_weighted_subset_draws_in_proportion_without_replacement(scale, chunk, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    p = torch.tensor([1.0, 2.0, 3.0, 5.0, 0.5])
    expected = inclusion_probabilities(p.tolist(), 2)
    counts, draws, generator = np.zeros(5), 1500, gen(7)
    for _ in range(draws):
        counts[weighted_subset(p * scale, 2, generator)] += 1
    z = (counts - draws * expected) / np.sqrt(draws * expected * (1 - expected))
    assert np.abs(z).max() < 4.5


def test_weighted_subset_keeps_rare_samples_as_rare_as_they_are():
    # The light samples together weigh 1e-4 of the heavy one. Exponentials with 24 random bits
    # would be 0 for one in eight of the draws below and let a light sample win.
    p = torch.full((2_000_001,), 5e-11)
    p[-1] = 1.0
    generator = gen(11)
    for _ in range(30):
        assert weighted_subset(p, 1, generator).item() == 2_000_000


def test_weighted_subset_takes_zero_weights_last_and_unmeasured_first(chunk):
    p = torch.tensor([0.0, 1e-38, NAN, 0.0, 1.0, 3e38, INF, 0.0])
    for seed in range(20):
        assert weighted_subset(p, 2, gen(seed)).tolist() == [2, 6]
        assert weighted_subset(p, 5, gen(seed)).tolist() == [1, 2, 4, 5, 6]
    picks = {tuple(weighted_subset(p, 6, gen(s)).tolist()) for s in range(40)}
    assert len(picks) == 3
    assert weighted_subset(torch.zeros(9), 4, gen()).numel() == 4


def test_weighted_subset_is_not_limited_to_2_to_the_24():
    n = 2**24 + 5
    p = torch.zeros(1).expand(n).clone()
    p[-3:] = 1.0
    assert weighted_subset(p, 3, gen()).tolist() == [n - 3, n - 2, n - 1]


@settings(max_examples=60)
@given(data=st.data(), p=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=30))
def test_weighted_subset_is_exact_in_number(data, p):
    k = data.draw(st.integers(0, len(p)))
    chosen = weighted_subset(torch.tensor(p), k, gen())
    assert is_sorted_subset(chosen, len(p), k)
    n_positive = sum(x > 0 for x in p)
    assert sum(p[i] > 0 for i in chosen.tolist()) == min(k, n_positive)


# ---- errors


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="5"):
        top_k(torch.zeros(4), 5, gen())
    with pytest.raises(ValueError, match="-1"):
        uniform_subset(4, -1, gen())
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        top_k(torch.zeros(2, 2), 1, gen())
    with pytest.raises(ValueError, match=r"-0\.5"):
        weighted_subset(torch.tensor([1.0, -0.5]), 1, gen())
