"""AutoAssist's arithmetic against the formulas in float64 NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect.assistant import CONVENTIONS, Assistant, Record, SampleInputs, default_network
from lightning_dataselect.assistant.rules import LastEpochMean, RecentMean, acceptance, accepted

SHARE = st.floats(0, 1)
LOSSES = st.lists(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=7), min_size=1, max_size=12)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@given(q=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), base=SHARE, accuracy=SHARE)
def test_acceptance_is_the_formula(q, base, accuracy):
    found = acceptance(torch.tensor(q, dtype=torch.float32), base, accuracy)
    b = max(base, 1 - accuracy)
    np.testing.assert_allclose(found, b + (1 - b) * np.asarray(q), atol=1e-6)


def test_a_sample_nobody_can_judge_is_trained_on():
    assert acceptance(torch.tensor([float("nan")]), 0.3, 1.0).tolist() == [1.0]


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32, exclude_max=True)), min_size=1))
def test_who_is_accepted(pairs):
    p, u = (torch.tensor(column, dtype=torch.float32) for column in zip(*pairs, strict=True))
    expected = [i for i, (a, b) in enumerate(pairs) if b < a]
    found = accepted(p, u).tolist()
    assert found == sorted(set(found)) and len(found) >= min(2, len(pairs))
    if len(expected) >= min(2, len(pairs)):
        assert found == expected
    else:
        # those who came nearest
        margin = (p - u).double().numpy()
        assert min(margin[found]) >= max(np.delete(margin, found), default=-np.inf)


def test_the_share_accepted_is_the_probability():
    p = torch.tensor([0.3, 0.65, 1.0]).repeat_interleave(20_000)
    taken = accepted(p, torch.rand(60_000, generator=torch.Generator().manual_seed(0)))
    counts = torch.bincount(taken // 20_000).double().numpy()
    np.testing.assert_allclose(counts / 20_000, [0.3, 0.65, 1.0], atol=0.015)


@given(batches=LOSSES, a=st.floats(0, 0.99))
def test_the_recent_mean(batches, a):
    mean, n, s = RecentMean(a), 0.0, 0.0
    for losses in batches:
        n = a * n + (1 - a) * len(losses)
        s = a * s + (1 - a) * np.sum(losses, dtype=np.float64)
        np.testing.assert_allclose(mean.update(torch.tensor(losses), epoch=0), s / n, rtol=1e-9)


@given(epochs=st.lists(LOSSES, min_size=2, max_size=4))
def test_the_mean_of_the_epoch_before(epochs):
    mean, before = LastEpochMean(), None
    for epoch, batches in enumerate(epochs):
        seen = []
        for losses in batches:
            seen += losses
            expected = np.mean(seen, dtype=np.float64) if before is None else before
            np.testing.assert_allclose(mean.update(torch.tensor(losses), epoch), expected, rtol=1e-9, atol=1e-12)
        before = np.mean(seen, dtype=np.float64)


def random_batches(count, size, features, classes, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.normal(size=(size, *features)), rng.integers(0, classes, size), rng.exponential(size=size)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 9), memory=st.floats(0, 0.9))
def test_a_vector_assistant_learns_by_the_formula(seed, size, memory):
    w, u, accuracy, n, s = np.zeros(12), np.zeros(5), 0.0, 0.0, 0.0
    assistant = None
    for x, y, losses in random_batches(8, size, (3, 2, 2), 5, seed):
        inputs = SampleInputs(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
        if assistant is None:
            assistant = Assistant(default_network(inputs, "images"), CONVENTIONS["images"], memory)
        flat = np.asarray(inputs.x.double()).reshape(size, -1)
        losses = torch.tensor(losses, dtype=torch.float32)
        logits = flat @ w + u[y]
        judged = assistant.judge(inputs, torch.zeros(size), 0.3)
        np.testing.assert_allclose(judged.q, sigmoid(logits), atol=1e-5)
        n = memory * n + (1 - memory) * size
        s = memory * s + (1 - memory) * losses.double().sum().item()
        high = (losses.double().numpy() > s / n).astype(float)
        accuracy = memory * accuracy + (1 - memory) * np.mean((logits > 0) == (high > 0))
        error = (sigmoid(logits) - high) / size
        w = w - 0.01 * (flat.T @ error + 1e-3 * w)
        u = u - 0.01 * (np.bincount(y, error, minlength=5) + 1e-3 * u)
        assistant.learn(Record(inputs, None, losses, None, epoch=0))
    np.testing.assert_allclose(assistant.network.weight.detach(), w, atol=1e-5)
    np.testing.assert_allclose(assistant.network.classes.detach()[:5, 0], u, atol=1e-5)
    assert assistant.accuracy == pytest.approx(accuracy)


def tf_idf(texts, counted):
    """(texts, vocabulary) float64: mean over tokens of 1 + log((1 + n) / (1 + n_t))."""
    frequency = np.array([sum(t in text for text in counted) for t in range(9)])
    idf = 1 + np.log((1 + len(counted)) / (1 + frequency))
    bags = np.array([[list(text).count(t) for t in range(9)] for text in texts], dtype=float)
    lengths = bags.sum(1)
    mean_length = sum(map(len, counted)) / max(len(counted), 1)
    return bags * idf / np.maximum(lengths, 1)[:, None], lengths / max(mean_length, 1)


def padded(texts):
    width = max(map(len, texts), default=0)
    return torch.tensor([[*text, *[-100] * (width - len(text))] for text in texts]).reshape(len(texts), width)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_token_assistant_learns_by_the_formula(seed):
    rng = np.random.default_rng(seed)
    sides = [{"w": np.zeros(9), "v": 0.0, "counted": []} for _ in range(2)]
    bias, size = 0.0, 4
    assistant, mean = None, LastEpochMean()
    for step in range(6):
        texts = [[rng.integers(0, 9, rng.integers(1, 6)).tolist() for _ in range(size)] for _ in sides]
        inputs = SampleInputs(*map(padded, texts))
        losses = torch.tensor(rng.exponential(size=size), dtype=torch.float32)
        if assistant is None:
            assistant = Assistant(default_network(inputs, "tokens"), CONVENTIONS["tokens"], 0.75)
        for side, own in zip(sides, texts, strict=True):
            side["counted"] += own
            side["x"], side["lengths"] = tf_idf(own, side["counted"])
        logits = bias + sum(side["x"] @ side["w"] + side["v"] * side["lengths"] for side in sides)
        high = losses.double().numpy() > mean.update(losses, step // 3)
        error, rate = sigmoid(logits) - high, 0.5 / size
        bias -= rate * (error.sum() + 0.1 * bias)
        for side in sides:
            side["w"] -= rate * (side["x"].T @ error + 0.1 * side["w"])
            side["v"] -= rate * (side["lengths"] @ error + 0.1 * side["v"])
        assistant.learn(Record(inputs, None, losses, None, epoch=step // 3))
    for side, bag in zip(sides, assistant.network.bags, strict=True):
        np.testing.assert_allclose(bag.weight.detach()[:9, 0], side["w"], atol=1e-5)
        np.testing.assert_allclose(bag.length.detach(), side["v"], atol=1e-5)
    np.testing.assert_allclose(assistant.network.classes.detach()[0, 0], bias, atol=1e-5)


def test_only_the_trained_and_finite_losses_count():
    x, y = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])
    a, b = (Assistant(default_network(SampleInputs(x, y), "tabular"), CONVENTIONS["tabular"], 0.5) for _ in range(2))
    losses = torch.tensor([1.0, float("inf"), 3.0])
    a.learn(Record(SampleInputs(x, y), torch.tensor([0, 2, 3]), losses, None, 0))
    b.learn(Record(SampleInputs(x, y)[torch.tensor([0, 3])], None, losses[[0, 2]], None, 0))
    for one, other in zip(a.network.parameters(), b.network.parameters(), strict=True):
        assert torch.equal(one, other) and one.abs().sum() > 0
    a.learn(Record(SampleInputs(x, y), None, torch.full((4,), torch.nan), None, 0))
    assert a.steps == 1
