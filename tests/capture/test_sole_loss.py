"""Steps whose loss is what one loss function has returned are read the short way, and only those."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_dataselect.capture import LossCapture

B, D, C = 6, 4, 3
WEIGHT = torch.tensor([0.5, 2.0, 1.0])
LOSSES = {
    "cross_entropy": lambda out, y: F.cross_entropy(out, y),
    "class weights": lambda out, y: F.cross_entropy(out, y, WEIGHT),
    "ignored classes": lambda out, y: F.cross_entropy(out, y, ignore_index=1),
    "mse_loss": lambda out, y: F.mse_loss(out[:, 0], y.float()),
    "binary": lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], (y > 0).float()),
}


class Fit:
    """A model under capture, which has seen enough batches of a step to know it."""

    def __init__(self, step, n_batches: int = 4) -> None:
        torch.manual_seed(0)
        self.model, self.step = nn.Linear(D, C), step
        self.capture = LossCapture(self.model)
        for _ in range(n_batches):
            self.run()

    def run(self, step=None, weights=None, size: int = B):
        self.x, self.y = torch.randn(size, D), torch.randint(C, (size,))
        of_batch = step or self.step
        return self.capture.run(lambda: of_batch(self.model(self.x), self.y), size, weights)

    def alone(self, step) -> Tensor:
        """Return what the step loses on each sample of the last batch alone."""
        with torch.no_grad():
            parts = zip(self.x.split(1), self.y.split(1), strict=True)
            return torch.stack([step(self.model(x), y) for x, y in parts])


@pytest.mark.parametrize("name", LOSSES)
def test_short_way_says_what_each_sample_would_lose_alone(name):
    step = LOSSES[name]
    fit = Fit(step)
    loss, captured = fit.run()
    assert captured.is_own, "it was not taken"
    loss.backward()
    expected = fit.alone(step)
    if name == "class weights":
        expected = expected * WEIGHT[fit.y]  # torch's own mean of one divides by the weight again
    torch.testing.assert_close(captured.losses, expected.nan_to_num(0.0))
    torch.testing.assert_close(loss, step(fit.model(fit.x), fit.y))


def test_first_batches_are_not_read_the_short_way():
    assert not Fit(LOSSES["cross_entropy"], n_batches=0).run()[1].is_own
    assert not Fit(LOSSES["cross_entropy"], n_batches=1).run()[1].is_own


def test_logits_and_targets_come_along():
    fit = Fit(LOSSES["cross_entropy"])
    _, captured = fit.run()
    assert captured.is_own
    assert torch.equal(captured.logits, fit.model(fit.x)) and not captured.logits.requires_grad
    assert torch.equal(captured.targets, fit.y)


def doubled(out, y):
    return 2 * F.cross_entropy(out, y)


def doubled_in_place(out, y):
    return F.cross_entropy(out, y).mul_(2)


@pytest.mark.parametrize("other", [doubled, doubled_in_place])
def test_a_step_that_makes_something_else_of_its_loss_is_read_in_full(other):
    fit = Fit(LOSSES["cross_entropy"])
    assert fit.run()[1].is_own
    _, captured = fit.run(other)
    assert not captured.is_own
    torch.testing.assert_close(captured.losses, fit.alone(other))


def test_a_second_term_is_noticed():
    fit = Fit(LOSSES["cross_entropy"])
    assert not fit.run(lambda out, y: F.cross_entropy(out, y) + F.mse_loss(out[:, 0], y.float()))[1].known


def test_a_loss_that_is_not_returned_is_none():
    fit = Fit(lambda out, y: F.cross_entropy(out, y))
    assert not fit.run(lambda out, y: (F.cross_entropy(out, y), out.square().mean())[1])[1].known


def test_several_rows_of_a_sample_are_noticed():
    fit = Fit(LOSSES["cross_entropy"])
    assert not fit.run(lambda out, y: F.cross_entropy(out.repeat(2, 1), y.repeat(2)))[1].known


def test_a_metric_besides_changes_nothing():
    def step(out, y):
        loss = F.cross_entropy(out, y)
        F.cross_entropy(out, y, reduction="none").detach()
        return loss

    fit = Fit(LOSSES["cross_entropy"])
    _, captured = fit.run(step)
    torch.testing.assert_close(captured.losses, fit.alone(LOSSES["cross_entropy"]))


def test_weights_on_samples_are_applied():
    fit = Fit(LOSSES["cross_entropy"])
    weights = torch.rand(B)
    loss, captured = fit.run(weights=weights)
    assert not captured.is_own
    torch.testing.assert_close(loss, (fit.alone(LOSSES["cross_entropy"]) * weights).mean())


def test_a_multiple_of_a_loss_is_never_read_the_short_way():
    fit = Fit(doubled)
    assert not fit.run()[1].is_own
    torch.testing.assert_close(fit.run()[1].losses, fit.alone(doubled))


def test_step_is_read_in_full_where_a_look_is_called_for():
    fit = Fit(LOSSES["cross_entropy"])
    fit.capture.probe_next()
    assert not fit.run()[1].is_own
    fit.run()
    assert fit.run()[1].is_own


def against_each_other(out, y):
    return F.cross_entropy(out @ out.T, torch.arange(len(out)))


def test_samples_told_apart_from_each_other_in_place_of_classes_are_no_silent_loss():
    fit = Fit(LOSSES["cross_entropy"])
    with pytest.warns(UserWarning, match="depends on the other samples"):
        known = [fit.run(step)[1].known for step in [LOSSES["cross_entropy"], against_each_other] * 4]
    assert known == [True, False] * 4


def test_numbers_of_classes_that_vary_are_looked_at_once():
    fit = Fit(LOSSES["cross_entropy"])

    def of_more(out, y):
        return F.cross_entropy(torch.cat([out, out[:, :1] - 1], 1), y)

    known = [fit.run(step)[1].known for step in [of_more] * 2 + [LOSSES["cross_entropy"], of_more] * 2]
    assert known == [False] + [True] * 5
    torch.testing.assert_close(fit.run(of_more)[1].losses, fit.alone(of_more))
