"""The best k-means of numbers on a line, for as many of them as there are."""

from __future__ import annotations

import torch
from torch import Tensor

_CUTS = 512
_CHUNK = 1 << 20  # values
_BLOCK = 64  # limits


def group_limits(ordered: Tensor, n_groups: int) -> Tensor:
    """Return the limits between the groups of the best one-dimensional k-means.

    Groups of least squared distance are stretches of the sorted values, so the best cuts follow by
    dynamic programming. Up to 512 values, or so many different ones, every cut is tried; of more, 512
    at even ranks and 512 at even distances.

    Args:
        ordered: float32 (n,), finite, ascending.
        n_groups: Number of groups wanted; fewer come out where fewer values differ.

    Returns:
        float32 (G - 1,), ascending, for ``G <= n_groups`` groups: the highest value of each group but
        the last.

    Example:
        >>> group_limits(torch.tensor([0.0, 0.2, 5.0, 5.2]), 2)
        tensor([0.2000])
    """
    n = len(ordered)
    ranks = torch.linspace(0, n - 1, _CUTS, dtype=torch.float64).round().long()
    steps = torch.linspace(float(ordered[0]), float(ordered[-1]), _CUTS)
    starts = torch.searchsorted(ordered, torch.cat([ordered[ranks], steps])).unique()
    starts = starts[starts < n]
    sizes = torch.cat([starts, starts.new_tensor([n])]).diff()
    sums = torch.stack([_sum(piece) for piece in ordered.split(sizes.tolist())])
    cuts = _best_cuts(sums, sizes, min(n_groups, len(starts)))
    return ordered[starts[cuts] - 1]


def _sum(values: Tensor) -> Tensor:
    # in chunks, or a float64 copy of all values would be made
    return torch.stack([chunk.sum(dtype=torch.float64) for chunk in values.split(_CHUNK)]).sum()


def _best_cuts(sums: Tensor, sizes: Tensor, n_groups: int) -> Tensor:
    """Cut a row of pieces into the groups whose means explain the most squares.

    Pieces have the total ``sums`` (M,) and ``sizes`` (M,); the cuts, int64 (n_groups - 1,), say with
    which piece each group but the first begins.
    """
    zero = sums.new_zeros(1)
    total, size = (torch.cat([zero, x.double().cumsum(0)]) for x in (sums, sizes))
    limits = torch.arange(len(total))

    def explained(ends: Tensor) -> Tensor:
        # [i, j] is that of the pieces i to ends[j] - 1 as one group
        squares = (total[ends] - total[:, None]).square_().div_(size[ends] - size[:, None])
        return squares.masked_fill_(limits[:, None] >= ends, -torch.inf)

    best, origins = torch.full_like(total, -torch.inf), []
    best[0] = 0.0
    for _ in range(n_groups):
        # a block at a time, or a square of eight megabytes would be made several times over
        found = [explained(ends).add_(best[:, None]).max(0) for ends in limits.split(_BLOCK)]
        best, origin = (torch.cat(each) for each in zip(*found, strict=True))
        origins.append(origin)
    cuts, end = [], len(sums)
    for origin in reversed(origins[1:]):
        end = int(origin[end])
        cuts.append(end)
    return torch.tensor(cuts[::-1], dtype=torch.int64)
