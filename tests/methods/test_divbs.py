"""DivBS against float64 NumPy that writes the gradients out and orthogonalizes them, and in fits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_settings import BATCH, EPOCHS, N, Tiny, fit
from newer_methods import Regressor, Watched, forward, watched_loader
from torch import nn

from lightning_dataselect import DivBS
from lightning_dataselect.methods.divbs import diverse_subset, inner_products


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def left_over(gradients, taken):
    """The mean gradient without its part in the span of those taken."""
    rest, basis = gradients.mean(0), []
    for i in taken:
        e = gradients[i] - sum((gradients[i] @ b) * b for b in basis)
        if np.linalg.norm(e) < 1e-7 * np.linalg.norm(gradients[i]) or np.linalg.norm(e) == 0:
            continue
        basis.append(e / np.linalg.norm(e))
        rest = rest - (rest @ basis[-1]) * basis[-1]
    return rest


def assert_greedy(gradients, taken, slack=1e-3):
    """Each sample taken points along what is left as much as any other, up to float32."""
    assert len(set(taken)) == len(taken)
    for step, i in enumerate(taken):
        rest = left_over(gradients, taken[:step])
        worth = np.abs(gradients @ rest)
        worth[list(taken[:step])] = 0
        negligible = 1e-4 * np.linalg.norm(gradients.mean(0)) * np.linalg.norm(gradients, axis=1).max()
        assert worth[i] >= (1 - slack) * worth.max() - negligible, step


def gradients_of(error, features):
    return np.einsum("bc,bh->bch", error, features).reshape(len(error), -1)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 24), st.integers(2, 5), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_greedy_takes_what_adds_most(n, classes, width, seed, repeats):
    draw = np.random.default_rng(seed)
    error, features = draw.normal(size=(n, classes)), draw.normal(size=(n, width))
    if repeats:
        error[n // 2 :], features[n // 2 :] = error[: n - n // 2], features[: n - n // 2]
    products = inner_products(torch.tensor(error), torch.tensor(features))
    gradients = gradients_of(error, features)
    np.testing.assert_allclose(products, gradients @ gradients.T, rtol=1e-3, atol=1e-4)
    taken = diverse_subset(products, max(n // 2, 1), gen(), sample=False).tolist()
    assert_greedy(gradients, taken)


def test_products_are_not_rounded_to_16_bits():
    error, features = torch.randn(6, 3, generator=gen()), torch.randn(6, 4, generator=gen(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = inner_products(error, features)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, inner_products(error, features))


def test_a_repeated_sample_adds_nothing():
    error = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    for sample in (False, True):
        taken = diverse_subset(inner_products(error, torch.ones(3, 1)), 2, gen(1), sample=sample).tolist()
        assert 2 in taken


def test_draws_are_in_proportion_to_what_is_left():
    draw = np.random.default_rng(0)
    error, features = draw.normal(size=(5, 3)), draw.normal(size=(5, 2))
    gradients, expected = gradients_of(error, features), {}
    for first, second in itertools.permutations(range(5), 2):
        one = np.abs(gradients @ gradients.mean(0))
        two = np.abs(gradients @ left_over(gradients, [first]))
        two[first] = 0
        expected[first, second] = one[first] / one.sum() * two[second] / two.sum()
    products = inner_products(torch.tensor(error), torch.tensor(features))
    times, counts, generator = 800, dict.fromkeys(expected, 0), gen(0)
    for _ in range(times):
        counts[tuple(diverse_subset(products, 2, generator, sample=True).tolist())] += 1
    for pair, chance in expected.items():
        assert counts[pair] / times == pytest.approx(chance, abs=0.05)


def test_chance_takes_the_others_once_the_mean_is_spanned():
    error = torch.ones(6, 2)  # all gradients are one
    taken = {
        tuple(diverse_subset(inner_products(error, torch.ones(6, 3)), 3, gen(s), sample=False)[1:].tolist())
        for s in range(20)
    }
    assert len(taken) > 5 and all(len({0, *t}) == 3 for t in taken)
    nothing = inner_products(torch.full((4, 2), torch.nan), torch.ones(4, 3))
    assert sorted(diverse_subset(nothing, 4, gen(), sample=True).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fit_trains_on_what_the_rule_says(precision):
    module = Watched()
    fit(DivBS(batch_ratio=0.5, mode="greedy"), module, watched_loader(), precision=precision)
    assert len(module.steps) == N // BATCH * EPOCHS
    for step in module.steps:
        hidden, error = forward(step)
        error[np.arange(BATCH), step.y] -= 1
        taken = [step.scored.index(i) for i in step.trained]
        assert len(taken) == BATCH // 2
        if precision == "32-true":
            assert_greedy(gradients_of(error, hidden), taken)


def test_draws_differ_from_batch_to_batch_and_repeat_with_the_seed():
    runs = []
    for _ in range(2):
        module = Watched()
        fit(DivBS(batch_ratio=0.25), module, watched_loader())
        runs.append([step.trained for step in module.steps])
    assert runs[0] == runs[1]
    assert len({tuple(sorted(chosen)) for chosen in runs[0]}) > len(runs[0]) / 2


def test_hooks_are_gone_after_the_fit():
    module = Tiny()
    fit(DivBS(batch_ratio=0.5), module, max_epochs=1)
    assert not any(part._forward_hooks for part in module.modules())


def test_model_without_a_last_linear_layer_is_an_error_on_the_first_batch():
    class Convolution(Tiny):
        def network(self):
            return nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten())

    words = r"DivBS found no torch.nn.Linear with 3 outputs for the 8 samples.*or use EvolvedSampling"
    with pytest.raises(ValueError, match=words):
        fit(DivBS(), Convolution())
    with pytest.raises(ValueError, match="DivBS needs the logits and targets"):
        fit(DivBS(), Regressor())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mode": "best"}, ValueError, "mode='best' is unknown: give one of 'sample', 'greedy'"),
        ({"score_every_n_batches": 2}, TypeError, "DivBS has no use for score_every_n_batches=2: a batch is chosen"),
        ({"prune_ratio": 0.5}, TypeError, "DivBS has no use for prune_ratio=0.5: it takes every sample"),
        (
            {"batch_ratio": 0},
            ValueError,
            "batch_ratio=0 is outside \\(0, 1\\]: give the share of each batch to train on",
        ),
    ],
)
def test_wrong_arguments(options, error, words):
    with pytest.raises(error, match=words):
        DivBS(**options)
