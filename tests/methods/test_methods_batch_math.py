"""The rules of the methods that choose within a batch, against float64 NumPy written from their formulas."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_dataselect import ESWP, EvolvedSampling, Observation, RHOLoss, SelectiveBackprop
from lightning_dataselect.methods.evolved_sampling import draw, evolve
from lightning_dataselect.methods.holdout import halves
from lightning_dataselect.methods.rho_loss import highest
from lightning_dataselect.methods.selective_backprop import percentile, take_by_chance

NAN = float("nan")
losses = st.floats(0, 1e4, width=32) | st.sampled_from([0.0, 0.5, 1.0])
unit = st.floats(0, 1)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def close(actual, expected, **tolerance):
    options = {"rtol": 1e-4, "atol": 1e-5, **tolerance}
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, **options)


def seen(indices, values, epoch=0):
    return Observation(torch.tensor(indices), torch.tensor(values, dtype=torch.float32), None, None, epoch)


def replay(selector, n, batches):
    selector.run_state.open(selector, n, world_size=1, epoch=0)
    store = selector.store
    for batch in batches:
        store["loss"][batch.indices] = batch.losses
        selector.observe(batch, store)
    return store


# ---- evolved sampling


@st.composite
def histories(draw_, with_nan=True):
    """The number of samples, and batches of distinct indices and their losses."""
    n = draw_(st.integers(1, 9))
    values = losses | st.just(NAN) if with_nan else losses
    batches = []
    for _ in range(draw_(st.integers(1, 8))):
        indices = draw_(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True))
        batches.append((indices, draw_(st.lists(values, min_size=len(indices), max_size=len(indices)))))
    return n, batches


@settings(deadline=None, max_examples=100)
@given(histories(), unit, unit)
def test_es_is_the_recursion(history, b1, b2):
    n, batches = history
    store = replay(EvolvedSampling(betas=(b1, b2)), n, [seen(*batch) for batch in batches])
    w, s = np.full(n, np.nan), np.full(n, 1 / n)
    for indices, values in batches:
        for i, loss in zip(indices, values, strict=True):
            w[i] = b1 * s[i] + (1 - b1) * loss
            s[i] = s[i] if np.isnan(loss) else b2 * s[i] + (1 - b2) * loss
    close(store.column("score"), w)
    close(store.column("s").nan_to_num(1 / n), s)


@settings(deadline=None, max_examples=50)
@given(st.lists(losses, min_size=1, max_size=12), unit, unit)
def test_es_is_the_moving_average_plus_its_decayed_differences(history, b1, b2):
    """The paper's second form, with the difference l(1) - s(0) for the first step."""
    n = 3
    store = replay(EvolvedSampling(betas=(b1, b2)), n, [seen([1], [loss]) for loss in history])
    padded, t = np.array([1 / n, *history]), len(history)
    differences = sum(b2 ** (t - k) * (padded[k] - padded[k - 1]) for k in range(1, t + 1))
    s = b2**t / n + (1 - b2) * sum(b2 ** (t - k) * padded[k] for k in range(1, t + 1))
    close(store.column("score")[1], s + (b2 - b1) * differences, rtol=1e-3, atol=1e-3)


@given(
    st.lists(losses | st.just(NAN), min_size=1, max_size=9),
    st.lists(losses, min_size=9, max_size=9),
)
def test_es_without_memory_draws_by_the_present_loss(values, memory):
    w, s = evolve(torch.tensor(memory[: len(values)]), torch.tensor(values), (0.0, 0.0))
    close(w, values)
    assert not s.isnan().any()


@given(st.lists(losses, min_size=1, max_size=9), unit)
def test_es_with_equal_betas_is_a_moving_average(values, beta):
    w, s = evolve(torch.full((len(values),), 0.25), torch.tensor(values), (beta, beta))
    assert torch.equal(w, s)
    close(w, beta * 0.25 + (1 - beta) * np.array(values))


def shares(draw_once, n, times=2000):
    counts = np.zeros(n)
    for seed in range(times):
        counts[draw_once(gen(seed)).numpy()] += 1
    return counts / times


