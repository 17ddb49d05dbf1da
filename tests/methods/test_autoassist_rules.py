"""AutoAssist's arithmetic against the formulas in float64 NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect import AutoAssist
from lightning_dataselect.methods.autoassist.assistant import Assistant, Record
from lightning_dataselect.methods.autoassist.inputs import SampleInputs
from lightning_dataselect.methods.autoassist.networks import CONVENTIONS, default_network
from lightning_dataselect.methods.autoassist.rules import LastEpochMean, RecentMean, acceptance, accepted

SHARE = st.floats(0, 1)
LOSSES = st.lists(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=7), min_size=1, max_size=12)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@given(q=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), base=SHARE, accuracy=SHARE)
def test_acceptance_is_the_formula(q, base, accuracy):
    found = acceptance(torch.tensor(q, dtype=torch.float32), base, accuracy)
    b = max(base, 1 - accuracy)
    np.testing.assert_allclose(found, b + (1 - b) * np.asarray(q), atol=1e-6)


def test_sample_nobody_can_judge_is_trained_on():
    assert acceptance(torch.tensor([float("nan")]), 0.3, 1.0).tolist() == [1.0]


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32, exclude_max=True)), min_size=1))
def test_samples_below_their_probability_are_accepted_and_two_at_least(pairs):
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


def test_share_accepted_is_the_probability():
    p = torch.tensor([0.3, 0.65, 1.0]).repeat_interleave(20_000)
    taken = accepted(p, torch.rand(60_000, generator=torch.Generator().manual_seed(0)))
    counts = torch.bincount(taken // 20_000).double().numpy()
    np.testing.assert_allclose(counts / 20_000, [0.3, 0.65, 1.0], atol=0.015)


@given(batches=LOSSES, a=st.floats(0, 0.99))
def test_recent_mean_follows_the_formula(batches, a):
    mean, n, s = RecentMean(a), 0.0, 0.0
    for losses in batches:
        n = a * n + (1 - a) * len(losses)
        s = a * s + (1 - a) * np.sum(losses, dtype=np.float64)
        np.testing.assert_allclose(mean.update(torch.tensor(losses), epoch=0), s / n, rtol=1e-9)


@given(epochs=st.lists(LOSSES, min_size=2, max_size=4))
def test_last_epoch_mean_is_that_of_the_epoch_before(epochs):
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


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 9), memory=st.floats(0, 0.9))
def test_vector_assistant_learns_by_the_formula(seed, size, memory):
    w, u, accuracy, n, s = np.zeros(12), np.zeros(5), 0.0, 0.0, 0.0
    assistant = None
    for x, y, losses in random_batches(8, size, (3, 2, 2), 5, seed):
        inputs = SampleInputs(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
        if assistant is None:
            assistant = Assistant(default_network(inputs, "images"), CONVENTIONS["images"], memory)
        flat = np.asarray(inputs.x.double()).reshape(size, -1)
        losses = torch.tensor(losses, dtype=torch.float32)
        logits = flat @ w + u[y]
        draws = torch.rand(size, generator=torch.Generator().manual_seed(seed))
        judged = assistant.judge(inputs, draws, 0.3)
        np.testing.assert_allclose(judged.q, sigmoid(logits), atol=1e-5)
        b = max(0.3, 1 - accuracy)
        margin = b + (1 - b) * sigmoid(logits) - draws.double().numpy()
        if (margin > 0).sum() >= 2 and abs(margin).min() > 1e-5:
            assert judged.positions.tolist() == np.flatnonzero(margin > 0).tolist()
        n = memory * n + (1 - memory) * size
        s = memory * s + (1 - memory) * losses.double().sum().item()
        high = (losses.numpy() > np.float32(s / n)).astype(float)  # the mean of one loss is that loss
        accuracy = 0.95 * accuracy + 0.05 * np.mean((logits > 0) == (high > 0))
        error = sigmoid(logits) - high
        w = w - 0.01 / size * (flat.T @ error + 1e-3 * w)
        u = u - 0.01 / size * (np.bincount(y, error, minlength=5) + 1e-3 * u)
        assistant.learn(Record(inputs, None, losses, None, epoch=0))
    np.testing.assert_allclose(assistant.network.weight.detach(), w, atol=1e-5)
    np.testing.assert_allclose(assistant.network.classes.detach()[:5, 0], u, atol=1e-5)
    assert assistant.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize("size", [1, 8])
def test_weights_decay_by_their_share_of_the_batch(size):
    inputs = SampleInputs(torch.zeros(size, 3), torch.zeros(size, dtype=torch.int64))
    network = default_network(inputs, "images")
    torch.nn.init.constant_(network.weight, 1000.0)
    for _ in range(50):
        Assistant(network, CONVENTIONS["images"], 0.75).learn(Record(inputs, None, torch.ones(size), None, epoch=0))
    np.testing.assert_allclose(network.weight.detach(), 1000 * (1 - 0.01 / size * 1e-3) ** 50, rtol=2e-6)


def averaged_down(images):
    """(B, C, H, W) float64: the mean of what falls on each of at most 32 x 32 places."""
    for axis in (2, 3):
        side, places = images.shape[axis], min(images.shape[axis], 32)
        means = [
            images.take(range(i * side // places, -(-(i + 1) * side // places)), axis).mean(axis) for i in range(places)
        ]
        images = np.stack(means, axis)
    return images


@pytest.mark.parametrize(
    ("kind", "shape", "seen"),
    [
        ("images", (3, 4, 5), lambda x: x),
        ("images", (2, 64, 48), averaged_down),
        ("images", (1, 33, 7), averaged_down),
        ("images", (40, 50), lambda x: x),
        ("tabular", (6,), np.arcsinh),
        ("tabular", (), np.arcsinh),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_vector_assistant_logits_follow_the_formula(kind, shape, seen, dtype):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(4, *shape)) * 50 + 120).clamp(0, 255).to(dtype)
    y = torch.tensor([0, 1023, 1025, -1])
    network = default_network(SampleInputs(x, y), kind)
    with torch.no_grad():
        network.weight.normal_(generator=torch.Generator().manual_seed(0))
        network.classes.normal_(generator=torch.Generator().manual_seed(1))
    values = x.double().numpy() / (255 if dtype == torch.uint8 else 1)
    w, u = (part.detach().double().numpy() for part in (network.weight, network.classes[:, 0]))
    expected = seen(values).reshape(4, -1) @ w
    np.testing.assert_allclose(network(x, y).detach(), expected + u[[0, 1023, 1, 1023]], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(network(x, None).detach(), expected + u[0], rtol=1e-4, atol=1e-3)


def test_missing_features_count_as_zero():
    x = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]])
    network = default_network(SampleInputs(x, None), "tabular")
    torch.nn.init.ones_(network.weight)
    assert network(x, None).tolist() == pytest.approx([np.arcsinh(1)] * 2)


def tf_idf(texts, counted):
    """(texts, vocabulary) float64: mean over tokens of 1 + log((1 + n) / (1 + n_t))."""
    frequency = np.array([sum(t in text for text in counted) for t in range(9)])
    idf = 1 + np.log((1 + len(counted)) / (1 + frequency))
    bags = np.array([[list(text).count(t) for t in range(9)] for text in texts], dtype=float)
    lengths = bags.sum(1)
    mean_length = sum(map(len, counted)) / max(len(counted), 1)
    return bags * idf / np.maximum(lengths, 1)[:, None], lengths / max(mean_length, 1)


def padded(texts, start):
    width = max(map(len, texts), default=0)
    return torch.tensor([[*(start + t for t in text), *[-100] * (width - len(text))] for text in texts])


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_token_assistant_learns_by_the_formula(seed):
    rng = np.random.default_rng(seed)
    sides = [{"w": np.zeros(9), "v": 0.0, "counted": []} for _ in range(2)]
    bias, size = 0.0, 4
    assistant, mean = None, LastEpochMean()
    for step in range(6):
        texts = [[rng.integers(0, 9, rng.integers(1, 6)).tolist() for _ in range(size)] for _ in sides]
        # the first side's ids begin anew after 2**17 slots
        inputs = SampleInputs(*(padded(own, start) for own, start in zip(texts, (2**17 * (step % 2), 0), strict=True)))
        losses = torch.tensor(rng.exponential(size=size), dtype=torch.float32)
        if assistant is None:
            assistant = Assistant(default_network(inputs, "tokens"), CONVENTIONS["tokens"], 0.75)
        seen = [tf_idf(own, side["counted"]) for side, own in zip(sides, texts, strict=True)]
        judged = bias + sum(x @ side["w"] + side["v"] * n for side, (x, n) in zip(sides, seen, strict=True))
        np.testing.assert_allclose(assistant.judge(inputs, torch.zeros(size), 0.5).q, sigmoid(judged), atol=1e-5)
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


def test_losses_are_read_after_their_copy_has_ended():
    class Event:
        def synchronize(self):
            losses.copy_(torch.tensor([0.0, 1.0]))

    losses, inputs = torch.full((2,), torch.nan), SampleInputs(torch.eye(2), None)
    assistant = Assistant(default_network(inputs, "tabular"), CONVENTIONS["tabular"], 0.75)
    with torch.no_grad():  # whatever the training is about
        assistant.learn(Record(inputs, None, losses, Event(), 0))
    assert assistant.steps == 1 and assistant.network.weight.sign().tolist() == [-1, 1]


def test_frozen_parameters_of_an_assistant_stay():
    inputs = SampleInputs(torch.eye(2), None)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    network[0].requires_grad_(False)
    before = [p.clone() for p in network.parameters()]
    Assistant(network, CONVENTIONS["tabular"], 0.75).learn(Record(inputs, None, torch.tensor([0.0, 1.0]), None, 0))
    assert [torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)] == [True] * 2 + [
        False
    ] * 2


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


# ---- the authors' values


VECTORS = {
    "base_prob": 0.3, "first_epoch_whole": False, "queue_size": 20, "learn_at": 5, "learning_rate": 0.01, "l2": 1e-3,
    "threshold": RecentMean,
}  # fmt: skip
TOKENS = {
    "base_prob": 0.5, "first_epoch_whole": True, "queue_size": 50, "learn_at": 10, "learning_rate": 0.5, "l2": 0.1,
    "threshold": LastEpochMean,
}  # fmt: skip


def test_conventions_are_the_authors():
    assert {kind: vars(known) for kind, known in CONVENTIONS.items()} == {
        "images": VECTORS, "tabular": VECTORS, "tokens": TOKENS
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "kind", "expected"),
    [
        (None, "tabular", [0.3, 0.3, 0.3, 0.3]),
        (None, "tokens", [1.0, 0.5, 0.5, 0.5]),
        (0.7, "images", [0.7, 0.7, 0.7, 0.7]),
        (0.2, "tokens", [1.0, 0.2, 0.2, 0.2]),
    ],
)
def test_base_prob_follows_epoch_and_kind_of_input(asked, kind, expected):
    assert [AutoAssist(base_prob=asked).base_prob_of(epoch, CONVENTIONS[kind]) for epoch in range(4)] == expected


@pytest.mark.parametrize(("kind", "rate"), [("tabular", 0.01), ("tokens", 0.5)])
@pytest.mark.parametrize("arguments", [{}, {"learning_rate": 0.2, "memory": 0.4}])
def test_assistant_has_the_learning_rate_and_the_memory_asked_for(kind, rate, arguments):
    x = {"tabular": torch.zeros(4, 2), "tokens": torch.full((4, 2), -1)}[kind]
    inputs = SampleInputs(x, None)
    assistant = AutoAssist(**arguments).build_assistant(inputs, kind)
    assistant.learn(Record(inputs, None, torch.tensor([0.0, 0.0, 0.0, 1.0]), None, epoch=0))
    # of four samples taken for easy one is not; q is 1/2, the error 1/2 for the easy and -1/2 for the other
    assert assistant.accuracy == pytest.approx(0.05 * 0.75)
    assert assistant.state_dict()["threshold"]["memory"] == arguments.get("memory", 0.75)
    bias = assistant.network.classes[0].item()
    assert bias == pytest.approx(-arguments.get("learning_rate", rate) * (3 * 0.5 - 0.5) / 4)


def test_state_that_was_handed_out_does_not_change():
    inputs = SampleInputs(torch.tensor([[1.0], [2.0]]), None)
    assistant = Assistant(default_network(inputs, "tabular"), CONVENTIONS["tabular"], 0.75)
    early = assistant.state_dict()
    assistant.learn(Record(inputs, None, torch.tensor([0.0, 1.0]), None, epoch=0))
    assert early["steps"] == 0 and not any(value.any() for value in early["network"].values())
    assert assistant.state_dict()["network"]["weight"].abs().sum() > 0
