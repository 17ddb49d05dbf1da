"""What a model put out for each sample, as the functions that make its loss are given it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.fold import by_sample, foldable
from lightning_dataselect.capture.terms import Key

Call = tuple[Key | None, str, dict[str, Any]]  # its term (None where unreduced), the function, its arguments

_OF_CLASSES = {"cross_entropy", "nll_loss", "multi_margin_loss"}  # their second axis is that of the classes
_NO_OUTPUTS = {"linear_cross_entropy"}  # given the features before the last layer


def _softmax(values: Tensor) -> Tensor:
    return values.softmax(-1)


def _as_is(values: Tensor) -> Tensor:
    return values


_PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": _softmax,
    "multi_margin_loss": _softmax,
    "nll_loss": torch.exp,
    "binary_cross_entropy": _as_is,
    "binary_cross_entropy_with_logits": torch.sigmoid,
    "multilabel_soft_margin_loss": torch.sigmoid,
    "soft_margin_loss": torch.sigmoid,
}


@dataclass(frozen=True)
class Outputs:
    """What the model put out for the samples of a batch.

    Attributes:
        values: (B, T, C), without a graph: T vectors a sample, such as one a token; else T = 1.
        valid: bool (B, T), False for tokens that the loss ignores; None where all count.
        probabilities: turns values into probabilities; None where they are no classes' scores.
    """

    values: Tensor
    valid: Tensor | None = None
    probabilities: Callable[[Tensor], Tensor] | None = None


def shows_outputs(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call of the loss function ``name`` is given the model's outputs.

    Example:
        >>> shows_outputs("mse_loss", {"input": torch.zeros(2)}), shows_outputs("triplet_margin_loss", {"anchor": 1})
        (True, False)
    """
    return "input" in arguments and name not in _NO_OUTPUTS


def find_outputs(
    calls: Sequence[Call], keys: Iterable[Key], batch_size: int, strided: Container[Key] = ()
) -> Outputs | None:
    """The outputs that belong to the first of ``keys`` that shows some, or else to an unreduced loss.

    Args:
        calls: of the loss functions in a step.
        keys: the terms of its loss, the most important first.
        batch_size: the number of samples, B.
        strided: the terms whose rows lie strided (see `fold.by_sample`).
    """
    for wanted in (*keys, None):
        for key, name, arguments in calls:
            if key == wanted and shows_outputs(name, arguments):
                outputs = of_call(name, arguments, batch_size, key in strided)
                if outputs is not None:
                    return outputs
    return None


def of_call(name: str, arguments: Mapping[str, Any], batch_size: int, strided: bool = False) -> Outputs | None:
    """Lay the outputs that a loss function was given out by sample; None if they are no multiple of the samples.

    Example:
        >>> arguments = {"input": torch.zeros(6, 5), "target": torch.tensor([1, 2, -100] * 2)}
        >>> outputs = of_call("cross_entropy", arguments, batch_size=2)
        >>> outputs.values.shape, outputs.valid.tolist()
        (torch.Size([2, 3, 5]), [[True, True, False], [True, True, False]])
    """
    of_classes, values = name in _OF_CLASSES, arguments["input"].detach()
    if values.dim() == 0 or (values.dim() == 1 and of_classes):
        values = values.reshape(1, -1)
    if not foldable(values.shape, batch_size):
        return None
    if of_classes:
        values = values.movedim(1, -1)
    width = values.shape[-1] if values.dim() > 1 else 1
    rows = by_sample(values, batch_size, strided).unflatten(1, (-1, width))
    targets = arguments.get("target")
    valid = None
    if of_classes and rows.shape[1] > 1 and targets is not None and not targets.is_floating_point():
        ignored = arguments.get("ignore_index", -100)
        valid = by_sample(targets, batch_size, strided) != (-100 if ignored is None else ignored)
    return Outputs(rows, valid, _PROBABILITIES.get(name))