def without_replacement(p, k):
    """Inclusion probabilities of k draws one after another, each in proportion to what is left."""
    p = np.array(p, np.float64)
    inclusion = np.zeros(len(p))
    for order in itertools.permutations(range(len(p)), k):
        chance, left = 1.0, p.sum()
        for i in order:
            chance, left = chance * p[i] / left, left - p[i]
        inclusion[list(order)] += chance
    return inclusion


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "p", [[1.0, 2.0, 3.0, 6.0, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0], [1e-30, 2e-30, 1e-30, 5e-30, 1e-30]]
)
def test_draw_follows_its_weights(p, k):
    close(shares(lambda g: draw(torch.tensor(p), k, g), len(p)), without_replacement(p, k), atol=0.045)


PEER = {  # by rank of the loss among 8, in 100,000 draws
    0.5: [0.0866, 0.2459, 0.387, 0.5023, 0.5944, 0.6723, 0.7318, 0.7796],
    0.25: [0.0003, 0.0081, 0.0375, 0.0998, 0.2084, 0.3669, 0.5601, 0.7189],
}


@pytest.mark.parametrize("keep", PEER)
def test_draw_agrees_with_composer(keep):
    """Composer (mosaicml 0.32.1) draws ``keep`` of a batch by weights, ``((rank - 1/2) / B) ** (1 / keep - 1)``.

    That is what its `select_using_loss` calls selective backprop: it ranks within the batch and takes a fixed number.
    """
    weights = ((torch.arange(8) + 0.5) / 8) ** (1 / keep - 1)
    close(shares(lambda g: draw(weights, int(keep * 8), g), 8), PEER[keep], atol=0.045)


def test_selective_backprop_differs_from_composers():
    """By the paper the highest of R losses is always taken, and the numbers differ from batch to batch."""
    chances = percentile(torch.arange(8.0), torch.arange(8.0)) ** 3
    ours = shares(lambda g: take_by_chance(chances, g), 8)
    close(ours, chances, atol=0.045)
    assert ours[-1] == 1 and abs(ours[-1] - PEER[0.25][-1]) > 0.2


def test_draw_leaves_weights_of_zero_to_the_last_and_takes_unknown_ones_first():
    assert set(draw(torch.tensor([0.0, 1e-38, 0.0, NAN, torch.inf]), 3, gen()).tolist()) == {
        1,
        3,
        4,
    }
    for weights, k in (([0.0, 0.0, 0.0, 5.0], 3), ([0.0] * 4, 2), ([NAN] * 4, 2)):
        inclusion = shares(lambda g, w=weights, k=k: draw(torch.tensor(w), k, g), 4, times=1500)
        first = np.array(weights) > 0
        expected = np.where(first, 1.0, (k - first.sum()) / (~first).sum())
        close(inclusion, expected, atol=0.06)


@given(st.lists(losses | st.just(NAN), min_size=1, max_size=33), st.data())
def test_draw_takes_as_many_as_asked_each_once(weights, data):
    k = data.draw(st.integers(1, len(weights)))
    positions = draw(torch.tensor(weights), k, gen(k))
    assert positions.dtype == torch.int64
    assert len(set(positions.tolist()) & set(range(len(weights)))) == len(positions) == k


def test_eswp_draws_the_set_by_stored_weights_and_keeps_those_of_dropped_samples():
    selector = ESWP(prune_ratio=0.4)
    p = torch.tensor([1.0, 2.0, 3.0, 6.0, 0.5])
    inclusion = shares(lambda g: selector.select(1, p, g).indices, 5, times=400)
    close(inclusion, without_replacement(p.tolist(), 3), atol=0.1)
    store = replay(selector, 3, [seen([0, 1, 2], [1.0, 2.0, 3.0]), seen([1], [5.0])])
    close(store.column("score")[[0, 2]], [0.2 / 3 + 0.8 * v for v in (1.0, 3.0)])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 13])
def test_eswp_keeps_the_promised_number(n):
    kept = ESWP(prune_ratio=0.3).select(1, torch.rand(n, generator=gen()), gen()).indices
    assert len(kept) == max(1, int(np.floor(0.7 * n + 0.5)))


def annealing(selector, epochs):
    selector.max_epochs = epochs
    return [e for e in range(epochs) if selector.trains_on_whole_batches(e)]


