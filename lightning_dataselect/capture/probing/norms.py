"""Find sums over a batch that are made by norms, as where a norm is squared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_NORMS = {torch.norm, torch.Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm}
_OF_ENTRIES = {torch.norm, torch.Tensor.norm, torch.linalg.vector_norm}
_POWERS = {torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, torch.float_power, torch.Tensor.float_power}
_SQUARES = {torch.square, torch.Tensor.square}
_PRODUCTS = {torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.multiply, torch.Tensor.__mul__}


class Norms:
    """Follow the norms of all that a batch holds to where they are squared, which makes sums of squares of them.

    Example:
        >>> errors, norms = torch.tensor([1.0, 2.0]), Norms()
        >>> norm = errors.norm()
        >>> norms.note(torch.Tensor.norm, (errors,), {}, norm)
        >>> norms.squared(torch.Tensor.__pow__, (norm, 2), {}).tolist()
        [1.0, 4.0]
        >>> norms.squared(torch.Tensor.__pow__, (norm, 3), {})
    """

    def __init__(self) -> None:
        self._given: dict[int, tuple[Tensor, Tensor]] = {}  # with the norms, so that no id is reused

    def note(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        """Take a torch call into account."""
        if _order_of_all(func, args, kwargs, out) == 2:
            self._given[id(out)] = out, _normed(args, kwargs)

    def summed(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> Tensor | None:
        """Return the sizes, or the squares, that a call has made the sum of; None if it has not."""
        if func in _NORMS:
            return _normed(args, kwargs).abs() if _order_of_all(func, args, kwargs, out) == 1 else None
        return self.squared(func, args, kwargs) if self._given else None

    def squared(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        """Return the squares that a call has made the sum of, if it has squared a norm; else None."""
        norm = args[0] if args else kwargs.get("input")
        if id(norm) not in self._given:
            return None
        other = args[1] if len(args) > 1 else kwargs.get("exponent", kwargs.get("other"))
        squares = func in _SQUARES or (func in _POWERS and other == 2) or (func in _PRODUCTS and other is norm)
        return self._given[id(norm)][1].square() if squares else None


def _normed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    given: Tensor = args[0] if args else next(kwargs[name] for name in ("input", "A", "x") if name in kwargs)
    return given


def _order_of_all(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """Return 1 or 2 for such a norm of all entries of a tensor; 0 for none, and for norms of a matrix as a whole.

    Example:
        >>> errors = torch.ones(2, 2)
        >>> [_order_of_all(norm, (errors, 2), {}, errors.sum()) for norm in (torch.norm, torch.linalg.norm)]
        [2, 0]
    """
    if func not in _NORMS or not isinstance(out, Tensor) or out.dim() > 0:
        return 0
    order = args[1] if len(args) > 1 else kwargs.get("p", kwargs.get("ord", "fro"))
    if order in (None, "fro"):
        return 2
    is_of_entries = func in _OF_ENTRIES or (func is torch.linalg.norm and _normed(args, kwargs).dim() == 1)
    return int(order) if is_of_entries and order in (1, 2) else 0
