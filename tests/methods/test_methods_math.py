"""The mathematics of the set-level methods against float64 NumPy written from the formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect.methods import UCB, EpsilonGreedy, InfoBatch, RandomPruning
from lightning_dataselect.methods.classification import correct, output_error
from lightning_dataselect.methods.dynamic_pruning import epsilon_greedy
from lightning_dataselect.methods.infobatch import infobatch
from lightning_dataselect.methods.random_pruning import walk
from lightning_dataselect.methods.registry import get, list_methods
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore

NAN = math.nan


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def seen(indices, losses, logits=None, targets=None, epoch=0):
    return Observation(torch.tensor(indices), torch.tensor(losses), logits, targets, epoch)


# ---- random pruning


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(1, 80), seed=st.integers(0, 5))
def test_walk_repeats_no_sample_before_all_have_come(data, n, seed):
    k = data.draw(st.integers(1, n))
    period = n // math.gcd(n, k)
    counts = np.zeros(n, dtype=int)
    for step in range(min(period, 100)):
        taken = walk(n, k, step, seed)
        assert taken.dtype == torch.int64 and len(set(taken.tolist())) == k
        counts[taken] += 1
        assert counts.max() - counts.min() <= 1
    if period <= 100:
        assert counts.min() == counts.max()


def test_walk_shuffles_anew_after_whole_passes_and_is_a_function_of_the_step():
    passes = [{tuple(walk(60, 20, 3 * p + s, 0).tolist()) for s in range(3)} for p in range(2)]
    assert passes[0].isdisjoint(passes[1])
    assert torch.equal(walk(60, 20, 4, 0), walk(60, 20, 4, 0))
    assert not torch.equal(walk(60, 20, 4, 0), walk(60, 20, 4, 1))


@pytest.mark.parametrize(("n", "k"), [(1_000_003, 1), (30_011, 7), (1797, 899)])
def test_walk_over_an_awkward_number_goes_on_without_a_gap(n, k):
    first = walk(n, k, 0, 0)
    second = walk(n, k, 1, 0)
    overlap = len(np.intersect1d(first, second))
    assert overlap == max(2 * k - n, 0)


def test_walk_whose_pass_is_long_and_not_whole_goes_through_nearly_all_before_it_begins_again():
    n, k = 3001, 7
    counts = np.zeros(n, dtype=int)
    for step in range(429):  # 428.7 steps are a pass
        counts[walk(n, k, step, 0)] += 1
    assert counts.min() == 1 and (counts == 2).sum() == 429 * k - n


def test_random_pruning_walks_by_its_own_seed():
    first, again, other = (
        RandomPruning(mode="walk", seed=seed).select(0, torch.zeros(100), gen()).indices for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("mode", ["fresh", "walk"])
@pytest.mark.parametrize(("n", "ratio", "kept"), [(100, 0.9, 10), (5, 0.5, 3), (3, 0.9, 1), (10, 0.0, 10)])
def test_random_pruning_keeps_the_share_rounded_half_up(mode, n, ratio, kept):
    assert len(RandomPruning(prune_ratio=ratio, mode=mode).select(0, torch.zeros(n), gen()).indices) == kept


def test_random_pruning_walks_by_selections_not_by_epochs():
    selector = RandomPruning(prune_ratio=0.5, mode="walk", warmup_epochs=3, every_n_epochs=2)
    halves = [selector.select(epoch, torch.zeros(10), gen()).indices for epoch in (3, 5)]
    assert sorted(torch.cat(halves).tolist()) == list(range(10))


def test_random_pruning_draws_anew_and_rescales_on_demand():
    plain, scaled = RandomPruning(prune_ratio=0.75), RandomPruning(prune_ratio=0.75, rescale=True)
    first, second = (plain.select(e, torch.zeros(100), gen(e)) for e in range(2))
    assert len(first.indices) == len(second.indices) == 25
    assert first.weights is None and not torch.equal(first.indices, second.indices)
    assert scaled.select(0, torch.zeros(100), gen()).weights.tolist() == [4.0] * 25
    assert scaled.needs_losses and not plain.needs_losses


# ---- InfoBatch


@settings(max_examples=100)
@given(
    values=st.lists(st.one_of(st.floats(0, 50, width=32), st.just(NAN)), min_size=1, max_size=50),
    percent=st.integers(0, 99),
)
def test_infobatch_keeps_the_hard_and_reweighs_the_easy(values, percent):
    losses, r = torch.tensor(values, dtype=torch.float32), percent / 100
    chosen = infobatch(losses, r, gen())
    x = losses.numpy().astype(np.float64)
    easy = x < np.float32(np.nanmean(x)) if (~np.isnan(x)).any() else np.zeros(len(x), bool)
    kept = np.zeros(len(x), bool)
    kept[chosen.indices] = True
    assert kept[~easy].all()
    if easy.any():
        assert abs(kept[easy].sum() - (1 - r) * easy.sum()) <= 0.5 + 1e-9 or kept[easy].sum() == 1
    expected = np.where(easy, 1 / (1 - r), 1.0)[kept]
    assert np.allclose(chosen.weights.double().numpy(), expected, rtol=1e-6)
    assert chosen.weights.dtype == torch.float32


def test_infobatch_estimates_the_sum_without_bias():
    losses = torch.rand(200, generator=gen(1)) ** 4
    draws = np.array(
        [float((losses[c.indices] * c.weights).sum()) for c in (infobatch(losses, 0.5, gen(s)) for s in range(400))]
    )
    standard_error = draws.std(ddof=1) / 20
    assert abs(draws.mean() - float(losses.sum())) < 4 * standard_error
    assert draws.std() > 0


def test_infobatch_drops_each_easy_sample_equally_often():
    losses = torch.cat([torch.zeros(20), torch.ones(5)])
    counts = np.zeros(25)
    for s in range(500):
        counts[infobatch(losses, 0.4, gen(s)).indices] += 1
    assert (counts[20:] == 500).all()
    assert np.abs(counts[:20] - 300).max() < 4.5 * math.sqrt(500 * 0.6 * 0.4)


def test_infobatch_drops_nothing_of_what_is_unknown_or_equal():
    for losses in (torch.full((7,), NAN), torch.full((7,), 0.1), torch.tensor([0.3])):
        chosen = InfoBatch(prune_ratio=0.9).select(0, losses, gen())
        assert chosen.indices.tolist() == list(range(len(losses)))
        assert chosen.weights.unique().tolist() == [1.0]


# ---- dynamic pruning


def test_moving_statistics_follow_the_formulas():
    rng = np.random.default_rng(0)
    alpha, c = 0.3, 2.0
    eps, ucb = EpsilonGreedy(alpha=alpha), UCB(alpha=alpha, c=c)
    eps_store, ucb_store = ScoreStore(6), ScoreStore(6, ucb.columns())
    s = m = np.full(6, NAN)
    v = np.full(6, NAN)
    for _ in range(12):
        batch = rng.permutation(5)[:3]  # sample 5 is never seen
        u = rng.exponential(size=3).astype(np.float32)
        observation = seen([*batch.tolist(), 6], [*u.tolist(), 99.0])
        eps.observe(observation, eps_store)
        ucb.observe(observation, ucb_store)
        s, m, v = s.copy(), m.copy(), v.copy()
        for i, x in zip(batch, u.astype(np.float64), strict=True):
            first = np.isnan(s[i])
            v[i] = 0.0 if first else (1 - alpha) * v[i] + alpha * (x - m[i]) ** 2
            m[i] = x if first else (1 - alpha) * m[i] + alpha * x
            s[i] = x if first else (1 - alpha) * s[i] + alpha * x
    for store, name, oracle in [
        (eps_store, "score", s),
        (ucb_store, "mean", m),
        (ucb_store, "variance", v),
        (ucb_store, "score", m + c * v),
    ]:
        assert np.allclose(store.column(name).numpy(), oracle, rtol=1e-5, equal_nan=True), name
    assert np.isnan(s[5]) and not np.isnan(s[:5]).any()


def test_loss_that_is_not_finite_starts_the_statistics_anew():
    ucb = UCB(alpha=0.5)
    store = ScoreStore(1, ucb.columns())
    for loss in (1.0, 3.0, NAN):
        ucb.observe(seen([0], [loss]), store)
    assert store.column("score").isnan().all()
    for loss in (2.0, 4.0):
        ucb.observe(seen([0], [loss]), store)
    assert store.column("mean").item() == 3.0 and store.column("variance").item() == 2.0


@settings(max_examples=100)
@given(data=st.data(), n=st.integers(1, 50), percent=st.integers(0, 100))
def test_epsilon_greedy_takes_the_best_and_as_many_others(data, n, percent):
    k = data.draw(st.integers(1, n))
    unknown = data.draw(st.integers(0, n))
    scores = torch.randperm(n, generator=gen(n)).float()
    scores[:unknown] = NAN
    chosen = epsilon_greedy(scores, k, percent / 100, gen())
    assert len(set(chosen.tolist())) == k == len(chosen)
    values = scores.numpy()
    if unknown >= k:
        assert np.isnan(values[chosen]).all()
        return
    n_best = max(k - (percent * k * 2 + 100) // 200, unknown)
    best = np.argsort(-np.where(np.isnan(values), np.inf, values))[:n_best]
    assert set(best) <= set(chosen.tolist())


def test_epsilon_greedy_explores_the_rest_uniformly():
    scores = torch.arange(30.0)
    counts = np.zeros(30)
    for s in range(600):
        counts[epsilon_greedy(scores, 10, 0.5, gen(s))] += 1
    assert (counts[25:] == 600).all()
    assert np.abs(counts[:25] - 120).max() < 4.5 * math.sqrt(600 * 0.2 * 0.8)


@pytest.mark.parametrize(("c", "kept"), [(0.0, 0), (5.0, 1)])
def test_ucb_prefers_what_varies_as_far_as_c_says(c, kept):
    ucb = UCB(prune_ratio=0.5, alpha=0.5, c=c)
    store = ScoreStore(2, ucb.columns())
    for pair in ([1.0, 0.0], [1.0, 1.8]):  # means 1.0 and 0.9, variances 0 and 1.62
        ucb.observe(seen([0, 1], pair), store)
    assert ucb.select(1, store.column("score"), gen()).indices.tolist() == [kept]


# ---- errors of classification


def test_output_error_is_the_gradient_of_the_cross_entropy():
    logits = torch.randn(5, 4, generator=gen(2), dtype=torch.float64).requires_grad_()
    targets = torch.tensor([0, 3, 1, 2, 2])
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    error = output_error(logits.detach(), targets)
    assert torch.allclose(error.double(), logits.grad, atol=1e-6)
    soft = torch.nn.functional.one_hot(targets, 4).float()
    assert torch.equal(output_error(logits.detach(), soft), error)
    assert output_error(logits.detach(), torch.tensor([0, -100, 1, 2, 2])).isnan().any(1).tolist() == [
        False, True, False, False, False,
    ]  # fmt: skip


def test_output_error_stays_exact_for_large_logits_and_bfloat16():
    logits = torch.tensor([[60.0, 0.0], [0.0, 60.0]]).bfloat16()
    error = output_error(logits, torch.tensor([0, 0]))
    assert error.dtype == torch.float32
    assert torch.allclose(error.norm(dim=1), torch.tensor([0.0, math.sqrt(2)]), atol=1e-6)


def test_correct_reads_hard_and_soft_targets():
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    assert correct(logits, torch.tensor([0, 1])).tolist() == [True, False]
    assert correct(logits, torch.tensor([[0.4, 0.6], [0.7, 0.3]])).tolist() == [False, True]


def test_el2n_as_uncertainty_needs_and_reads_logits():
    logits, targets = torch.randn(3, 4, generator=gen(3)), torch.tensor([1, 0, 3])
    store = ScoreStore(3)
    selector = EpsilonGreedy(uncertainty="el2n")
    selector.observe(seen([2, 0, 1], [9.0, 9.0, 9.0], logits, targets), store)
    z = logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    oracle = np.linalg.norm(p - np.eye(4)[targets], axis=1)
    assert np.allclose(store.column("score").numpy()[[2, 0, 1]], oracle, rtol=1e-5)
    with pytest.raises(ValueError, match=r"UCB\(uncertainty='el2n'\) needs the logits"):
        UCB(uncertainty="el2n").observe(seen([0], [1.0]), ScoreStore(1, UCB().columns()))


# ---- arguments and registry


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: RandomPruning(mode="jump"), "jump"),
        (lambda: EpsilonGreedy(epsilon=1.5), r"epsilon=1\.5"),
        (lambda: EpsilonGreedy(alpha=-0.1), r"alpha=-0\.1"),
        (lambda: UCB(uncertainty="entropy"), "entropy"),
        (lambda: UCB(c=-1), "c=-1"),
        (lambda: UCB(c=math.inf), "c=inf"),
        (lambda: InfoBatch(prune_ratio=1.0), r"prune_ratio=1\.0"),
    ],
)
def test_wrong_arguments_are_quoted(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_published_defaults():
    assert (InfoBatch().prune_ratio, InfoBatch().anneal, InfoBatch().warmup_epochs) == (
        0.5,
        0.125,
        0,
    )


def test_registry_lists_each_method_with_its_facts():
    methods = list_methods()
    names = [method.name for method in methods]
    assert {"RandomPruning", "InfoBatch", "EpsilonGreedy", "UCB"} <= set(names)
    assert names == sorted(names, key=str.lower) and len(set(names)) == len(names)
    for method in methods:
        assert method.cls.__name__ == method.name
        # a method of our own has no paper to link to
        assert (
            method.url.startswith("https://")
            or method.url == ""
            and method.name in ("FewerEpochs", "Frontier", "ScoreSelector")
        )
        assert 2015 < method.year < 2030
        assert method.kind in {"set-level", "batch-level", "static"}
        assert method.paper and method.needs and method.published


def test_registry_suggests_the_nearest_name():
    assert get("ucb").cls is UCB
    with pytest.raises(ValueError, match=r"'InfoBach'.*Did you mean InfoBatch\?"):
        get("InfoBach")
    with pytest.raises(ValueError, match=r"The methods are .*UCB"):
        get("zzzz")
