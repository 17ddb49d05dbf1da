"""Per-sample losses that the user specifies: a key of the step's output, a callable, or the batch loss itself."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_dataselect.utils.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    MissingOutputError,
    UnreadableStepError,
    UnsupportedStepError,
)

SampleLoss = Literal["auto", "batch"] | str | Callable[[Any], Tensor]
"""The source of per-sample losses.

``"auto"`` captures them from the loss functions that the step calls. A callable is called with the step's output; it
may be given as its import path, such as ``"my_package.losses_of"``. Any other string is a key of the dict that the step
returns.

``"batch"`` gives every sample a running mean of its batches' loss, the score of Zhou et al., CVPR 2026
(arXiv:2604.04681): ``s = a s + (1 - a) L`` for each sample of a batch with the loss L. Their code starts from 0, with a
= 0.9; this one starts from the first batch's loss, with a = 0.5, which forgets that start within the few epochs of a
short fit. Weights multiply the batch's loss by their mean, as in their code.
"""

_BATCH_MEMORY = 0.5


def check_sample_loss(given: object) -> SampleLoss:
    """Check the user's ``sample_loss``, and resolve an import path.

    Raises:
        TypeError: If it is neither a string nor callable, or does not take just the step's output.
        ValueError: If an import path does not lead to a callable.

    Example:
        >>> check_sample_loss("per_sample"), check_sample_loss("operator.neg")(1)
        ('per_sample', -1)
    """
    if callable(given):
        return _takes_the_output(given)
    if not isinstance(given, str):
        raise ArgumentTypeError(
            f"sample_loss={given!r} must be 'auto', 'batch', a key of the step's output, a callable or its import path."
        )
    parts = given.split(".")
    if len(parts) == 1 or not all(map(str.isidentifier, parts)):
        return given
    try:
        found = pkgutil.resolve_name(given)
    except (ImportError, AttributeError) as error:
        raise InvalidArgumentError(
            f"sample_loss={given!r} cannot be imported: {error}. Give the import path of a callable, or a key of the"
            " step's output, which has no dot."
        ) from None
    if not callable(found):
        raise InvalidArgumentError(
            f"sample_loss={given!r} is {found!r}, which cannot be called: give the path of a callable."
        )
    return _takes_the_output(found)


def _takes_the_output(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have no signature
        return function
    try:
        signature.bind("what the step returned")
    except TypeError:
        raise ArgumentTypeError(
            f"sample_loss={function!r} takes {signature}, but is called with one argument: what training_step returned."
            " Let the step return all that it needs, in a dict next to 'loss'."
        ) from None
    return function


def step_loss(output: Any) -> Tensor | None:
    """Return the loss in what a training step returned: the tensor itself, or the value under ``"loss"``."""
    loss = output.get("loss") if isinstance(output, Mapping) else output
    return loss if isinstance(loss, Tensor) else None


def read_sample_loss(source: str | Callable[[Any], Tensor], output: Any, previous: Tensor) -> Tensor:
    """Read the per-sample losses that the user specified, (B,), with their graph.

    Args:
        source: Key, callable or ``"batch"``.
        output: What the training step returned.
        previous: float32 (B,), the last losses of these samples; NaN if there are none.

    Raises:
        KeyError: If the step's output lacks the key.
        TypeError: If the value is not a tensor.
        ValueError: If it is not of shape (B,).
    """
    n = previous.numel()
    if source == "batch":
        loss = step_loss(output)
        if loss is None:
            raise UnsupportedStepError('sample_loss="batch" needs a training_step that returns its loss.')
        now = loss.detach().float().expand(n)
        return torch.where(previous.isnan(), now, _BATCH_MEMORY * previous + (1 - _BATCH_MEMORY) * now)
    if callable(source):
        name, value = "The result of the callable given as sample_loss", source(output)
    else:
        found = sorted(map(str, output)) if isinstance(output, Mapping) else type(output).__name__
        if not isinstance(output, Mapping) or source not in output:
            raise MissingOutputError(
                f"sample_loss={source!r}: training_step returned {found}. Return a dict with the keys 'loss' and"
                f" {source!r}, the latter a tensor of {n} per-sample losses."
            )
        name, value = f"training_step's output[{source!r}]", output[source]
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(
            f"{name} is of the type {type(value).__name__}: a tensor of {n} per-sample losses is needed."
        )
    if value.shape != (n,):
        raise InvalidArgumentError(
            f"{name} has the shape {tuple(value.shape)}, but the batch has {n} samples: a tensor of shape ({n},) is"
            " needed, one loss a sample."
        )
    return value


def weighable(source: str | Callable[[Any], Tensor], output: Any, losses: Tensor) -> Tensor:
    """Return what weights multiply: the losses that were read or, for ``"batch"``, the batch's loss for each sample.

    Args:
        source: Key, callable or ``"batch"``.
        output: What the step returned.
        losses: (B,), as returned by `read_sample_loss`.

    Example:
        >>> weighable("batch", {"loss": torch.tensor(2.0)}, torch.tensor([1.0, 3.0]))
        tensor([2., 2.])
    """
    loss = step_loss(output)
    return losses if source != "batch" or loss is None else loss.expand(losses.shape)


def reweighted(output: Any, losses: Tensor, weights: Tensor, *, keeps_value: bool = True) -> Any:
    """Return the step's output, with the gradient of its loss as if sample i had the weight ``weights[i]`` in the mean.

    Args:
        output: What the step returned: a loss, or a dict with one under ``"loss"``.
        losses: (B,), with their graph.
        weights: float32 (B,).
        keeps_value: True to keep the unweighted value of the loss, which callbacks are to see.

    Raises:
        ValueError: If the losses have no graph, so that weights cannot affect the gradient.
    """
    loss = step_loss(output)
    if loss is None or not losses.requires_grad:
        raise UnreadableStepError(
            "This method weighs samples in the loss, but the per-sample losses it was given carry no gradient. Return"
            ' them without .detach(), next to a "loss" that is their mean, or use sample_loss="auto".'
        )
    change = ((weights - 1) * losses).mean()
    weighted = loss + change - change.detach() if keeps_value else loss + change
    return {**output, "loss": weighted} if isinstance(output, Mapping) else weighted
