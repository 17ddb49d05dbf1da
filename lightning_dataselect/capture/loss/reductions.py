"""Reduce losses: the functions that end a loss, their value for the batch, and for each of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _only(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    only: Tensor = args[0] if args else kwargs["input"]
    return only


def _products(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    one, other = (*args, *(kwargs[name] for name in ("input", "other", "tensor") if name in kwargs))
    products: Tensor = one * other.reshape(one.shape)
    return products


def _summed_products(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return what an einsum adds up to one number, if it is products of corresponding elements, as in ``"bc,bc->"``."""
    equation, operands = args[0], args[1] if isinstance(args[1], list | tuple) else args[1:]
    inputs, _, output = str(equation).replace(" ", "").partition("->")
    names = inputs.split(",")
    if output or len(operands) != len(names) or len({*names}) > 1 or len({*names[0]}) < len(names[0]):
        return torch.zeros(())
    products: Tensor = operands[0]
    for operand in operands[1:]:
        products = products * operand
    return products


@dataclass(frozen=True)
class Reduction:
    """Describe how one function reduces.

    Attributes:
        is_sum: A sum, no mean.
        elements: What it is given -> what is added up.
        units: What it is given -> what a mean divides by the sum of, or None (see `reductions.reduce`).
        given: Arguments -> what it is given; of a dot product the products.
    """

    is_sum: bool
    elements: Callable[[Tensor], Tensor] = _as_is
    units: Callable[[Tensor], Tensor | None] = _none_left_out
    given: Callable[[tuple[Any, ...], Mapping[str, Any]], Tensor] = _only


def ends(args: tuple[Any, ...], kwargs: Mapping[str, Any], value: Tensor) -> bool:
    """Tell if a call has reduced its whole input to one number, which may have kept its axis.

    Example:
        >>> losses = torch.ones(4)
        >>> ends((losses,), {}, losses.mean()), ends((losses,), {}, losses.mean(0, True))
        (True, True)
        >>> ends((losses[None],), {}, losses[None].mean(1))
        False
    """
    if value.dim() == 0:
        return True
    given = args[0] if args else kwargs.get("input")
    return isinstance(given, Tensor) and (value.dim() == given.dim() == 1 and value.numel() == 1)


def axes_of_fold(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch_size: int) -> tuple[int, ...] | None:
    """Return the axes that a mean or a sum has reduced besides the first, the samples' axis, if it leaves any.

    Returns:
        The axes; None if it has not reduced the first one, or left none.

    Example:
        >>> losses = torch.ones(4, 3, 2)
        >>> [axes_of_fold((losses, axes), {}, 4) for axes in (0, (0, -1), 1)]
        [(), (2,), None]
    """
    given = _only(args, kwargs)
    if not isinstance(given, Tensor) or given.dim() < 2 or given.shape[0] != batch_size:
        return None
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    if not all(isinstance(axis, int) for axis in dims):
        return None
    axes = {axis % given.dim() for axis in dims}
    return tuple(sorted(axes - {0})) if 0 in axes and len(axes) < given.dim() else None


_BY_NAME = {
    "mean": Reduction(False),
    "sum": Reduction(True),
    "nanmean": Reduction(False, _nan_as_zero, _numbers),
    "nansum": Reduction(True, _nan_as_zero),
    "count_nonzero": Reduction(True, _nonzero),
    "dot": Reduction(True, given=_products),
    "inner": Reduction(True, given=_products),
    "matmul": Reduction(True, given=_products),
    "einsum": Reduction(True, given=_summed_products),
}


ENDINGS: dict[Any, Reduction] = {
    getattr(space, name): ending
    for name, ending in _BY_NAME.items()
    for space in (torch, torch._C.TensorBase)
    if hasattr(space, name)
}


FOLDING = {getattr(space, name) for name in ("mean", "sum") for space in (torch, torch._C.TensorBase)}
"""The functions that may reduce one axis after the other."""


# Bound at import, so that a patched torch.sum never sees the captures' own arithmetic.
_sum = torch._C.TensorBase.sum
_mean = torch._C.TensorBase.mean