def test_es_anneals_at_both_ends():
    assert annealing(EvolvedSampling(), 60) == [0, 1, 2, 57, 58, 59]
    assert annealing(EvolvedSampling(anneal=0.3), 10) == [0, 1, 2, 7, 8, 9]
    assert annealing(EvolvedSampling(), 10) == [0]
    assert annealing(EvolvedSampling(warmup_epochs=0), 10) == []
    assert annealing(EvolvedSampling(warmup_epochs=4, anneal=0.1), 10) == [0, 1, 2, 3, 9]
    everything = ESWP(anneal=0.2)
    everything.max_epochs = 10
    assert [e for e in range(10) if everything.trains_on_everything(e)] == [0, 1, 8, 9]


# ---- selective backprop


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(losses | st.just(NAN), min_size=1, max_size=7), min_size=1, max_size=6),
    st.integers(1, 20),
    st.floats(0, 5),
)
def test_selective_backprop_ranks_among_the_last_losses(batches, history, beta):
    selector = SelectiveBackprop(beta=beta, history=history)
    store = replay(selector, 7, [seen(list(range(len(b))), b) for b in batches])
    recent = [loss for batch in batches for loss in batch][-history:]
    known = [loss for loss in recent if not np.isnan(loss)]
    for i, loss in enumerate(batches[-1]):
        actual = float(store.column("score")[i])
        if np.isnan(loss):
            assert np.isnan(actual) or beta == 0
        elif known:
            rank = stats.percentileofscore(np.float32(known), np.float32(loss), kind="rank") / 100
            close(actual, rank**beta)


def test_percentile_of_equal_losses_and_of_one():
    assert percentile(torch.ones(4), torch.ones(4)).tolist() == [0.625] * 4
    assert percentile(torch.ones(1), torch.ones(1)).tolist() == [1.0]
    assert percentile(torch.tensor([1.0, NAN]), torch.tensor([NAN, NAN])).nan_to_num(-1).tolist() == [0.0, -1.0]


def test_samples_that_only_pad_a_rank_stay_out_of_the_history():
    selector = SelectiveBackprop(history=4)
    replay(selector, 3, [seen([0, 3], [1.0, 9.0])])
    assert selector.rank_state()["recent"].nan_to_num(-1).tolist() == [-1, -1, 1, -1]


def test_each_sample_is_taken_by_its_own_chance():
    p = torch.tensor([0.1, 0.5, 0.9, 1.0, NAN])
    close(shares(lambda g: take_by_chance(p, g), 5), [0.1, 0.5, 0.9, 1, 1], atol=0.045)
    independent = shares(
        lambda g: torch.tensor([0] * int(set(range(2)) <= set(take_by_chance(p, g).tolist()))).long(),
        1,
    )
    close(independent, [0.05], atol=0.02)


def test_at_least_one_is_taken_the_one_that_came_nearest():
    assert [len(take_by_chance(torch.zeros(5), gen(seed))) for seed in range(50)] == [1] * 50
    p = torch.tensor([0.0, 0.0, 1e-9])
    nearest = [(torch.rand(3, generator=gen(seed)) - p).argmin().item() for seed in range(50)]
    assert [take_by_chance(p, gen(seed)).item() for seed in range(50)] == nearest
    assert len(set(nearest)) == 3


def test_more_are_taken_where_chance_takes_fewer_than_are_asked_for():
    p = torch.tensor([0.0, 0.3, 0.6])
    for seed in range(50):
        excess = p - torch.rand(3, generator=gen(seed))
        n = max(2, int((excess > 0).sum()))
        assert take_by_chance(p, gen(seed), fewest=2).tolist() == excess.argsort(descending=True)[:n].tolist()


def test_batch_ratio_is_the_expected_share_of_steady_losses():
    values = torch.rand(1024, generator=gen())
    for beta in (0, 1, 3):
        chance = percentile(values, values) ** beta
        assert float(chance.mean()) == pytest.approx(SelectiveBackprop(beta=beta).batch_ratio, abs=0.002)


