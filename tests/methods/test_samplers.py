"""Samplers: what they keep, in numbers and in distribution, against NumPy from their formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_settings import N, Tiny, fit, samples
from scipy.stats import beta
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import CCS, DUAL, EL2N, RCAP, TDDS, ScoreSelector
from lightning_dataselect.methods.parts import SAMPLERS, make_sampler
from lightning_dataselect.methods.samplers.base import choose_unknown_first
from lightning_dataselect.methods.samplers.beta import beta_weights
from lightning_dataselect.methods.samplers.class_quota import ClassQuota
from lightning_dataselect.numerics.quotas import quotas
from lightning_dataselect.numerics.strata import even_budgets, strata, stratified_subset

NAN = math.nan
COLUMNS = {
    "probability": torch.linspace(0.05, 0.95, 60),
    "quota_class": torch.arange(60.0) % 3,
    "last_epoch": torch.ones(60),
}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def column(name):
    return COLUMNS[name]


# ---- all of them


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("k", [0, 1, 17, 60])
def test_as_many_as_asked_for_and_each_once(name, k):
    scores = torch.rand(60, generator=gen(3))
    chosen = make_sampler(name).choose(scores, k, gen(), column)
    assert chosen.dtype == torch.int64 and len(set(chosen.tolist())) == len(chosen) == k
    assert not k or (chosen.min() >= 0 and chosen.max() < 60)
    assert torch.equal(chosen, make_sampler(name).choose(scores, k, gen(), column))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("k", [2, 5, 30])
def test_samples_without_a_score_come_first(name, k):
    scores = torch.rand(60, generator=gen(3))
    scores[[4, 40]], scores[[7, 8]] = NAN, math.inf
    chosen = choose_unknown_first(make_sampler(name), scores, k, gen(), column).tolist()
    assert len(set(chosen)) == k
    assert set(chosen) <= {4, 40, 7, 8} if k < 4 else {4, 40, 7, 8} <= set(chosen)


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_scores_are_a_draw_and_lowest_scores_of_minus_infinity_do_no_harm(name):
    chosen = [make_sampler(name).choose(torch.ones(60), 30, gen(seed), column).sort().values for seed in range(2)]
    assert not torch.equal(*chosen)
    if not make_sampler(name).draws_by_score:
        scores = torch.rand(60, generator=gen())
        scores[5] = -math.inf
        assert len(make_sampler(name).choose(scores, 30, gen(), column).unique()) == 30


# ---- by order


def test_highest_lowest_and_window_go_by_order():
    scores = torch.randperm(20, generator=gen()).float()
    kept = {
        name: sorted(scores[make_sampler(name).choose(scores, 4, gen(), column)].int().tolist())
        for name in ("highest", "lowest", "window(start=0)", "window(start=0.25)", "window(start=1.0)")
    }
    assert kept == {
        "highest": [16, 17, 18, 19], "lowest": [0, 1, 2, 3], "window(start=0)": [16, 17, 18, 19],
        "window(start=0.25)": [11, 12, 13, 14], "window(start=1.0)": [0, 1, 2, 3],
    }  # fmt: skip


def test_proportional_draws_by_weight():
    scores = torch.tensor([0.0, 1.0, 3.0])
    first = [int(make_sampler("proportional").choose(scores, 1, gen(seed), column)) for seed in range(2000)]
    assert 0 not in first and abs(np.mean(np.array(first) == 2) - 0.75) < 0.04


# ---- strata


def authors_budgets(sizes, k):
    """From the paper: the stratum with the fewest samples first."""
    budgets = np.zeros(len(sizes), dtype=int)
    left = k
    for done, s in enumerate(np.argsort(sizes, kind="stable")):
        budgets[s] = min(sizes[s], left // (len(sizes) - done))
        left -= budgets[s]
    return budgets


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=9), share=st.floats(0, 1))
def test_budgets_of_strata_are_the_papers(sizes, share):
    k = int(share * sum(sizes))
    found = even_budgets(torch.tensor(sizes), k).numpy()
    assert (found == authors_budgets(np.array(sizes), k)).all() and found.sum() == k and (found <= sizes).all()


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60),
    n_strata=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_strata_have_equal_width_and_each_gives_its_budget(values, n_strata, seed):
    x = np.float64(np.float32(values))
    edges = x.min() + (x.max() - x.min()) / n_strata * np.arange(1, n_strata)
    place = strata(torch.tensor(values), n_strata).numpy()
    off = place != np.digitize(x, edges)
    # a score on the edge of two strata may be rounded into either
    near = np.isclose(x[:, None], edges[None], rtol=1e-9, atol=1e-12).any(1) if n_strata > 1 else np.zeros(len(x), bool)
    assert x.max() == x.min() or not (off & ~near).any()
    k = len(x) // 2
    chosen = stratified_subset(torch.tensor(values), k, n_strata, gen(seed)).nonzero().squeeze(1).numpy()
    taken, sizes = np.bincount(place[chosen], minlength=n_strata), np.bincount(place, minlength=n_strata)
    assert (taken == authors_budgets(sizes, k)).all() and len(set(chosen)) == k


def test_within_a_stratum_any_sample_is_as_likely():
    scores = torch.cat([torch.zeros(8), torch.ones(2)])
    counts = sum(stratified_subset(scores, 4, 2, gen(seed)).int() for seed in range(2000))
    assert counts[8:].tolist() == [2000, 2000]
    assert ((counts[:8] / 2000 - 0.25).abs() < 0.04).all()


def test_ccs_leaves_out_the_hardest_and_covers_the_rest_evenly():
    scores = torch.linspace(0, 1, 100)
    selector = CCS(prune_ratio=0.8, cutoff=0.3, n_strata=10, scores=scores)
    chosen = selector.select(0, torch.zeros(100), gen()).indices
    assert chosen.max() < 70 and len(chosen) == 20
    assert torch.bincount(strata(scores[:70], 10)[chosen]).tolist() == [2] * 10


def test_no_more_is_cut_off_than_is_dropped():
    scores = torch.arange(10.0)
    chosen = make_sampler("stratified(cutoff=0.9)").choose(scores, 8, gen(), column)
    assert sorted(chosen.tolist()) == list(range(8))
    # nine tenths of ten are nine, also where floating point says 8.999
    assert make_sampler("stratified(cutoff=0.9)").choose(scores, 1, gen(), column).tolist() == [0]


# ---- Beta


@pytest.mark.parametrize("prune_ratio", [0.3, 0.7, 0.9])
def test_beta_weights_are_the_papers(prune_ratio):
    rng = np.random.default_rng(0)
    means, scores = rng.random(200), np.float64(np.float32(rng.random(200)))
    found = beta_weights(torch.tensor(scores).float(), torch.tensor(means), prune_ratio, 4.0, 15.0)(slice(None)).numpy()
    anchor = means[np.argsort(scores)[-10:]].mean()
    b = 15 * (1 - anchor) * (1 - prune_ratio**4)
    expected = beta.pdf(means, 16 - b, b) * scores
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-6)


def test_beta_moves_to_easy_samples_as_more_are_dropped():
    means = torch.linspace(0.01, 0.99, 1000)
    weights = [beta_weights(1 - means, means.double(), ratio, 4.0, 15.0)(slice(None)) for ratio in (0.3, 0.7, 0.95)]
    centres = [float((w * means).sum() / w.sum()) for w in weights]
    assert centres == sorted(centres) and centres[0] < 0.2 < 0.6 < centres[-1]


def test_beta_draws_in_proportion_to_its_weights():
    means, scores = torch.tensor([0.2, 0.5, 0.8]), torch.tensor([1.0, 2.0, 1.0])
    weights = beta_weights(scores, means.double(), 1 - 1 / 3, 4.0, 15.0)(slice(None))
    drawn = [int(make_sampler("beta").choose(scores, 1, gen(seed), lambda name: means)) for seed in range(2000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=3) / 2000
    torch.testing.assert_close(shares.double(), weights / weights.sum(), atol=0.04, rtol=0)


# ---- budgets of classes


def quota_oracle(weights, sizes, k):
    """The number x with sum(min(size, x * weight)) = k, by bisection."""
    low, high = 0.0, (k + 1) / weights[weights > 0].min() + sizes.max() / weights[weights > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(sizes, middle * weights).sum() < k else (low, middle)
    return np.minimum(sizes, high * weights)


@settings(max_examples=60)
@given(
    groups=st.lists(st.tuples(st.floats(0.01, 9), st.integers(1, 40)), min_size=1, max_size=8), share=st.floats(0, 1)
)
def test_quotas_are_in_proportion_up_to_the_sizes(groups, share):
    weights, sizes = (np.array(part) for part in zip(*groups, strict=True))
    k = int(share * sizes.sum())
    found = quotas(torch.tensor(weights), torch.tensor(sizes), k).numpy()
    assert found.sum() == k and (found <= sizes).all()
    assert (np.abs(found - quota_oracle(weights, sizes, k)) < 1 + 1e-6).all()


def test_groups_of_no_weight_share_what_is_left_by_their_sizes():
    assert quotas(torch.zeros(3), torch.tensor([4, 4, 8]), 8).tolist() == [2, 2, 4]
    assert quotas(torch.tensor([0.0, 1.0]), torch.tensor([10, 2]), 5).tolist() == [3, 2]


@pytest.mark.parametrize("class_loss", ["importance", "score"])
def test_class_budgets_and_importance_are_the_papers(class_loss):
    rng = np.random.default_rng(0)
    n, k, temperature = 300, 90, 0.5
    labels = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    losses = np.float64(np.float32(rng.exponential(1 + labels)))
    in_subset = rng.random(n) < 0.4
    clipped = np.clip(losses, 0, math.log(3))
    q, class_losses, sizes = np.zeros(n), [], np.bincount(labels)
    for c in range(3):
        of = labels == c
        q[of] = np.exp(clipped[of] / temperature) / np.exp(clipped[of] / temperature).sum()
        class_losses.append((q if class_loss == "importance" else clipped)[of & in_subset].sum())
    budgets = quota_oracle(np.sqrt(np.array(class_losses) * sizes / n), sizes, k)
    columns = {
        "quota_class": torch.tensor(labels).float(),
        "last_epoch": torch.tensor(np.where(in_subset, 4.0, 3.0)).float(),
    }
    sampler = ClassQuota(temperature, "log_classes", class_loss)
    counts = np.zeros(n)
    for seed in range(300):
        chosen = sampler.choose(torch.tensor(losses).float(), k, gen(seed), columns.get).numpy()
        assert (np.abs(np.bincount(labels[chosen]) - budgets) < 1 + 1e-6).all()
        counts[chosen] += 1
    rare = labels == 0  # whose budget is far from its size, so that shares follow the importance
    assert np.corrcoef(counts[rare], q[rare])[0, 1] > 0.85


def test_rcap_gives_a_small_class_more_than_its_share():
    labels = torch.cat([torch.zeros(90), torch.ones(10)])
    columns = {"quota_class": labels, "last_epoch": torch.zeros(100)}
    chosen = ClassQuota().choose(torch.ones(100), 20, gen(), columns.get)
    assert torch.bincount(labels[chosen].int()).tolist() == [15, 5]  # 3 : 1, the root of 9 : 1


# ---- combinations


def test_the_named_methods_are_combinations():
    pairs = {
        EL2N: ("el2n", "highest"), TDDS: ("tdds", "highest"), CCS: ("aum", "stratified"), DUAL: ("dual", "beta"),
    }  # fmt: skip
    for method, (score, sampler) in pairs.items():
        named, free = method(prune_ratio=0.5), ScoreSelector(score=score, sampler=sampler)
        assert (named.score, named.sampler, named.warmup_epochs) == (free.score, free.sampler, free.warmup_epochs)
    assert RCAP().dynamic and EL2N(sampler="uniform").sampler == make_sampler("uniform")


@pytest.mark.parametrize("ignore_index", [-100, 255, 1])
def test_samples_whose_target_is_ignored_are_dropped_first(ignore_index):
    class Ignoring(Tiny):
        def training_step(self, batch, batch_idx):
            x, y, i = batch
            targets = torch.where(i % 4 == 0, ignore_index, 2 * (y > 0))
            return F.cross_entropy(self.model(x), targets, ignore_index=ignore_index)

    rows = TensorDataset(*samples().tensors, torch.arange(N))
    selector = ScoreSelector(score="el2n", warmup_epochs=1, prune_ratio=0.25, whole_batches=False)
    fit(selector, Ignoring(), DataLoader(rows, 8), max_epochs=2)
    assert selector.selected.tolist() == [i for i in range(N) if i % 4]
    line = selector.line_up(selector.scores)
    assert line[::4].isneginf().all() and line.isneginf().sum() == N // 4


@pytest.mark.parametrize("name", ["dual(window=2)", "tdds(window=3)"])
def test_windows_are_let_go_of_once_samples_are_scored(name):
    selector, held = ScoreSelector(score=name, warmup_epochs=3, prune_ratio=0.5, whole_batches=False), []

    class Watch(Tiny):
        def on_train_batch_start(self, *_):
            held.append((self.current_epoch, [vectors in selector.store for vectors in selector.score.vectors]))

    fit(selector, Watch(), max_epochs=5)
    assert all(any(there) == (0 < epoch < 3) for epoch, there in held if epoch > 0)
    assert not selector.scores.isnan().any() and len(selector.history) == 5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_one_subset_for_good_or_a_new_one_each_time(sampler, dynamic):
    selector = ScoreSelector(sampler=sampler, dynamic=dynamic, prune_ratio=0.5, whole_batches=False, warmup_epochs=1)
    chosen = []

    class Watch(Tiny):
        def on_train_epoch_start(self):
            chosen.append(selector.selected)

    fit(selector, Watch())
    assert [len(each) for each in chosen] == [48, 24, 24, 24]
    assert torch.equal(chosen[1], chosen[3]) != dynamic


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_dynamic_method_renews_its_scores_and_a_static_one_does_not(dynamic):
    selector, scores = ScoreSelector(dynamic=dynamic), []

    class Watch(Tiny):
        def on_train_epoch_start(self):
            scores.append(selector.scores)

    fit(selector, Watch())
    kept = selector.selected
    assert torch.equal(scores[1][kept], scores[3][kept]) != dynamic


def test_a_fixed_random_subset_needs_no_scores_and_no_losses():
    class Contrastive(Tiny):
        def training_step(self, batch, batch_idx):
            return self.model(batch[0]).square().mean(1).sort().values[1:].log().sum()

    selector = ScoreSelector(sampler="uniform", prune_ratio=0.75, whole_batches=False)
    fit(selector, Contrastive())
    assert [record["n_selected"] for record in selector.history] == [12] * 4
    assert selector.warmup_epochs == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: CCS(cutoff=0.25, warmup_epochs=1, **kw),
        lambda **kw: ScoreSelector(sampler="window(start=0.25)", **kw),
    ],
)
def test_whole_batches_are_not_filled_up_with_what_was_cut_off(make):
    selector = make(prune_ratio=0.45)
    fit(selector, max_epochs=2)
    assert selector.history[1]["n_selected"] == 32  # of 26 asked for, in batches of 8
    hardest = selector.scores.topk(12).indices
    assert not set(hardest.tolist()) & set(selector.selected.tolist())


def test_rcap_draws_from_every_class_by_its_budget():
    selector = RCAP(prune_ratio=0.5, whole_batches=False)
    fit(selector)
    sizes = torch.bincount(samples().tensors[1])
    kept = torch.bincount(samples().tensors[1][selector.selected], minlength=3)
    assert (kept > 0).all() and kept.sum() == 24
    smallest, largest = int(sizes.argmin()), int(sizes.argmax())
    assert kept[smallest] / sizes[smallest] > kept[largest] / sizes[largest]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sampler": "stratfied"}, "sampler='stratfied' is unknown. Did you mean stratified\\? There are highest"),
        ({"sampler": "stratified(cutoff=2)"}, "cutoff=2 is outside \\[0, 1\\]"),
        ({"sampler": "window(start=-0.1)"}, "start=-0.1 is outside"),
        ({"sampler": "beta(exponent=0)"}, "exponent=0 must be a finite number greater than 0"),
        ({"sampler": "class_quota(clip='log')"}, "clip='log' is unknown: give a number, 'log_classes' or None"),
        ({"sampler": "class_quota", "balance": "class"}, "sampler='class_quota' makes budgets for the classes itself"),
        ({"sampler": "beta", "scores": torch.ones(3), "warmup_epochs": 0}, "sampler 'beta' nothing to measure: give"),
        ({"sampler": "proportional", "scores": torch.tensor([1.0, -1.0])}, "but scores= has values below zero"),
        ({"dynamic": 1}, "dynamic=1 is not a bool"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_at_once(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        ScoreSelector(**arguments)


def test_quotas_by_class_need_classes():
    class Regressor(Tiny):
        def training_step(self, batch, batch_idx):
            return torch.nn.functional.mse_loss(self.model(batch[0])[:, 0], batch[1].float())

    with pytest.raises(ValueError, match="sampler='class_quota' needs the class of each sample"):
        fit(RCAP(), Regressor())
    with pytest.raises(ValueError, match="sampler='beta' needs the logits and targets"):
        fit(ScoreSelector(sampler="beta"), Regressor())
