"""Steps of every field: what a sample loses is what a batch of it alone loses, and the step is as without capture."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from capture_steps import STEPS, B, Net, alone, cut, make_batch
from torch import Tensor, nn

from lightning_dataselect.capture import LossCapture

# Whole batches at first, then smaller ones, as at the end of an epoch, of one sample too, and in another order.
POSITIONS = [range(B), range(B), range(B), range(5), range(B), range(3, 4), range(1, 8), range(7, -1, -1), range(2)]


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def gradients(net: Net, loss: Tensor) -> list[Tensor]:
    net.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("name", STEPS)
def test_losses_are_those_of_batches_of_one(net: Net, name: str) -> None:
    step, batch, capture = STEPS[name], make_batch(), LossCapture(net)
    expected = alone(net, step, batch)
    for positions in map(list, POSITIONS):
        part = cut(batch, positions)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = step(net, part)
            plain_gradients = gradients(net, plain)
            loss, captured = capture.run(lambda part=part: step(net, part), len(positions))
        torch.testing.assert_close(captured.losses, expected[positions], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradients(net, loss), plain_gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
def test_scoring_a_batch_of_another_size_says_the_same(net: Net, name: str) -> None:
    step, batch, capture = STEPS[name], make_batch(), LossCapture(net)
    for _ in range(2):
        capture.run(lambda: step(net, cut(batch, slice(6))), 6)
        scored = capture.score(lambda: step(net, batch), B)
        torch.testing.assert_close(scored.losses, alone(net, step, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_weights_multiply_what_each_sample_adds_to_the_loss(net: Net, name: str) -> None:
    """A weight of 1 + e on a sample changes the gradient by e times what the sample adds to it."""
    step, batch = STEPS[name], make_batch()
    plain = gradients(net, step(net, batch))
    shares = []
    for i in range(B):
        capture, weights = LossCapture(net), torch.ones(B)
        weights[i] = 0
        changes = []
        for _ in range(3):
            loss, _ = capture.run(lambda: step(net, batch), B, weights)
            without = gradients(net, loss)
            changes.append([a - b for a, b in zip(plain, without, strict=True)])
        torch.testing.assert_close(changes[0], changes[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(changes[1], changes[2], rtol=1e-4, atol=1e-5)
        shares.append(changes[0])
    whole = [torch.stack(parts).sum(0) for parts in zip(*shares, strict=True)]
    torch.testing.assert_close(whole, plain, rtol=1e-4, atol=1e-5)


def test_a_constant_that_is_the_size_of_the_first_batch_is_told_by_another_size() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    capture = LossCapture(model)

    def losses_over_own(n: int) -> Tensor:
        x, y = torch.randn(n, 3), torch.randint(2, (n,))
        captured = capture.run(lambda: F.cross_entropy(model(x), y, reduction="sum") / 4, n)[1]
        return captured.losses / F.cross_entropy(model(x), y, reduction="none").detach()

    losses_over_own(4)  # four samples, or a four that somebody wrote
    torch.testing.assert_close(losses_over_own(6), torch.full((6,), 0.25))
    assert capture.has_misread()
    torch.testing.assert_close(losses_over_own(4), torch.full((4,), 0.25))


def test_images_that_had_one_box_each_so_far_are_looked_at_anew(net: Net) -> None:
    capture, step = LossCapture(net), STEPS["boxes_in_one_row"]
    one_each, as_many_by_chance = torch.ones(B, dtype=torch.long), torch.tensor([1, 2, 3, 2, 2, 1, 4, 1])
    known = []
    for n_boxes in (one_each, as_many_by_chance, as_many_by_chance):
        batch = {**make_batch(), "n_boxes": n_boxes}
        captured = capture.run(lambda batch=batch: step(net, batch), B)[1]
        known.append(captured.known)
        if captured.known:
            torch.testing.assert_close(captured.losses, alone(net, step, batch), rtol=1e-4, atol=1e-5)
    assert known == [True, False, True]


def test_a_batch_that_is_scored_is_looked_at_anew_at_once_where_images_have_more_boxes(net: Net) -> None:
    capture, step = LossCapture(net), STEPS["boxes_in_one_row"]
    one_each = {**make_batch(), "n_boxes": torch.ones(B, dtype=torch.long)}
    more = {**make_batch(), "n_boxes": torch.tensor([1, 2, 3, 2, 2, 1, 4, 1])}
    capture.run(lambda: step(net, one_each), B)
    captured = capture.score(lambda: step(net, more), B)
    assert captured.known
    torch.testing.assert_close(captured.losses, alone(net, step, more), rtol=1e-4, atol=1e-5)
