"""Losses that no mean or sum by name ends: against batches of one, in float64; and what depends on the batch."""

import functools
import warnings
from collections.abc import Callable

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from capture_steps import Batch, C, Net, cut, make_batch
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture
from lightning_dataselect.step.witness import Witness

Step = Callable[[Net, Batch], Tensor]
SIZES = (8, 8, 5, 7)


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net().double()


def batch_of(seed: int, size: int) -> Batch:
    batch = cut(make_batch(seed), slice(size))
    return {name: part.double() if part.is_floating_point() else part for name, part in batch.items()}


def ce(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net(b["x"]), b["y"], reduction="none")


def errors(net: Net, b: Batch) -> Tensor:
    return net(b["x"]) - b["z"]


def value(net: Net, b: Batch) -> Tensor:
    return net.value(net.body(b["x"])).squeeze(1)


def token_losses(net: Net, b: Batch) -> Tensor:
    return (net.tokens(b) - 1).square().mean(-1)


def by_index(net: Net, b: Batch) -> Tensor:
    losses, total = ce(net, b), torch.zeros(())
    for i in range(len(losses)):
        total = total + losses[i] * b["weight"][i]
    return total / len(losses)


def picked_logits(net: Net, b: Batch) -> Tensor:
    own = b["mask"].flatten().nonzero().squeeze(1)
    return F.cross_entropy(net.tokens(b).flatten(0, 1)[own], b["labels"].flatten()[own])


def picked_boxes(net: Net, b: Batch) -> Tensor:
    own = (torch.arange(4) < b["n_boxes"][:, None]).flatten().nonzero().squeeze(1)
    out = net.head(b["boxes"]).flatten(0, 1).index_select(0, own)
    return F.smooth_l1_loss(out, b["targets"].flatten(0, 1).index_select(0, own))


def picked_anywhere(net: Net, b: Batch) -> Tensor:
    """Not the first tokens of each sample: gaps are where they were."""
    own = ((b["tokens"] % 2 == 0) | (torch.arange(b["tokens"].shape[1]) == 1)).flatten().nonzero().squeeze(1)
    return token_losses(net, b).flatten()[own].mean()


SERVED: dict[str, Step] = {
    "flat": lambda net, b: token_losses(net, b).flatten()[b["mask"].flatten().nonzero()[:, 0]].sum() / len(b["y"]),
    "take": lambda net, b: token_losses(net, b).take(b["mask"].flatten().nonzero().squeeze(1)).mean(),
    "picked logits": picked_logits,
    "picked boxes": picked_boxes,
    "picked anywhere": picked_anywhere,
}


def losses_of(step: Step, *, has_witness: bool, weights: Tensor | None = None) -> None:
    module = Module()
    net, capture = module.net, LossCapture(module)
    witness, probed = Witness(module, capture), 0
    for seed, size in enumerate(SIZES):
        batch = batch_of(seed, size)
        if has_witness and capture.will_probe(size):
            witness.hear(lambda rows, b=batch: functools.partial(step, net, cut(b, list(rows))), size, batch)
        probed += capture.will_probe(size)
        own = weights if weights is None else weights[:size]
        loss, captured = capture.run(functools.partial(step, net, batch), size, own)
        alone = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach().reshape(()) for i in range(size)])
        torch.testing.assert_close(captured.losses.double(), alone, rtol=1e-4, atol=1e-5)
        if weights is None:
            torch.testing.assert_close(loss, step(net, batch))
        else:
            assert loss.isfinite() and not torch.allclose(loss, step(net, batch), rtol=1e-4)
        if has_witness and witness.is_waiting:
            capture.probe_next()
    assert has_witness or probed < len(SIZES), "steps are followed without a probe"


@pytest.mark.parametrize("has_witness", [True, False])
@pytest.mark.parametrize("name", SERVED)
def test_a_sample_loses_what_a_batch_of_it_alone_loses(name: str, has_witness: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses_of(SERVED[name], has_witness=has_witness)


def test_weights_count_in_the_first_step_and_later() -> None:
    step, net = SERVED["flat"], Module().net
    batch, weights = batch_of(0, 8), torch.arange(1.0, 9)
    alone = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach().reshape(()) for i in range(8)])
    plain, capture = step(net, batch).detach(), LossCapture(net)
    capture.keeps_value = False
    for _ in range(3):
        loss, _ = capture.run(lambda: step(net, batch), 8, weights)
        torch.testing.assert_close(loss / plain, (alone * weights).sum() / alone.sum())


@pytest.mark.parametrize("name", ["flat", "take"])
def test_a_pass_that_only_scores_says_the_same(name: str) -> None:
    step, net, capture = SERVED[name], Module().net, LossCapture()
    for seed in range(3):
        batch = batch_of(seed, 8)
        alone = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach().reshape(()) for i in range(8)])
        captured = capture.score(lambda batch=batch: step(net, batch), 8)
        torch.testing.assert_close(captured.losses.double(), alone, rtol=1e-4, atol=1e-5)


def centred(b: Batch) -> Tensor:
    return b["r"] - b["r"].mean()


def softmax_of_losses(net: Net, b: Batch) -> Tensor:
    losses = ce(net, b)
    return (losses.detach().softmax(0) * losses).sum()


