"""Notice where a step asks for the value of its loss to decide which way it takes, as in ``if loss > bound``."""

from __future__ import annotations

import sys
from collections.abc import Collection, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.probing.orders import COMPARING, SORTING
from lightning_dataselect.capture.recording.interception import site
from lightning_dataselect.capture.recording.picks import tensors_among

_RANKING = SORTING | {"kthvalue", "quantile", "nanquantile", "median", "nanmedian"}
_EXTREME = {"max", "min", "amax", "amin"}
_DETACHING = {"detach", "__get__", "clone", "float", "cpu"}
_COUNTING = {"sum", "mean", "count_nonzero"}


class Branches:
    """Follow the numbers that a loss is made of to where they are compared, and what follows from that.

    Attributes:
        taken: The places where Python has asked a number of the loss which way to go, with the answers.
        asked: Likewise, the places where it has asked any other tensor.
        left: The places where the step has taken a number of the loss out of torch, in order.
        watches_floats: True if numbers that the step takes out of torch are followed as well.

    Example:
        >>> losses, branches = torch.tensor([1.0, 3.0], requires_grad=True), Branches()
        >>> mean = losses.mean()
        >>> is_high = mean > 1
        >>> branches.note("__gt__", [mean, 1], is_high, {mean.grad_fn})
        >>> branches.answer("__bool__", [is_high], True, ("step.py", "step", 7, "__bool__"), {mean.grad_fn})
        True
        >>> branches.taken
        {('step.py', 'step', 7): [True]}
    """

    def __init__(self) -> None:
        self.taken: dict[Hashable, list[bool]] = {}
        self.asked: dict[Hashable, list[bool]] = {}
        self.left: dict[Hashable, None] = {}
        self.watches_floats = False
        # All hold the tensors, so that no id is reused.
        self._numbers: dict[int, Tensor] = {}
        self._comparisons: dict[int, Tensor] = {}
        self._orders: dict[int, Tensor] = {}  # what was ranked without a graph, as detached losses are
        self._ranked: set[Node] = set()  # what was ranked with one
        self._detached: dict[int, Tensor] = {}  # rows that had a graph before
        self._masks: dict[int, Tensor] = {}  # of the rows that are above a bound, or below one

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
        numbers = [value for value in tensors if value.numel() == 1]
        of_loss = any(self._is_of_loss(value, terms) for value in numbers)
        of_loss |= name in _COUNTING and any(id(value) in self._masks for value in tensors)
        if any(id(value) in self._comparisons for value in numbers) or (of_loss and name in COMPARING):
            self._comparisons[id(out)] = out
        elif of_loss or any(id(value) in self._orders for value in tensors):
            self._numbers[id(out)] = out

    def answer(self, name: str, inputs: Sequence[Any], out: Any, where: Any, terms: Collection[Node]) -> Any:
        """Note what a call tells Python, and return what it is told.

        Args:
            name: Of the function.
            inputs: Its arguments.
            out: Its result.
            where: Its place (see `interception.site`).
            terms: See `note`.
        """
        if name == "__bool__" and id(inputs[0]) in self._comparisons:
            self.take(where, out)
        elif name == "__bool__":
            self.asked.setdefault(where[:3], []).append(out)
        elif self._is_of_loss(inputs[0], terms):
            self.left[where[:3]] = None
            if name == "item" and self.watches_floats and type(out) is float:
                return LossNumber(out, self)
        return out

    def take(self, where: Any, answer: bool) -> None:
        """Note the answer that a place has got."""
        self.taken.setdefault(where[:3], []).append(answer)

    def _is_of_loss(self, value: Tensor, terms: Collection[Node]) -> bool:
        return id(value) in self._numbers or bool(reached(value.grad_fn, self._ranked.union(terms)))


class LossNumber(float):
    """A float that tells where it is compared.

    Example:
        >>> branches = Branches()
        >>> LossNumber(2.0, branches) > 1, list(branches.taken.values())
        (True, [[True]])
        >>> import copy
        >>> type(copy.copy(LossNumber(2.0, branches)))
        <class 'float'>
    """

    _branches: Branches

    def __new__(cls, value: float, branches: Branches) -> LossNumber:
        """Return a number like any other."""
        number = super().__new__(cls, value)
        number._branches = branches
        return number

    def __add__(self, other: Any) -> Any:
        """Return a number of the loss as well, as all arithmetic does."""
        return self._followed(super().__add__(other))

    def __sub__(self, other: Any) -> Any:
        """See `__add__`."""
        return self._followed(super().__sub__(other))

    def __mul__(self, other: Any) -> Any:
        """See `__add__`."""
        return self._followed(super().__mul__(other))

    def __truediv__(self, other: Any) -> Any:
        """See `__add__`."""
        return self._followed(super().__truediv__(other))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Any:
        """See `__add__`."""
        return self._followed(super().__rsub__(other))

    def __abs__(self) -> Any:
        """See `__add__`."""
        return self._followed(super().__abs__())

    def _followed(self, number: Any) -> Any:
        return number if number is NotImplemented else LossNumber(number, self._branches)

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """Copy and pickle as a plain number."""
        return float, (float(self),)

    def __lt__(self, other: Any) -> bool:
        """Compare, and note the answer."""
        return self._noted(super().__lt__(other))

    def __le__(self, other: Any) -> bool:
        """Compare, and note the answer."""
        return self._noted(super().__le__(other))

    def __gt__(self, other: Any) -> bool:
        """Compare, and note the answer."""
        return self._noted(super().__gt__(other))

    def __ge__(self, other: Any) -> bool:
        """Compare, and note the answer."""
        return self._noted(super().__ge__(other))

    def _noted(self, answer: Any) -> Any:
        if answer is not NotImplemented:
            self._branches.take(site(sys._getframe(2), torch.Tensor.item), answer)
        return answer
