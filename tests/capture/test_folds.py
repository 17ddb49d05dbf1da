"""Means over the samples of each output, weighed afterwards, are read as if they were put together sample by sample."""

import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dataselect import EvolvedSampling, InfoBatch, RandomPruning
from lightning_dataselect.capture import CaptureError, LossCapture
from lightning_dataselect.capture.recording.doubts import Doubts
from lightning_dataselect.step.witness import Witness

N, B, D, K = 43, 8, 6, 5  # the last batch has three samples
Step = Callable[[Any, Any], Tensor]


class Net(L.LightningModule):
    def __init__(self, step: Step, n_outputs: int = K, lr: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.step, self.lr = step, lr
        self.body, self.head, self.classes = nn.Linear(D, 16), nn.Linear(16, n_outputs), nn.Linear(16, 3)
        self.rnn, self.conv = nn.LSTM(2, K, batch_first=True), nn.Conv2d(1, K, 3, padding=1)
        self.log_weights = nn.Parameter(torch.linspace(-1, 1, n_outputs))

    def errors(self, b: Any) -> Tensor:
        return (self.head(self.body(b["x"]).tanh()) - b["y"][:, None]).square()

    def weights(self) -> Tensor:
        return torch.arange(1.0, len(self.log_weights) + 1).to(self.log_weights)

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        return self.step(self, batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def data() -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x, y, labelled = torch.randn(N, D, generator=g), torch.randn(N, generator=g), torch.rand(N, K, generator=g) < 0.6
    series, images = torch.randn(N, 7, 2, generator=g), torch.randn(N, 1, 4, 4, generator=g)
    classes = torch.randint(3, (N,), generator=g)
    late = 10 + (torch.arange(N) >= 3 * B) * (1 + torch.arange(N) % 2 / 2) + torch.rand(N, generator=g) / 10
    parts = {
        "late": late,
        "x": x,
        "y": y,
        "labelled": labelled.double(),
        "series": series,
        "image": images,
        "class": classes,
    }
    return [{name: part[i] for name, part in parts.items()} for i in range(N)]


def doubled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part.double() if part.is_floating_point() else part for name, part in batch.items()}


def trained(module: Net, selector: Any, epochs: int = 1) -> None:
    collate = lambda samples: doubled(torch.utils.data.default_collate(samples))  # noqa: E731
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=[selector] if selector else [], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module.double(), DataLoader(data(), B, collate_fn=collate))


def fitted(step: Step, selector: Any = None, n_outputs: int = K) -> tuple[Tensor, Tensor]:
    """The losses after an epoch without training, and those of batches of one in double precision."""
    module, selector = Net(step, n_outputs), selector or InfoBatch(prune_ratio=0.5)
    trained(module, selector)
    alone = [doubled(torch.utils.data.default_collate([sample])) for sample in data()]
    return selector.losses.double(), torch.stack([module.training_step(b).detach().reshape(()) for b in alone])


def bce_of_pixels(net: Any, b: Any) -> Tensor:
    logits = net.conv(b["image"])
    return F.binary_cross_entropy_with_logits(logits, (b["image"] > 0).to(logits).expand_as(logits), reduction="none")


def in_a_list(net: Any, b: Any) -> Tensor:
    means = net.errors(b).mean(0)
    return 0.5 * means[0] + 0.2 * means[1] + means[2:].mean()


def with_a_class(net: Any, b: Any) -> Tensor:
    classes = F.cross_entropy(net.classes(net.body(b["x"]).tanh()), b["class"])
    return classes + 0.3 * (net.errors(b).mean(0) * net.weights()).sum()


SERVED: dict[str, Step] = {
    "multiplied": lambda net, b: (net.errors(b).mean(0) * net.weights()).sum(),
    "some not at all, some with a minus": lambda net, b: (net.errors(b).mean(0) * (net.weights() - 2)).sum(),
    "dot product": lambda net, b: net.errors(b).mean(0) @ net.weights(),
    "einsum": lambda net, b: torch.einsum("k,k->", net.errors(b).mean(0), net.weights()),
    "unbound": lambda net, b: sum(w * loss for w, loss in zip(net.weights(), net.errors(b).mean(0), strict=True)),
    "in a list": in_a_list,
    "over their sum": lambda net, b: (net.errors(b).mean(dim=0) * net.weights()).sum() / net.weights().sum(),
    "a sum over the samples": lambda net, b: (net.errors(b).sum(0) / len(b["x"]) * net.weights()).mean(),
    "a plain sum": lambda net, b: (net.errors(b).sum(0) * net.weights()).sum(),
    "learned": lambda net, b: (net.errors(b).mean(0) * (-net.log_weights).exp()).sum(),
    "pixels first": lambda net, b: (bce_of_pixels(net, b).mean(dim=(0, 2, 3)) * net.weights()).sum(),
    "pixels first, axes kept": lambda net, b: (
        (bce_of_pixels(net, b).sum((0, -2, -1), keepdim=True).flatten() * net.weights()).sum() / len(b["x"])
    ),
    "a map": lambda net, b: (bce_of_pixels(net, b).mean(0) * net.weights()[:, None, None]).mean(),
    "steps with a discount": lambda net, b: (
        net.rnn(b["series"])[0].square().sum(2).mean(0) * 0.9 ** torch.arange(7).double()
    ).sum(),
    "beside another term": with_a_class,
    "two of them": lambda net, b: net.errors(b).mean(0) @ net.weights() + net.errors(b).sqrt().mean(0) @ net.weights(),
}


