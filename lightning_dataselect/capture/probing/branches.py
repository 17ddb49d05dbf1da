"""Tell which questions of a step are about its loss, or about a bound, as in ``if loss > bound``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.probing.orders import COMPARING, SORTING
from lightning_dataselect.capture.recording.picks import tensors_among

_RANKING = SORTING | {"kthvalue", "quantile", "nanquantile", "median", "nanmedian"}
_EXTREME = {"max", "min", "amax", "amin"}
_DETACHING = {"detach", "__get__", "clone", "float", "cpu"}
_COUNTING = {"sum", "mean", "count_nonzero"}
_JOINING = {"all", "any"}


class Branches:
    """Follow the numbers that a loss is made of to where Python may ask for them.

    Example:
        >>> losses, branches = torch.tensor([1.0, 3.0], requires_grad=True), Branches()
        >>> mean = losses.mean()
        >>> is_high = mean > 1
        >>> branches.note("__gt__", [mean, 1], is_high, {mean.grad_fn})
        >>> branches.asks_for_loss("__bool__", is_high, {mean.grad_fn})
        True
    """

    def __init__(self) -> None:
        # All hold the tensors, so that no id is reused.
        self._numbers: dict[int, Tensor] = {}
        self._comparisons: dict[int, Tensor] = {}
        self._orders: dict[int, Tensor] = {}  # what was ranked without a graph, as detached losses are
        self._ranked: set[Node] = set()  # what was ranked with one
        self._detached: dict[int, Tensor] = {}  # rows that had a graph before
        self._masks: dict[int, Tensor] = {}  # of the rows that are above a bound, or below one
        self._bounded: dict[int, Tensor] = {}  # how any other number compares with a bound

    def note(self, name: str, inputs: Sequence[Any], out: Any, terms: Collection[Node]) -> None:
        """Take a torch call into account.

        Args:
            name: Of the function.
            inputs: Its arguments.
            out: Its result.
            terms: The places in the graph of the means and sums so far.
        """
        if name in _RANKING or (name in _EXTREME and isinstance(out, Tensor) and out.numel() == 1):
            self._ranked.update(one.grad_fn for one in tensors_among([out]) if one.grad_fn is not None)
            self._orders.update((id(one), one) for one in tensors_among([out]) if one.grad_fn is None)
        if not isinstance(out, Tensor) or out.requires_grad:
            return
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        if out.numel() != 1:
            rows = [value for value in tensors if value.requires_grad or id(value) in self._detached]
            if rows and name in _DETACHING:
                self._detached[id(out)] = out
            is_bounded = name in COMPARING and bool(rows)
            if is_bounded or (out.dtype == torch.bool and any(id(value) in self._masks for value in tensors)):
                self._masks[id(out)] = out
            return
        if name in COMPARING and all(value.is_floating_point() for value in tensors) and _has_bound(inputs):
            self._bounded[id(out)] = out
        numbers = [value for value in tensors if value.numel() == 1]
        of_loss = any(self._is_of_loss(value, terms) for value in numbers)
        is_of_masks = any(id(value) in self._masks for value in tensors)
        of_loss |= name in _COUNTING and is_of_masks
        is_comparison = (of_loss and name in COMPARING) or (name in _JOINING and is_of_masks)
        if is_comparison or any(id(value) in self._comparisons for value in numbers):
            self._comparisons[id(out)] = out
        elif of_loss or any(id(value) in self._orders for value in tensors):
            self._numbers[id(out)] = out

    def asks_for_loss(self, name: str, value: Any, terms: Collection[Node]) -> bool:
        """Tell if a call asks for a number of the loss, or for how one compares.

        Args:
            name: Of the function.
            value: The tensor that it asks.
            terms: See `note`.
        """
        if not isinstance(value, Tensor):
            return False
        return id(value) in self._comparisons if name == "__bool__" else self._is_of_loss(value, terms)

    def asks_for_bound(self, value: Any) -> bool:
        """Tell if a call asks how a number compares with a bound, whatever it is made of."""
        return id(value) in self._bounded

    def _is_of_loss(self, value: Tensor, terms: Collection[Node]) -> bool:
        return id(value) in self._numbers or bool(reached(value.grad_fn, self._ranked.union(terms)))


def _has_bound(values: Sequence[Any]) -> bool:
    """Tell if a comparison is one with a number other than 0 and 1, by which steps guard a division.

    Example:
        >>> _has_bound([torch.ones(()), 2.5]), _has_bound([torch.ones(()), 1])
        (True, False)
    """
    return any(isinstance(value, int | float) and value not in (0, 1) for value in values)
