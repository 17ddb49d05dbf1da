"""SeTa and the static scores: mathematics against NumPy, and both in a real fit."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from lightning_dataselect.methods import EL2N, Forgetting, GraNd, SeTa
from lightning_dataselect.methods.last_layer import LastLayerGradients, last_layer_gradient_norm
from lightning_dataselect.methods.scored import load_scores
from lightning_dataselect.methods.scores.presentations import add_to_mean, mean_columns
from lightning_dataselect.methods.seta import seta
from lightning_dataselect.numerics.kmeans import group_limits
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore

NAN = math.nan


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- SeTa


def explained_loss(x, labels):
    """The k-means objective: squared distances to the group means."""
    return sum(((x[labels == g] - x[labels == g].mean()) ** 2).sum() for g in np.unique(labels))


def best_objective(x, k):
    """The least objective over every way to cut the sorted losses into at most k stretches."""
    if k == 1 or len(x) == 1:
        return ((x - x.mean()) ** 2).sum()
    splits = [((x[i:] - x[i:].mean()) ** 2).sum() + best_objective(x[:i], k - 1) for i in range(1, len(x))]
    return min([((x - x.mean()) ** 2).sum(), *splits])


@pytest.mark.parametrize("shape", ["exponential", "two humps", "heavy tail"])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_groups_are_at_least_as_good_as_the_library_s(shape, k):
    rng = np.random.default_rng(k)
    x = {
        "exponential": rng.exponential(size=600),
        "two humps": np.r_[rng.normal(0, 0.1, 500), rng.normal(6, 0.5, 100)],
        "heavy tail": rng.pareto(2.5, size=600),
    }[shape].astype(np.float32)
    limits = group_limits(torch.tensor(np.sort(x)), k).numpy()
    assert len(limits) == k - 1 and (np.diff(limits) > 0).all()
    ours = explained_loss(x.astype(np.float64), np.digitize(x, limits, right=True))
    library = KMeans(k, n_init=10, random_state=0).fit(x[:, None]).inertia_
    assert ours <= 1.01 * library


@settings(max_examples=60)
@given(values=st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12), k=st.integers(1, 4))
def test_groups_of_few_losses_are_the_best_there_are(values, k):
    limits = group_limits(torch.tensor(sorted(values)), k)
    assert len(limits) == min(k, len(set(values))) - 1
    x = np.float64(values)
    ours = explained_loss(x, np.digitize(x, limits.numpy(), right=True))
    assert ours <= best_objective(np.sort(x), k) * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize(
    ("values", "times", "limits"),
    [
        ([0.0, 0.4, 1.0, 1e6], 1, [0.4, 1.0]),  # least squares 0.08, not 0.18
        ([-3e38, -2.9e38, 3e38], 1, [-2.9e38]),  # whose distance is no float32
        ([60_000 + k / 256 for k in (0, 1, 9, 10, 22, 23, 40, 41)], 10_007, [60_000 + k / 256 for k in (1, 10, 23)]),
    ],
)
def test_groups_of_numbers_that_are_hard_to_tell_apart(values, times, limits):
    assert group_limits(torch.tensor(values).repeat_interleave(times), len(limits) + 1).equal(torch.tensor(limits))


def test_window_slides_from_easy_to_hard_and_begins_again():
    losses = torch.arange(5.0).repeat_interleave(4)
    kept = [seta(losses, 0.0, 5, 0.6, step, gen()) for step in range(4)]
    groups = [sorted(set(losses[k].int().tolist())) for k in kept]
    assert groups == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 1, 2]]
    assert [len(k) for k in kept] == [12, 12, 12, 12]


def test_default_window_leaves_out_one_group_of_five():
    selector = SeTa(prune_ratio=0.0)
    losses = torch.arange(5.0)
    assert selector.select(0, losses, gen()).indices.tolist() == [0, 1, 2, 3]
    assert selector.select(1, losses, gen()).indices.tolist() == [1, 2, 3, 4]


def test_seta_draws_the_unknown_first_and_keeps_them():
    losses = torch.arange(100.0)
    losses[::5] = NAN
    kept = seta(losses, 0.5, 5, 0.6, 0, gen())
    assert set(range(0, 100, 5)) <= set(kept.tolist())
    assert len(seta(torch.full((10,), NAN), 0.3, 5, 0.6, 0, gen())) == 7
    assert kept[~losses[kept].isnan()].max() < 65


@pytest.mark.parametrize(
    ("groups", "scale", "kept"), [(5, 0.9, 4), (5, 0.75, 4), (5, 0.7, 4), (4, 0.7, 3), (5, 0.0, 1)]
)
def test_window_is_as_wide_as_the_authors_round_it(groups, scale, kept):
    """``round(3.75)`` is 4, ``round(4.5)`` is 4 as well, and no window is empty."""
    losses = torch.arange(float(groups))
    assert len(seta(losses, 0.0, groups, scale, 0, gen())) == kept


def test_seta_places_the_window_by_selections_not_by_epochs():
    selector = SeTa(prune_ratio=0.0, window_scale=0.6, warmup_epochs=3, every_n_epochs=2)
    easiest = [int(selector.select(epoch, torch.arange(5.0), gen()).indices[0]) for epoch in (3, 5, 7, 9)]
    assert easiest == [0, 1, 2, 0]


def test_seta_anneals_on_a_uniform_subset():
    selector = SeTa(prune_ratio=0.3, anneal=0.25)
    selector.max_epochs = 8
    losses = torch.arange(100.0)
    before, after = (selector.select(epoch, losses, gen()).indices for epoch in (5, 6))
    assert len(after) == 70 > len(before)
    assert not selector.trains_on_everything(7)


# ---- static scores


def observation(logits, targets, epoch, n=None):
    n = len(targets) if n is None else n
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return Observation(torch.arange(n), losses, logits, targets, epoch)


def test_el2n_averages_over_the_measuring_epochs_alone():
    el2n = EL2N(warmup_epochs=2)
    store = ScoreStore(4, el2n.columns())
    targets = torch.tensor([0, 1, 2, 0])
    norms = []
    for epoch in range(4):
        logits = torch.randn(4, 3, generator=gen(epoch))
        el2n.observe(observation(logits, targets, epoch), store)
        p = np.exp(logits.double().numpy())
        p /= p.sum(1, keepdims=True)
        norms.append(np.sqrt(((p - np.eye(3)[targets]) ** 2).sum(1)))
    assert np.allclose(store.column("score"), np.mean(norms[:2], 0), rtol=1e-5)


def test_mean_over_presentations_begins_anew_after_one_that_broke():
    store = ScoreStore(3, mean_columns())
    presentations = np.array([[1, 5, 2, 9], [NAN, 4, 8, 3], [1, 2, NAN, 7]])
    for values in presentations.T:
        add_to_mean(store, torch.tensor([0, 1, 2, 3]), torch.tensor([*values, 99.0], dtype=torch.float32))
    assert store.column("score").tolist() == [17 / 4, 5.0, 7.0]
    assert store.column("presentations").tolist() == [4.0, 3.0, 1.0]


@pytest.mark.parametrize("bias", [True, False])
def test_grand_is_the_norm_of_the_last_layer_s_gradient(bias):
    torch_state = torch.get_rng_state()
    layer = torch.nn.Linear(6, 3, bias=bias)
    torch.set_rng_state(torch_state)
    features, targets = torch.randn(4, 6, generator=gen()), torch.tensor([0, 2, 1, 1])
    logits = layer(features)
    error = logits.detach().softmax(1) - torch.nn.functional.one_hot(targets, 3)
    ours = last_layer_gradient_norm(error, features, bias)
    for i in range(4):
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(features[i : i + 1]), targets[i : i + 1]).backward()
        squares = sum(float(p.grad.square().sum()) for p in layer.parameters())
        assert math.isclose(ours[i], math.sqrt(squares), rel_tol=1e-4)


def test_last_layer_s_features_are_those_of_the_batch_and_kept_no_longer():
    layer, wanted = torch.nn.Linear(2, 3), [True]
    last = LastLayerGradients(layer, lambda _: wanted[0])
    logits = layer(torch.randn(4, 2, generator=gen()))
    seen = observation(logits.detach(), torch.tensor([0, 1, 2, 0]), epoch=0)
    assert (last.norms(seen) > 0).all()
    with pytest.raises(ValueError, match="4 samples"):  # not those of the batch before
        last.norms(seen)
    with pytest.raises(ValueError, match="GraNd needs the logits"):
        last.norms(Observation(torch.arange(2), torch.ones(2), None, None, 0))
    wanted[0] = False
    layer(torch.ones(4, 2))
    assert not last.inputs
    last.remove()
    assert not layer._forward_hooks


class Distilled(torch.nn.Module):
    """Its last layer with its own classes is ``head``; a teacher and a head over tokens have as many outputs."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.head = torch.nn.Linear(4, 3), torch.nn.Linear(3, 3, bias=bias)
        self.teacher, self.tokens = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        self.teacher.eval()

    def forward(self, x):
        logits = self.head(self.first(x))
        self.teacher(x), self.tokens(x.unsqueeze(1))
        return logits


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_last_layer_is_the_last_of_the_model_s_own_with_an_output_a_class(bias, dtype):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Distilled(bias).to(dtype)
    x, targets = torch.randn(4, 4, generator=gen()).to(dtype), torch.tensor([0, 1, 2, 0])
    last = LastLayerGradients(model, lambda layer: layer.training)
    logits = model(x)
    ours = last.norms(observation(logits.detach(), targets, epoch=0))
    assert ours.dtype == torch.float32 and not ours.requires_grad
    features, z = (part.detach().double().numpy() for part in (model.first(x), logits))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    error = p - np.eye(3)[targets]
    inputs = np.c_[features, np.full(4, float(bias))]  # a bias is a weight on 1
    expected = [np.linalg.norm(np.outer(e, h)) for e, h in zip(error, inputs, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@settings(max_examples=60)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=9))