def foldable(shape: torch.Size, batch_size: int) -> bool:
    """Tell if a leading axis of ``batch_size * k`` rows can be given back to the samples.

    Example:
        >>> foldable(torch.Size([8, 3]), 4), foldable(torch.Size([9]), 4)
        (True, False)
    """
    rows = shape[0] if len(shape) else 1
    return rows > 0 and batch_size > 0 and rows % batch_size == 0


def by_sample(elements: Tensor, batch_size: int, strided: bool = False) -> Tensor:
    """Lay element losses out as one row a sample.

    Args:
        elements: (batch_size * k, ...), or () of a batch of one.
        batch_size: The number of samples.
        strided: The rows of one sample lie ``batch_size`` apart (time-major tokens, concatenated
            views); otherwise they are neighbours.

    Returns:
        (batch_size, n), where n is the number of elements of a sample.

    Example:
        >>> by_sample(torch.arange(6), 3).tolist()
        [[0, 1], [2, 3], [4, 5]]
        >>> by_sample(torch.arange(6), 3, strided=True).tolist()
        [[0, 3], [1, 4], [2, 5]]
    """
    if strided:
        return elements.reshape(-1, batch_size, *elements.shape[1:]).transpose(0, 1).flatten(1)
    return elements.reshape(batch_size, -1)


def reduce(
    elements: Tensor,
    units: Tensor | None = None,
    *,
    is_sum: bool = False,
    weights: Tensor | None = None,
    strided: bool = False,
) -> Tensor:
    """Reduce element losses as torch's own loss functions do, each sample weighted.

    Args:
        elements: (batch_size * k, ...) losses.
        units: The shape of ``elements``: what a mean divides by the sum of (target weights, the
            mask of what is not ignored); None: the number of elements.
        is_sum: A sum, no mean.
        weights: (batch_size,) float, a factor on each sample's share; the divisor keeps its value.
        strided: See `by_sample`.

    Returns:
        0-dim, of the dtype of ``elements``.

    Example:
        >>> losses = torch.tensor([1.0, 2.0, 0.0])
        >>> reduce(losses, torch.tensor([True, True, False])).item()
        1.5
        >>> reduce(losses, weights=torch.tensor([2.0, 1.0, 1.0]), is_sum=True).item()
        4.0
    """
    dtype = elements.dtype
    # A sum of thousands of half-precision losses overflows, or loses its low digits.
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    count = elements.numel()
    if weights is not None and foldable(elements.shape, weights.shape[0]):
        elements = by_sample(elements, weights.shape[0], strided) * weights.to(wide).unsqueeze(1)
    elif units is None and not is_sum:
        return _mean(elements)
    total = _sum(elements, dtype=wide)
    if not is_sum:
        total = total / (count if units is None else _sum(units))
    return total.to(dtype)


def fold(
    elements: Tensor,
    units: Tensor | None,
    batch_size: int,
    *,
    is_sum: bool = False,
    strided: bool = False,
) -> Tensor:
    """Return for each sample the loss of a batch that contains it alone.

    Args:
        elements: (batch_size * k, ...) losses.
        units: As in `reduce`.
        batch_size: The number of samples.
        is_sum: A sum, no mean.
        strided: See `by_sample`.

    Returns:
        (batch_size,) float32, detached; 0 for a sample with nothing but ignored elements.

    Example:
        >>> fold(torch.tensor([1.0, 2.0, 5.0, 0.0]), torch.tensor([1, 1, 1, 0]), 2).tolist()
        [1.5, 5.0]
    """
    even = units is None or is_sum or units.dtype == torch.bool
    if elements.requires_grad:
        elements = elements.detach()
    if even and elements.shape == (batch_size,):
        return elements.float()  # one loss a sample, the usual case; 0 where ignored
    rows = by_sample(elements, batch_size, strided).float()
    if is_sum:
        return _sum(rows, 1)
    if units is None:
        return _mean(rows, 1)
    share = _sum(by_sample(units.detach(), batch_size, strided).float(), 1)
    return torch.where(share == 0, share, _sum(rows, 1) / share)
