"""Loops over the samples that call one loss function several times for each, or for something else as well."""

from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from alone import B, Fixed, Net, Step, measured, samples
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect import DataSelector, Selection
from lightning_dataselect.capture import CaptureError, LossCapture


def turns(net: Net, b: Any) -> list[tuple[Tensor, Tensor]]:
    """Return outputs and targets of each sample's tokens, of which it has more or fewer than others."""
    frames = net.embed(b["tokens"])
    return [
        (net.words(rows[own]), tokens[own]) for rows, tokens, own in zip(frames, b["tokens"], b["mask"], strict=True)
    ]


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def one_function_for_two_terms(net: Net, b: Any) -> Tensor:
    """As of boxes and of their corners."""
    loss = torch.zeros((), dtype=torch.float64)
    for out, y in turns(net, b):
        loss += F.l1_loss(out, F.one_hot(y, 11).double()) + 2 * F.l1_loss(out.cumsum(1), torch.zeros_like(out))
    return loss / len(b["tokens"])


def one_function_for_some_of_three(net: Net, b: Any) -> Tensor:
    losses = []
    for out, y in turns(net, b):
        found = F.mse_loss(out[:1], torch.ones_like(out[:1])) + 0.5 * F.mse_loss(out[1:], torch.zeros_like(out[1:]))
        losses.append(F.cross_entropy(out, y) + found)
    return torch.stack(losses).mean()


def means_on_one_line(net: Net, b: Any) -> Tensor:
    """As the distance of two clouds of points."""
    losses = []
    for out, _ in turns(net, b):
        apart = torch.cdist(out, out + 1)
        losses.append(apart.min(0)[0].mean() + apart.min(1)[0].mean())
    return sum(losses) / len(losses)


def a_function_of_ones_own(net: Net, b: Any) -> Tensor:
    losses = [distance(out, torch.zeros_like(out)) + distance(out.sin(), out.cos()) for out, _ in turns(net, b)]
    return torch.stack(losses).mean()


def beside_a_metric_of_each(net: Net, b: Any) -> Tensor:
    losses = []
    for out, y in turns(net, b):
        with torch.no_grad():
            F.cross_entropy(2 * out, y)
        losses.append(F.cross_entropy(out, y))
    return torch.stack(losses).mean()


def after_a_metric_of_the_batch(net: Net, b: Any) -> Tensor:
    with torch.no_grad():
        F.cross_entropy(net(b["x"]), b["y"])
    return torch.stack([F.cross_entropy(out, y) for out, y in turns(net, b)]).mean()


SERVED: list[Step] = [
    one_function_for_two_terms, one_function_for_some_of_three, means_on_one_line, a_function_of_ones_own,
    beside_a_metric_of_each, after_a_metric_of_the_batch,
]  # fmt: skip


@pytest.mark.parametrize("step", SERVED)
def test_each_sample_loses_what_it_loses_alone(step: Step) -> None:
    losses, right, _ = measured(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)


class Weighted(DataSelector):
    """Keeps everything, with weights that differ."""

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        return Selection(torch.arange(len(scores)), torch.linspace(0.2, 2.0, len(scores)))


class Gradients(Fixed):
    """Keeps the gradient of each step."""

    def on_train_start(self) -> None:
        self.gradients: list[Tensor] = []

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.gradients.append(self.net.words.weight.grad.clone())


@pytest.mark.parametrize("step", SERVED)
def test_a_weight_is_that_of_the_sample_in_whose_turn_it_is(step: Step) -> None:
    module, data = Gradients(step), samples()[:B]
    trainer = L.Trainer(
        max_epochs=3, callbacks=[Weighted(prune_ratio=0.1, warmup_epochs=0)], logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, B))
    module.zero_grad()
    own = [module.training_step(torch.utils.data.default_collate([one])) for one in data]
    (torch.stack(own) * torch.linspace(0.2, 2.0, B)).mean().backward()
    assert len(module.gradients) == 3
    for gradient in module.gradients:
        torch.testing.assert_close(gradient, module.net.words.weight.grad, rtol=1e-5, atol=1e-7)


def beside_the_whole_batch(net: Net, b: Any) -> Tensor:
    each = [F.cross_entropy(out, y) for out, y in turns(net, b)]
    return torch.stack(each).mean() + F.cross_entropy(net(b["x"]), b["y"])


def but_for_some(net: Net, b: Any) -> Tensor:
    losses = [F.cross_entropy(*turn) for turn, own in zip(turns(net, b), b["positive"], strict=True) if not own]
    return torch.stack(losses).mean() if losses else 0 * net(b["x"]).sum()


@pytest.mark.parametrize("step", [beside_the_whole_batch, but_for_some])
def test_calls_that_may_be_of_any_sample_are_refused_for_that(step: Step) -> None:
    with pytest.raises(CaptureError, match=r"cross_entropy is called \d+ times for \d samples, and nothing shows"):
        measured(step)


def test_calls_in_between_are_refused_where_no_sample_shows_whose_they_are() -> None:
    net, batch = Net(), torch.utils.data.default_collate(samples()[:B])
    with pytest.raises(CaptureError, match="cross_entropy is called 16 times for 8 samples"):
        LossCapture(net).run(lambda: beside_a_metric_of_each(net, batch), B)