def test_forgetting_is_the_count_of_steps_from_right_to_wrong(right):
    forgetting = Forgetting(warmup_epochs=len(right))
    store = ScoreStore(3, forgetting.columns())
    for epoch, row in enumerate(right):
        is_right = torch.tensor(row).float()
        logits = torch.stack([is_right, 1 - is_right], 1)
        forgetting.observe(observation(logits, torch.zeros(3, dtype=torch.int64), epoch), store)
    history = np.array(right)
    events = (history[:-1] & ~history[1:]).sum(0)
    score = store.column("score").numpy()
    learnt = history.any(0)
    np.testing.assert_array_equal(score[learnt], events[learnt])
    assert (score[~learnt] > len(right) / 2).all(), "no sample can be forgotten as often"


def test_forgetting_counts_from_right_to_wrong():
    right = [  # rows are samples, columns epochs
        [1, 0, 1, 0],  # forgotten twice
        [0, 0, 1, 1],  # learnt late
        [1, 1, 1, 0],  # forgotten once
        [0, 0, 0, 0],  # never learnt
    ]
    forgetting = Forgetting(warmup_epochs=4, prune_ratio=0.5)
    store = ScoreStore(4, forgetting.columns())
    targets = torch.zeros(4, dtype=torch.int64)
    for epoch in range(4):
        is_right = torch.tensor(right)[:, epoch].float()
        logits = torch.stack([is_right, 1 - is_right], 1)
        forgetting.observe(observation(logits, targets, epoch), store)
    assert store.column("score").tolist() == [2.0, 0.0, 1.0, 4.0]
    assert forgetting.select(4, store.column("score"), gen()).indices.tolist() == [0, 3]


