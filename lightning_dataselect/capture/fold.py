"""Element losses to one number: for the batch (reduce) and for each of its samples (fold)."""

from __future__ import annotations

import torch
from torch import Tensor

# Bound at import, so that a patched torch.sum never sees the captures' own arithmetic.
_sum = torch._C.TensorBase.sum
_mean = torch._C.TensorBase.mean


def foldable(shape: torch.Size, batch_size: int) -> bool:
    """Whether a leading axis of ``batch_size * k`` rows can be given back to the samples.

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
        batch_size: the number of samples.
        strided: the rows of one sample lie ``batch_size`` apart (time-major tokens, concatenated
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
        units: the shape of ``elements``: what a mean divides by the sum of (target weights, the
            mask of what is not ignored); None: the number of elements.
        is_sum: a sum, no mean.
        weights: (batch_size,) float, a factor on each sample's share; the divisor keeps its value.
        strided: see `by_sample`.

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
    """Give each sample what a batch of it alone would have lost.

    Args:
        elements: (batch_size * k, ...) losses.
        units: as in `reduce`.
        batch_size: the number of samples.
        is_sum: a sum, no mean.
        strided: see `by_sample`.

    Returns:
        (batch_size,) float32, detached; 0 for a sample with nothing but ignored elements.

    Example:
        >>> fold(torch.tensor([1.0, 2.0, 5.0, 0.0]), torch.tensor([1, 1, 1, 0]), 2).tolist()
        [1.5, 5.0]
    """
    even = units is None or is_sum or units.dtype == torch.bool
    if even and elements.shape == (batch_size,):
        return elements.detach().float()  # one loss a sample, the usual case; 0 where ignored
    rows = by_sample(elements.detach(), batch_size, strided).float()
    if is_sum:
        return _sum(rows, 1)
    if units is None:
        return _mean(rows, 1)
    share = _sum(by_sample(units.detach(), batch_size, strided).float(), 1)
    return torch.where(share == 0, share, _sum(rows, 1) / share)
