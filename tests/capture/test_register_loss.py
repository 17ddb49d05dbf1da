"""A loss function from outside of torch, taught to capture in one line; capture without Lightning."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from lightning_dataselect.capture import CaptureError, LossCapture, register_loss
from lightning_dataselect.capture.loss.loss_functions import REGISTERED
from lightning_dataselect.utils.errors import ArgumentTypeError


def kernel(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A library's loss, whose mean no hook sees."""
    losses = torch.log1p(out.exp()).sub(out * y)
    return losses if reduction == "none" else losses.cumsum(0)[-1] / (len(y) if reduction == "mean" else 1)


@pytest.fixture
def taught():
    register_loss(kernel)
    yield kernel
    REGISTERED.pop(kernel)


def test_it_is_refused_before_and_read_after(taught) -> None:
    x, y, model = torch.randn(6, 3), torch.randint(2, (6,)).float(), nn.Linear(3, 1)
    expected = kernel(model(x).squeeze(1), y, "none").detach()
    for reduction, factor in (("mean", 1), ("sum", 1)):
        capture = LossCapture(model)
        for _ in range(3):
            loss, captured = capture.run(lambda r=reduction: kernel(model(x).squeeze(1), y, r), 6)
            torch.testing.assert_close(loss, kernel(model(x).squeeze(1), y, reduction))
            torch.testing.assert_close(captured.losses, factor * expected)
    REGISTERED.clear()
    with pytest.raises(CaptureError):
        LossCapture(model).run(lambda: kernel(model(x).squeeze(1), y), 6)
    register_loss(kernel)


def test_it_is_found_by_another_name_and_as_an_attribute(taught) -> None:
    x, y, model = torch.randn(6, 3), torch.randint(2, (6,)).float(), nn.Linear(3, 1)
    other = ModuleType("a_module_that_imported_it")
    other.criterion, sys.modules[other.__name__] = kernel, other
    model.loss = kernel
    try:
        for call in (lambda *given: other.criterion(*given), lambda *given: model.loss(*given)):
            _, captured = LossCapture(model).run(lambda call=call: call(model(x).squeeze(1), y), 6)
            torch.testing.assert_close(captured.losses, kernel(model(x).squeeze(1), y, "none").detach())
    finally:
        del sys.modules[other.__name__]
    assert model.loss is kernel


def test_a_function_without_a_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"register_loss\(no_reduction\) needs an argument 'reduction'"):
        register_loss(no_reduction)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "torch.ops.kernel",
            r"register_loss\('torch.ops.kernel'\): give the function itself .* register_loss\(kernel\)",
        ),
        (nn.MSELoss(), r"register_loss\(MSELoss\(\)\): give the function itself .* an object of the class MSELoss"),
        (3, "an object of the class int"),
    ],
)
def test_what_is_no_function_is_refused_with_what_to_give(given, words) -> None:
    with pytest.raises(ArgumentTypeError, match=words):
        register_loss(given)


def no_reduction(out: Tensor, y: Tensor) -> Tensor:
    return (out - y).square().mean()


def test_a_plain_loop_with_a_pruned_next_epoch() -> None:
    torch.manual_seed(0)
    x, y, model = torch.randn(64, 3), torch.randint(2, (64,)), nn.Linear(3, 2)
    # ---- what a user writes
    capture, losses = LossCapture(model), torch.full((64,), torch.nan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = torch.arange(64)
    for _ in range(3):
        for batch in kept[torch.randperm(len(kept))].split(16):
            loss, captured = capture.run(lambda b=batch: nn.functional.cross_entropy(model(x[b]), y[b]), len(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[batch] = captured.losses
        kept = losses.topk(32).indices
    # ----
    assert losses.isfinite().all() and len(kept) == 32


def test_a_fabric_loop_with_a_pruned_next_epoch() -> None:
    from lightning.fabric import Fabric
    from torch.utils.data import DataLoader, Subset, TensorDataset

    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64, 3), torch.randint(2, (64,)), torch.arange(64))
    # ---- what a user writes
    fabric = Fabric(accelerator="cpu", devices=1)
    net = nn.Linear(3, 2)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
    capture, losses, kept = LossCapture(net), torch.full((64,), torch.nan), range(64)
    for _ in range(3):
        for x, y, index in fabric.setup_dataloaders(DataLoader(Subset(data, kept), 16, shuffle=True)):
            step = lambda x=x, y=y: nn.functional.cross_entropy(model(x), y)  # noqa: E731
            loss, captured = capture.run(step, len(x))
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            losses[index] = captured.losses
        kept = losses.topk(32).indices.tolist()
    # ----
    assert losses.isfinite().all() and len(kept) == 32