def teacher_centred_by_its_batch(net: Net, b: Batch) -> Tensor:
    with torch.no_grad():
        teacher = net.aux(net.body(b["x"]))
        teacher = (teacher - teacher.mean(0)).softmax(1)
    return -(teacher * net(b["x"]).log_softmax(1)).sum(1).mean()


def prior_of_the_batch(net: Net, b: Batch) -> Tensor:
    prior = torch.bincount(b["y"], minlength=C) / len(b["y"])
    return F.cross_entropy(net(b["x"]) + (prior + 1e-3).log(), b["y"])


def worst_group(net: Net, b: Batch) -> Tensor:
    losses, group = ce(net, b), b["other"]
    groups = [(losses * (group == k)).sum() / (group == k).sum().clamp(min=1) for k in range(C)]
    return torch.stack(groups).max()


COMPARED = "compares its outputs with numbers that are made of the whole batch"
NOTHING = "No loss was found .* in place of Python's sum"
CLIPPED, SIZE = "The loss is clipped", "holds the size of a number"
SHARED = "share out what their losses are multiplied by"
REFUSED: dict[str, tuple[Step, str]] = {
    "centred": (lambda net, b: F.mse_loss(value(net, b), centred(b)), COMPARED),
    "centred, by hand": (lambda net, b: (value(net, b) - centred(b)).square().mean(), COMPARED),
    "standardised": (lambda net, b: F.mse_loss(value(net, b), centred(b) / (b["r"].std(unbiased=False) + 1)), COMPARED),
    "columns": (lambda net, b: F.l1_loss(net(b["x"]), b["z"] - b["z"].mean(0, keepdim=True)), COMPARED),
    "ranks": (lambda net, b: F.mse_loss(value(net, b), b["r"].argsort().argsort().double()), COMPARED),
    "by the largest": (lambda net, b: F.mse_loss(value(net, b), b["r"] / b["r"].abs().max()), COMPARED),
    "teacher": (teacher_centred_by_its_batch, COMPARED),
    "prior": (prior_of_the_batch, COMPARED),
    "softmax": (softmax_of_losses, SHARED),
    "softmax of data": (lambda net, b: (b["weight"].softmax(0) * ce(net, b)).sum(), SHARED),
    "softmax, mean": (lambda net, b: (b["weight"].softmax(0) * len(b["y"]) * ce(net, b)).mean(), SHARED),
    "clamp": (lambda net, b: ce(net, b).mean().clamp(max=10), CLIPPED),
    "clamp, both": (lambda net, b: torch.clamp(F.cross_entropy(net(b["x"]), b["y"]), 0, 50), CLIPPED),
    "clamp binds": (lambda net, b: F.cross_entropy(net(b["x"]), b["y"]).clamp(max=1.7), CLIPPED),
    "clamp, third": (lambda net, b: F.cross_entropy(net(b["x"]), b["y"]).clamp(max=1.7) / 3 + 1, CLIPPED),
    "clamp, minus": (lambda net, b: -(-ce(net, b).mean()).clamp(min=-1.7), CLIPPED),
    "minimum": (lambda net, b: torch.minimum(F.mse_loss(net(b["x"]), b["z"]), torch.tensor(1.2)), CLIPPED),
    "abs": (lambda net, b: 2 * (value(net, b) - b["r"]).mean().abs(), SIZE),
    "flood": (lambda net, b: (F.cross_entropy(net(b["x"]), b["y"]) - 1.7).abs() + 1.7, SIZE),
    "tensordot": (lambda net, b: torch.tensordot(ce(net, b), b["weight"], 1) / len(b["y"]), NOTHING),
    "trace": (lambda net, b: torch.trace(errors(net, b) @ errors(net, b).T) / len(b["y"]), NOTHING),
    "python sum": (lambda net, b: sum(ce(net, b)) / len(b["y"]), NOTHING),
    "by index": (by_index, NOTHING),
    "norm ** 2": (lambda net, b: (value(net, b) - b["r"]).norm() ** 2, NOTHING),
    "norm fro": (lambda net, b: 0.5 * torch.norm(errors(net, b), p="fro").square() / len(b["y"]), NOTHING),
    "norm p=1": (lambda net, b: errors(net, b).norm(p=1) / len(b["y"]), NOTHING),
    "abs inside": (lambda net, b: (value(net, b) - b["r"]).mean().abs().sqrt(), SIZE),
    "worst group": (worst_group, CLIPPED),
}


@pytest.mark.parametrize("has_witness", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_the_batch_is_refused_for_that(name: str, has_witness: bool) -> None:
    step, words = REFUSED[name]
    with pytest.raises(CaptureError, match=words):
        losses_of(step, has_witness=has_witness)


def test_weights_less_their_mean_are_taken_as_the_batch_has_them() -> None:
    module, batch = Module(), batch_of(0, 8)
    gain = batch["r"] - batch["r"].mean()
    _, captured = LossCapture(module).run(lambda: (gain * ce(module.net, batch)).mean(), 8)
    torch.testing.assert_close(captured.losses.double(), gain * ce(module.net, batch).detach(), rtol=1e-4, atol=1e-5)
