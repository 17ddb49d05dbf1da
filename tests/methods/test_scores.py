"""The scores that come from training dynamics, against NumPy in double precision from their formulas."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from lightning_dataselect import ScoreSelector
from lightning_dataselect.methods.parts import SAMPLERS, SCORES, make_sampler, make_score
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore

N, CLASSES = 7, 4


def trajectory(epochs, seed=0):
    """Logits (epochs, N, CLASSES) of a model that learns by jumps, and targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(CLASSES, size=N)
    logits = rng.normal(size=(epochs, N, CLASSES)).cumsum(0)
    logits[np.arange(epochs)[:, None], np.arange(N), targets] += np.linspace(0, 4, epochs)[:, None]
    return logits.astype(np.float32), targets


def softmax(z):
    e = np.exp(z.astype(np.float64) - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def measure(score, logits, targets, seen=None):
    """The scores after every epoch, (epochs, N); ``seen`` (epochs, N) says who was in it."""
    store, found = ScoreStore(N, score.columns()), []
    for epoch, z in enumerate(torch.tensor(logits)):
        i = torch.arange(N) if seen is None else torch.tensor(seen[epoch]).nonzero().squeeze(1)
        y = torch.tensor(targets)[i]
        losses = torch.nn.functional.cross_entropy(z[i], y, reduction="none")
        # the last batch of several ranks is filled up with slot N
        i, z, y = torch.cat([i, torch.tensor([N])]), torch.cat([z[i], z[:1]]), torch.cat([y, y[:1]])
        score.rate(Observation(i, torch.cat([losses, losses[:1]]), z, y, epoch), store)
        found.append(store.column("score").double().numpy().copy())
    return np.array(found)


def dual_oracle(logits, targets, window):
    p = softmax(logits)[:, np.arange(N), targets]
    windows = [p[k : k + window] for k in range(len(p) - window + 1)]
    return np.mean([w.std(0, ddof=1) * (1 - w.mean(0)) for w in windows], axis=0)


def tdds_oracle(logits, window, decay):
    p = softmax(logits)
    moved = np.abs(p[1:] * (np.log(p[1:] + 1e-8) - np.log(p[:-1] + 1e-8))).sum(-1)
    n_windows = len(p) - window + 1
    total = np.zeros(N)
    for k in range(n_windows):
        inside = moved[k : k + window - 1]
        norm = np.sqrt(((inside - inside.mean(0)) ** 2).sum(0))
        total += decay * (1 - decay) ** (n_windows - 1 - k) * norm
    return total


def margin_oracle(values, targets):
    own = values[:, np.arange(N), targets]
    others = values.copy()
    others[:, np.arange(N), targets] = -np.inf
    return own - others.max(-1)


@pytest.mark.parametrize(("window", "epochs"), [(2, 2), (3, 9), (10, 30)])
def test_dual_is_spread_times_difficulty_over_every_window(window, epochs):
    logits, targets = trajectory(epochs)
    found = measure(make_score(f"dual(window={window})"), logits, targets)
    for end in range(window, epochs + 1):
        np.testing.assert_allclose(found[end - 1], dual_oracle(logits[:end], targets, window), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(("window", "epochs", "decay"), [(3, 3, 0.9), (4, 9, 0.9), (4, 9, 0.3), (10, 30, 0.9)])
def test_tdds_is_the_decaying_sum_of_the_spread_of_movements(window, epochs, decay):
    logits, targets = trajectory(epochs)
    found = measure(make_score(f"tdds(window={window}, decay={decay})"), logits, targets)
    for end in range(window, epochs + 1):
        np.testing.assert_allclose(found[end - 1], tdds_oracle(logits[:end], window, decay), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_aum_is_the_mean_margin_and_margin_the_last_with_the_sign_turned(on):
    logits, targets = trajectory(6)
    margins = margin_oracle(softmax(logits) if on == "probabilities" else logits.astype(np.float64), targets)
    aum, last = (measure(make_score(f"{name}(on='{on}')"), logits, targets) for name in ("aum", "margin"))
    for end in range(1, 7):
        np.testing.assert_allclose(aum[end - 1], -margins[:end].mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(last[end - 1], -margins[end - 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dual(window=4)", "tdds(window=4)", "aum", "margin"])
def test_a_score_goes_by_presentations_whatever_epochs_they_fall_into(name):
    """A sample that misses epochs, as with drop_last, has the score of one that saw the others in turn."""
    logits, targets = trajectory(12)
    seen = np.random.default_rng(1).random((12, N)) < 0.7
    found = measure(make_score(name), logits, targets, seen)[-1]
    for i in range(N):
        shown = logits[seen[:, i]]
        alone = measure(make_score(name), shown, targets)[-1][i]
        np.testing.assert_allclose(found[i], alone, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "needed"), [("dual(window=5)", 2), ("tdds(window=5)", 3)])
def test_a_sample_seen_less_often_than_a_window_is_long_is_scored_by_what_there_is(name, needed):
    logits, targets = trajectory(5)
    found = measure(make_score(name), logits, targets)
    assert np.isnan(found[: needed - 1]).all() and np.isfinite(found[needed - 1 :]).all()


@pytest.mark.parametrize("name", ["dual(window=3)", "tdds(window=3)"])
def test_a_presentation_without_numbers_leaves_the_score_until_the_window_is_whole(name):
    logits, targets = trajectory(9)
    broken = logits.copy()
    broken[4] = np.nan
    found = measure(make_score(name), broken, targets)
    assert np.array_equal(found[4], found[3]) and np.isfinite(found[-1]).all()
    assert not np.allclose(found[-1], found[3])


def test_ignored_samples_have_no_score():
    score = make_score("aum")
    store = ScoreStore(2, score.columns())
    score.rate(Observation(torch.arange(2), torch.ones(2), torch.eye(2), torch.tensor([0, -100]), 0), store)
    assert store.column("score").isnan().tolist() == [False, True]


def test_soft_targets_count_by_their_largest_entry():
    logits, targets = trajectory(4)
    soft = torch.nn.functional.one_hot(torch.tensor(targets), CLASSES) * 0.8 + 0.05
    for name in ("dual(window=2)", "aum", "margin"):
        score = make_score(name)
        store = ScoreStore(N, score.columns())
        for epoch, z in enumerate(torch.tensor(logits)):
            score.rate(Observation(torch.arange(N), torch.ones(N), z, soft, epoch), store)
        np.testing.assert_allclose(store.column("score"), measure(score, logits, targets)[-1], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in SCORES if name not in ("loss", "grand")])
def test_a_score_of_classes_says_what_it_needs(name):
    seen = Observation(torch.arange(2), torch.ones(2), None, None, 0)
    with pytest.raises(ValueError, match="needs the logits and targets of each sample"):
        ScoreSelector(score=name).observe(seen, ScoreStore(2))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("dual(window=1)", "window=1 is too small"),
        ("tdds(window=2)", "window=2 is too small"),
        ("tdds(decay=0)", "decay=0 is outside \\(0, 1\\]: give the weight of the newest window"),
        ("aum(on='losses')", "on='losses' is unknown: give one of 'probabilities', 'logits'"),
        ("grand(layers='some')", "layers='some' is unknown"),
        ("dul", "score='dul' is unknown. Did you mean dual\\? There are loss, el2n"),
        ("dual(windw=3)", "dual takes no argument 'windw'. Did you mean window\\? It takes window"),
        ("loss(window=3)", "loss takes no argument 'window'. It takes none"),
        ("dual(3)", "score='dual\\(3\\)' cannot be read: give a name"),
        ("dual(window=open)", "cannot be read"),
        ("dual(", "cannot be read"),
    ],
)
def test_a_wrong_score_is_told_at_once(score, said):
    with pytest.raises((ValueError, TypeError), match=said):
        ScoreSelector(score=score)
    with pytest.raises(TypeError, match="score=3 is neither a name nor a Score: give one of loss, el2n"):
        ScoreSelector(score=3)


@pytest.mark.parametrize("name", [*SCORES, *SAMPLERS])
def test_the_arguments_that_list_shows_are_those_that_are_taken(name):
    known, make = (SCORES, make_score) if name in SCORES else (SAMPLERS, make_sampler)
    taken = dataclasses.fields(known[name].cls)
    assert known[name].arguments == ", ".join(f"{field.name}={field.default!r}" for field in taken)
    assert make(f"{name}({known[name].arguments})") == make(name)


def test_how_long_a_score_is_measured():
    assert {name: ScoreSelector(score=name).warmup_epochs for name in SCORES} == {
        "loss": 1, "el2n": 10, "grand": 10, "forgetting": 20, "margin": 1, "aum": 20, "dual": 30, "tdds": 30,
    }  # fmt: skip
    assert {name: ScoreSelector(score=name, dynamic=True).warmup_epochs for name in ("el2n", "dual(window=4)")} == {
        "el2n": 1, "dual(window=4)": 4,
    }  # fmt: skip
    with pytest.raises(
        ValueError, match="warmup_epochs=9 leaves ScoreSelector nothing to measure: give at least 10, a shorter"
    ):
        ScoreSelector(score="dual", warmup_epochs=9)
    assert math.isclose(make_score("tdds").decay, 0.9)
