"""Fits of whole LightningModules: what the selector writes down is what each sample alone loses in the same module."""

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import Hardest, dataset, fit, loader
from torch import Tensor, nn

N = 100


class Module(L.LightningModule):
    """A classifier that never learns, so that its losses at the end are those of every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(*batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class ByHand(Module):
    """Ends in a mean of its own."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        p = self.net(x).softmax(-1)
        return -(p.log() * F.one_hot(y, 3)).sum(1).mean()


class Binary(Module):
    """Several labels a sample."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.net(x), F.one_hot(y, 3).to(self.net(x).dtype))


class CompiledPart(Module):
    """A compiled submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="aot_eager")


class Gan(Module):
    """Two optimizers, each with a loss of its own, on disjoint parts of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(3, 1)
        self.automatic_optimization = False

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        fake, real = self.net(x), F.one_hot(y, 3).float()
        of_net = F.softplus(-self.critic(fake)).mean()
        of_critic = F.softplus(self.critic(fake.detach())).mean() + F.softplus(-self.critic(real)).mean()
        return of_net, of_critic

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return sum(self.losses(x, y))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer, loss in zip(self.optimizers(), self.losses(*batch), strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.0) for part in (self.net, self.critic)]


def alone(module: Module, as_trained: Callable[[], Any]) -> Tensor:
    """The loss of each sample as a batch of one, the way the Trainer runs the module."""
    with torch.no_grad(), as_trained():
        dtype = next(module.parameters()).dtype
        return torch.stack([module.loss(x[None].to(dtype), y[None]).float() for x, y in dataset()])


@pytest.mark.parametrize("make", [Module, ByHand, Binary, CompiledPart, Gan])
def test_losses_of_a_fit_are_those_of_batches_of_one(make: type[Module]) -> None:
    module, selector = make(), Hardest(warmup_epochs=2)
    expected = alone(module, torch.no_grad)
    fit(selector, module, loader(batch_size=12), max_epochs=2)
    torch.testing.assert_close(selector.losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [Module, ByHand, Binary])
@pytest.mark.parametrize(
    ("precision", "dtype", "as_trained", "tolerance"),
    [
        ("bf16-mixed", torch.float32, lambda: torch.autocast("cpu", torch.bfloat16), 2e-2),
        ("bf16-true", torch.bfloat16, torch.no_grad, 2e-2),
        ("16-true", torch.float16, torch.no_grad, 2e-3),
        ("64-true", torch.float64, torch.no_grad, 1e-5),
    ],
)
def test_losses_in_other_precisions(
    make: type[Module], precision: str, dtype: torch.dtype, as_trained: Callable[[], Any], tolerance: float
) -> None:
    module, selector = make(), Hardest(warmup_epochs=2)
    fit(selector, module, loader(batch_size=12), max_epochs=2, precision=precision)
    expected = alone(module.to(dtype), as_trained)
    torch.testing.assert_close(selector.losses, expected, rtol=tolerance, atol=tolerance)
    assert selector.losses.dtype == torch.float32


def test_a_compiled_lightning_module() -> None:
    module, selector = Module(), Hardest(warmup_epochs=2)
    expected = alone(module, torch.no_grad)
    fit(selector, torch.compile(module, backend="aot_eager"), loader(batch_size=12), max_epochs=2)
    torch.testing.assert_close(selector.losses, expected, rtol=1e-5, atol=1e-5)
