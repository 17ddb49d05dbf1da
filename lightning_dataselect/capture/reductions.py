"""The functions that end a hand-written loss: means and sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _as_is(values: Tensor) -> Tensor:
    return values


def _none_left_out(values: Tensor) -> Tensor | None:
    return None


def _nan_as_zero(values: Tensor) -> Tensor:
    return torch.where(values.isnan(), 0, values)


def _numbers(values: Tensor) -> Tensor:
    return ~values.isnan()


def _nonzero(values: Tensor) -> Tensor:
    return values != 0


@dataclass(frozen=True)
class Reduction:
    """How one function reduces.

    Attributes:
        is_sum: a sum, no mean.
        elements: its argument -> what is added up.
        units: its argument -> what a mean divides by the sum of, or None (see `fold.reduce`).
    """

    is_sum: bool
    elements: Callable[[Tensor], Tensor] = _as_is
    units: Callable[[Tensor], Tensor | None] = _none_left_out


def ends(given: Tensor, value: Tensor) -> bool:
    """Whether a call has reduced all that it was given to one number, which may have kept its axis.

    Example:
        >>> losses = torch.ones(4)
        >>> ends(losses, losses.mean()), ends(losses, losses.mean(0, True)), ends(losses[None], losses[None].mean(1))
        (True, True, False)
    """
    return value.dim() == 0 or (value.dim() == given.dim() == 1 and value.numel() == 1)


_BY_NAME = {
    "mean": Reduction(False),
    "sum": Reduction(True),
    "nanmean": Reduction(False, _nan_as_zero, _numbers),
    "nansum": Reduction(True, _nan_as_zero),
    "count_nonzero": Reduction(True, _nonzero),
}
ENDINGS: dict[Any, Reduction] = {
    getattr(space, name): ending for name, ending in _BY_NAME.items() for space in (torch, torch._C.TensorBase)
}
