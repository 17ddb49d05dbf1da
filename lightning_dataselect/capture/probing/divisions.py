"""Follow the numbers that are added up over a batch to what they divide."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lightning_dataselect.capture.loss.terms import Key

_DIVIDING = {"div", "div_", "divide", "divide_", "true_divide", "true_divide_"}
_INVERTING = {"reciprocal", "reciprocal_", "__rdiv__"}
_MULTIPLYING = {"mul", "mul_", "multiply", "multiply_"}
_SUBTRACTING = {"sub", "sub_", "subtract", "subtract_", "rsub", "__rsub__"}  # what is left is no multiple of the number
_TO_PYTHON = {"item", "tolist", "__int__", "__float__", "__index__"}


@dataclass(frozen=True)
class Division:
    """Describe one division of something that has a gradient.

    Attributes:
        edge: Where the quotient is in the graph.
        by: The number, or the sum or mean over the batch that it was made from.
        maybe: Sums and means over the batch that a Python number may have been made from, since they have its value.
    """

    edge: GradientEdge
    by: float | Key
    maybe: tuple[Key, ...] = ()


class Divisions:
    """Follow numbers that are added up over a batch, such as how many tokens it has, to where they divide.

    Example:
        >>> import torch
        >>> divisions, mask, losses = Divisions(), torch.tensor([1, 0, 1]), torch.ones(3, requires_grad=True)
        >>> n = mask.sum()
        >>> divisions.start(n, ("mask", 0))
        >>> mean = (losses * mask).sum() / n
        >>> divisions.note("div", [mean, n], mean)
        >>> divisions.made[0].by
        ('mask', 0)
    """

    def __init__(self) -> None:
        self.made: list[Division] = []
        # Both hold the tensors, so that no id is reused.
        self._of: dict[int, tuple[Tensor, Key]] = {}
        self._inverse: dict[int, tuple[Tensor, set[Key]]] = {}  # what was divided by such numbers
        self._numbers: dict[float, tuple[Key, ...]] = {}
        self._blurred: dict[int, Tensor] = {}  # made of several of such numbers, or in a way that hides the samples
        self._rows: dict[Hashable, list[float]] = {}  # how many were found in the batch, each time at a place

    def start(self, number: Tensor, key: Key) -> None:
        """Follow a number that was added up over the batch, with or without a graph."""
        self._of[id(number)] = number, key

    def blur(self, number: Tensor) -> None:
        """Follow a number of the batch of which nothing shows what each sample has in it."""
        self._blurred[id(number)] = number

    def count_rows(self, n: float, where: Hashable) -> None:
        """Take note of how many rows of the batch were found at a place, which no call counts."""
        self._rows.setdefault(where, []).append(n)

    def numbers(self) -> set[float]:
        """Return the numbers that something was divided by, or multiplied with their inverse."""
        return {division.by for division in self.made if isinstance(division.by, float)}

    def is_count(self, number: float) -> bool:
        """Tell if a number is one of what was found in the batch, at one place or another, or of all of it there.

        Example:
            >>> divisions = Divisions()
            >>> for n in (5, 3):
            ...     divisions.count_rows(n, "mask")
            >>> [divisions.is_count(n) for n in (3, 5, 8, 4)]
            [True, True, True, False]
        """
        return any(number in (*found, sum(found)) for found in self._rows.values())

    def note(self, name: str, inputs: Sequence[Any], out: Any) -> None:
        """Take a torch call into account: its name, its arguments and its result."""
        keys = {self._of[id(value)][1] for value in inputs if id(value) in self._of}
        is_blurred = any(id(value) in self._blurred for value in inputs)
        inverse = self._inverses(name, inputs)
        if name in _TO_PYTHON and isinstance(out, int | float):
            self._numbers[out] = (*self._numbers.get(out, ()), *keys)
            if keys:
                self.count_rows(out, next(iter(keys))[0])
        elif name in _TO_PYTHON and isinstance(out, list) and _are_numbers(out):
            self._rows[id(out)] = [float(number) for number in out]
        elif isinstance(out, Tensor) and out.grad_fn is not None:
            if name in _MULTIPLYING:
                edge, whole = get_gradient_edge(out), [n for n in map(_one_over, inputs) if n is not None]
                self.made += [Division(edge, key) for key in inverse]  # by weights that were divided before
                self.made += [Division(edge, n, self._numbers.get(n, ())) for n in whole]
            elif name in _DIVIDING and len(inputs) > 1 and (by := self._divisor(inputs[1])) is not None:
                maybe = self._numbers.get(by, ()) if isinstance(by, float) else ()
                self.made.append(Division(get_gradient_edge(out), by, maybe))
                inverse |= set() if isinstance(by, float) else {by}
            elif name in _INVERTING:
                inverse |= keys
            elif len(keys) == 1 and out.numel() == 1 and name not in _SUBTRACTING:
                self.start(out, keys.pop())
            if inverse:
                self._inverse[id(out)] = out, inverse
        elif isinstance(out, Tensor):
            divisor = inputs[1:2] if name in _DIVIDING else inputs[:1] if name in _INVERTING else ()
            if inverse or any(id(value) in self._of for value in divisor):
                self._inverse[id(out)] = out, inverse or keys
            elif len(keys) == 1 and out.numel() == 1 and name not in _SUBTRACTING and not is_blurred:
                self.start(out, keys.pop())
            elif out.numel() == 1 and (is_blurred or len(keys) > 1 or _is_largest(name, out)):
                self.blur(out)

    def _inverses(self, name: str, inputs: Sequence[Any]) -> set[Key]:
        """Return what the result of a call was divided by, if its inputs were; of a sum, by what all of these were."""
        each = [value for value in inputs if isinstance(value, Tensor) and value.is_floating_point()]
        found = [self._inverse[id(value)][1] if id(value) in self._inverse else set[Key]() for value in each]
        if name in _MULTIPLYING or name in _DIVIDING or name in _INVERTING:
            return set[Key]().union(*found)
        return set[Key]().union(*found[:1]).intersection(*found)

    def _divisor(self, value: Any) -> float | Key | None:
        if id(value) in self._of:
            return self._of[id(value)][1]
        if isinstance(value, Tensor):
            if value.numel() != 1 or value.requires_grad:
                return None
            if id(value) in self._blurred:
                self.count_rows(value.item(), id(value))
            value = value.item()
        return float(value) if isinstance(value, int | float | np.integer | np.floating) else None


def _is_largest(name: str, out: Tensor) -> bool:
    """Tell if a call returns the greatest of the lengths of a batch, say."""
    return name in ("max", "amax") and out.dtype in (torch.int32, torch.int64)


def _are_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _one_over(factor: Any) -> float | None:
    """Return the whole number whose reciprocal a factor is, if there is one.

    A factor of one or two digits is taken for a weight in the user's code, though it may be one over the batch size.

    Example:
        >>> [_one_over(factor) for factor in (1 / 64, -1 / 49, 0.01, 0.3, 2.0)]
        [64.0, 49.0, None, None, None]
    """
    if not isinstance(factor, float) or not 0 < abs(factor) < 1 or float(f"{factor:.2g}") == factor:
        return None
    over = abs(1 / factor)
    return float(round(over)) if math.isclose(over, round(over), rel_tol=1e-9) else None
