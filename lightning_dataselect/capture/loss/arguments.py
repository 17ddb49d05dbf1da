"""Refuse arguments of the wrong kind, given by a loop of the user's own."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from lightning_dataselect.utils.arguments import short_text
from lightning_dataselect.utils.errors import ArgumentTypeError, DataSelectError, InvalidArgumentError


def check_module(module: object) -> nn.Module | None:
    """Return a module, or None.

    Raises:
        ArgumentTypeError: If it is neither.
    """
    if module is not None and not isinstance(module, nn.Module):
        raise ArgumentTypeError(
            f"LossCapture({short_text(module)}) was not given a module: give the torch.nn.Module that the step calls,"
            " or nothing."
        )
    return module


def check_step(step: object) -> None:
    """Refuse a step that cannot be called.

    Raises:
        ArgumentTypeError: If that is so.
    """
    if not callable(step):
        raise ArgumentTypeError(
            f"step={short_text(step)} cannot be called: give a function without arguments that computes the loss of a"
            " batch, such as lambda: loss_of(x, y)."
        )


def wrong_weights(weights: object, batch_size: int) -> DataSelectError:
    """Return the error that says how weights differ from one for each sample."""
    if not isinstance(weights, Tensor):
        return ArgumentTypeError(
            f"weights={short_text(weights)} is not a tensor: give torch.as_tensor(weights), on the loss's device."
        )
    return InvalidArgumentError(
        f"weights has the shape {tuple(weights.shape)}: give one weight for each of the batch's {batch_size} samples,"
        f" of shape ({batch_size},)."
    )


def names_of_arguments(function: object) -> tuple[str, ...]:
    """Return the names of the arguments of a loss function.

    Raises:
        ArgumentTypeError: If it is no function, or does not tell.
    """
    said = f"register_loss({short_text(function)}): give the function itself that the step calls"
    if isinstance(function, str):
        raise ArgumentTypeError(f"{said}, not its name: register_loss({function.rpartition('.')[2]}).")
    if not (callable(function) and hasattr(function, "__name__")):
        kind = function if isinstance(function, type) else type(function)
        raise ArgumentTypeError(
            f"{said}, with an argument 'reduction' such as those of torch.nn.functional, not an object of the class"
            f" {kind.__name__}: of a module, wrap what its forward() calls in a function."
        )
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"register_loss({short_text(function)}) needs a Python function with named arguments. Wrap it in one:"
            " def my_loss(input, target, reduction='mean')."
        ) from None