def test_static_subset_is_the_same_each_time_ties_included():
    forgetting = Forgetting(prune_ratio=0.5, scores=torch.zeros(40))
    first, second = (forgetting.select(e, torch.zeros(40), gen(e)).indices for e in (0, 5))
    assert torch.equal(first, second)
    other = Forgetting(prune_ratio=0.5, scores=torch.zeros(40), seed=1)
    assert not torch.equal(first, other.select(0, torch.zeros(40), gen()).indices)


def test_scores_are_read_from_files_and_averaged(tmp_path):
    frame = pd.DataFrame({"index": [2, 0, 1], "score": [3.0, 1.0, NAN]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.assign(score=[5.0, 1.0, 7.0]).to_parquet(tmp_path / "b.parquet", index=False)
    torch.save(torch.tensor([1.0, 7.0, 4.0]), tmp_path / "c.pt")
    assert load_scores(tmp_path / "a.csv").nan_to_num(-1).tolist() == [1.0, -1.0, 3.0]
    runs = [str(tmp_path / name) for name in ("a.csv", "b.parquet", "c.pt")]
    assert load_scores(runs).tolist() == [1.0, 7.0, 4.0]
    selector = EL2N(scores=runs, prune_ratio=0.6)
    assert selector.warmup_epochs == 0 and selector.scores.tolist() == [1.0, 7.0, 4.0]
    assert selector.select(0, torch.zeros(3), gen()).indices.tolist() == [1]


def test_scores_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for source, said in [
        (torch.zeros(2, 2), r"\(2, 2\)"),
        ([torch.zeros(2), torch.zeros(3)], r"\[2, 3\]"),
        (str(tmp_path / "other.csv"), "none is called 'score'"),
        ("scores.json", "scores.json"),
    ]:
        with pytest.raises(ValueError, match=said):
            EL2N(scores=source)
    with pytest.raises(ValueError, match="4 scores, but the data set has 5"):
        EL2N(scores=torch.zeros(4)).select(0, torch.zeros(5), gen())
    with pytest.raises(ValueError, match="6 scores, but the data set has 5"):
        EL2N(scores=torch.zeros(6)).select(0, torch.zeros(5), gen())


@pytest.mark.parametrize(("cls", "epochs"), [(EL2N, 0), (GraNd, 0), (Forgetting, 1)])
def test_static_score_needs_epochs_to_be_measured_in(cls, epochs):
    with pytest.raises(ValueError, match=f"warmup_epochs={epochs}"):
        cls(warmup_epochs=epochs)


@pytest.mark.parametrize("cls", [EL2N, Forgetting])
def test_static_score_without_logits_says_so(cls):
    selector = cls()
    seen = Observation(torch.arange(2), torch.rand(2, generator=gen()), None, None, 0)
    with pytest.raises(ValueError, match=f"{cls.__name__} needs the logits"):
        selector.observe(seen, ScoreStore(2, selector.columns()))