def test_losses_below_zero_shift_the_weights_that_a_batch_is_drawn_by():
    """By the least loss that the samples have met, so that their differences count."""
    selector = EvolvedSampling(betas=(0.0, 0.0))
    replay(selector, 4, [seen([0, 1, 2], [-5.0, -3.0, -1.0]), seen([2, 3], [2.0, -4.0])])
    drawn = torch.zeros(4)
    for seed in range(4000):
        drawn[selector.choose(seen([0, 1, 2, 3], [0.0] * 4), 1, gen(seed))] += 1
    close(drawn / 4000, np.array([0, 2, 7, 1]) / 10, atol=0.03)
    shares_of_epoch = torch.zeros(4)
    for seed in range(4000):
        scores = torch.tensor([-5.0, -3.0, 2.0, -4.0])
        shares_of_epoch[ESWP(prune_ratio=0.75).select(1, scores, gen(seed)).indices] += 1
    close(shares_of_epoch / 4000, np.array([0, 2, 7, 1]) / 10, atol=0.03)


# ---- RHO-loss


@settings(deadline=None)
@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=17), st.data())
def test_rho_takes_the_highest_reducible_losses(pairs, data):
    now, held = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    selector = RHOLoss(holdout_losses=torch.from_numpy(held))
    selector.run_state.open(selector, len(now), world_size=1, epoch=0)
    store = selector.store
    store["holdout"][:-1] = torch.from_numpy(held)
    batch = seen(list(range(len(now))), now.tolist())
    selector.observe(batch, store)
    reducible = now.astype(np.float64) - held
    close(store.column("score"), reducible, atol=1e-2)
    k = data.draw(st.integers(1, len(now)))
    chosen = selector.choose(batch, k, gen()).numpy()
    assert len(set(chosen.tolist())) == k
    np.testing.assert_array_equal(np.sort((now - held)[chosen]), np.sort(now - held)[-k:])


def test_highest_breaks_ties_at_random_and_takes_unknown_ones_first():
    close(shares(lambda g: highest(torch.ones(5), 2, g), 5), [0.4] * 5, atol=0.045)
    tied = torch.tensor([-torch.inf, NAN, 7.0, 7.0, 7.0])
    close(shares(lambda g: highest(tied, 2, g), 5), [0, 1, 1 / 3, 1 / 3, 1 / 3], atol=0.045)


@pytest.mark.parametrize("n", [2, 3, 101])
def test_halves_share_out_every_sample(n):
    first, second = halves(n, seed=1)
    assert len(first) == n // 2
    assert torch.cat([first, second]).sort().values.tolist() == list(range(n))
    if n > 100:
        assert not torch.equal(first, halves(n, seed=2)[0])


def test_one_sample_has_no_halves():
    with pytest.raises(ValueError, match=r"1 samples cannot be split into two halves.*give held-out data"):
        halves(1, seed=0)


# ---- arguments


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: EvolvedSampling(betas=(0.2,)), ValueError, r"betas=\(0\.2,\) must be two shares"),
        (
            lambda: EvolvedSampling(betas=(0.2, 1.5)),
            ValueError,
            r"betas\[1\]=1\.5 is outside \[0, 1\]",
        ),
        (
            lambda: EvolvedSampling(batch_ratio=0),
            ValueError,
            "batch_ratio=0 is outside \\(0, 1\\]: give the share of each batch to train on",
        ),
        (
            lambda: EvolvedSampling(score_dtype="int8"),
            ValueError,
            "score_dtype='int8' is unknown.*'bfloat16'",
        ),
        (lambda: ESWP(prune_ratio=1.0), ValueError, r"prune_ratio=1\.0 is outside \[0, 1\)"),
        (lambda: SelectiveBackprop(beta=-1), ValueError, "beta=-1 must be finite and 0 or more"),
        (lambda: SelectiveBackprop(beta=NAN), ValueError, "beta=nan must be finite"),
        (lambda: SelectiveBackprop(history=0), ValueError, "history=0 is too small"),
        (
            lambda: RHOLoss(holdout_losses=torch.ones(3), batch_ratio=2),
            ValueError,
            "batch_ratio=2 is outside",
        ),
        (lambda: RHOLoss(holdout_epochs=0), ValueError, "holdout_epochs=0 is too small"),
    ],
)
def test_refuses_arguments_out_of_range(make, error, words):
    with pytest.raises(error, match=words):
        make()