@pytest.mark.parametrize("method", [InfoBatch(prune_ratio=0.5), EvolvedSampling(batch_ratio=0.5, anneal=0.0)], ids=repr)
@pytest.mark.parametrize("name", SERVED)
def test_outputs_that_are_weighed_after_the_mean_are_put_together_sample_by_sample(name: str, method: Any) -> None:
    torch.testing.assert_close(*fitted(SERVED[name], method), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_outputs", [1, 3, B, 2 * B, 2000])
def test_it_does_not_matter_how_many_outputs_there_are(n_outputs: int) -> None:
    method = EvolvedSampling(batch_ratio=0.5, anneal=0.0)
    torch.testing.assert_close(*fitted(SERVED["multiplied"], method, n_outputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["multiplied", "learned", "pixels first", "a plain sum", "beside another term"])
def test_weights_on_samples_weigh_their_gradients(name: str) -> None:
    step, module = SERVED[name], Net(SERVED[name]).double()
    batch, weights = doubled(torch.utils.data.default_collate(data()[:B])), torch.linspace(0.5, 2, B)
    on = lambda rows: lambda: step(module, {key: part[list(rows)] for key, part in batch.items()})  # noqa: E731
    capture = LossCapture(module)
    Witness(module, capture).hear(on, B, batch)
    each = torch.stack([on([row])() for row in range(B)]) * weights.double()
    parameters = list(module.parameters())
    by_hand = each.sum() if name == "a plain sum" else each.mean()
    expected = torch.autograd.grad(by_hand, parameters, allow_unused=True)
    for _ in range(3):  # the first is probed
        loss, _ = capture.run(on(range(B)), B, weights)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for one, other in zip(found, expected, strict=True):
            assert (one is None) == (other is None)
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_watching_alone_changes_nothing() -> None:
    plain, watched = Net(with_a_class, lr=0.1), Net(with_a_class, lr=0.1)
    trained(plain, None, epochs=2)
    trained(watched, RandomPruning(prune_ratio=0), epochs=2)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


# ---- what no sample has a share of its own in ------------------------------------------------------------------------


def of_those_labelled(net: Any, b: Any) -> Tensor:
    """Each output's mean is over as many samples as have it labelled."""
    errors = net.errors(b) * b["labelled"]
    return (errors.sum(0) / b["labelled"].sum(0).clamp(min=1) * net.weights()).sum()


def balanced(net: Any, b: Any) -> Tensor:
    means = net.errors(b).mean(0)
    return (means / means.detach()).sum()


QUOTIENT = "not a weighted sum of means or sums over the batch, but a quotient"


def dice(net: Any, b: Any) -> Tensor:
    shares, truth = net.conv(b["image"]).sigmoid(), (b["image"] > 0).double()
    both, all_ = (shares * truth).sum((0, 2, 3)), (shares + truth).sum((0, 2, 3))
    return (1 - 2 * both / all_).mean()


REFUSED: dict[str, tuple[Step, str]] = {
    "counted for each output": (of_those_labelled, "by a number that is not a sum over the samples"),
    "balanced": (balanced, "by a number that is not a sum over the samples"),
    "roots": (lambda net, b: net.errors(b).mean(0).sqrt().sum(), QUOTIENT),
    "dice of the batch": (dice, QUOTIENT),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sum_over_the_samples_is_refused(name: str) -> None:
    step, why = REFUSED[name]
    with pytest.raises(CaptureError, match=why):
        fitted(step)


def test_without_single_samples_to_show_it_the_reason_says_how_to_write_it() -> None:
    module = Net(SERVED["multiplied"]).double()
    batch = doubled(torch.utils.data.default_collate(data()[:B]))
    with pytest.raises(CaptureError, match=r"\(errors \* weights\)\.sum\(1\)\.mean\(\) in place of"):
        LossCapture(module).run(lambda: module.training_step(batch), B)


def test_outputs_that_weigh_alike_by_chance_are_noticed_once_they_do_not() -> None:
    """As where all samples of the first batches go to one expert, and its share is counted in the batch."""

    def step(net: Any, b: Any) -> Tensor:
        gates = net.log_weights * torch.where(b["late"] > 11.3, -1, 1)[:, None] + 0.1 * net.errors(b).tanh()
        gates = gates.softmax(1)
        chosen = F.one_hot(gates.argmax(1), K).double().mean(0)
        return net.errors(b).mean() + (chosen / chosen.max() * gates.mean(0)).sum()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        losses, _ = fitted(step)
        _, right = fitted(lambda net, b: net.errors(b).mean())
    words = " ".join(str(warning.message) for warning in said)
    assert "the per-sample losses are made of that" in words and "measured before are forgotten" in words
    known = losses.isfinite()
    assert not known[: 3 * B].any() and known[-3:].all()
    torch.testing.assert_close(losses[known], right[known], rtol=1e-4, atol=1e-5)


def test_outputs_that_come_to_weigh_otherwise_beside_each_other_are_doubted() -> None:
    doubts, key = Doubts(), (("f", "", 0, "mean"), 0)
    for weights, found in (([1.0, 0.5], set()), ([1.0, 0.5], set()), ([1.0, 0.25], {key}), ([1.0, 0.25], set())):
        doubts.direction(key, torch.tensor(weights))
        assert doubts.read() == found
