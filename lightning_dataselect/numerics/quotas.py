"""Budgets for groups of different sizes: in proportion to weights, none above its size, exact in number."""

import torch
from torch import Tensor


def quotas(weights: Tensor, sizes: Tensor, k: int) -> Tensor:
    """Share ``k`` in proportion to ``weights``; what a group cannot take goes to the others, in proportion again.

    Fractions are rounded by largest remainder.

    Args:
        weights: float64 (g,), not negative.
        sizes: int64 (g,).
        k: Number to share, at most the sum of the sizes.

    Returns:
        int64 (g,), none above its size, ``k`` in all.

    Example:
        >>> quotas(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([4, 10, 10]), 10)
        tensor([4, 3, 3])
    """
    shares, is_full = torch.zeros(len(sizes), dtype=torch.float64), sizes == 0
    while not bool(is_full.all()):
        left = k - int(sizes[is_full].sum())
        # where the others weigh nothing, they share by their sizes
        open_weights = torch.where(is_full, 0.0, weights.double())
        open_weights = open_weights if float(open_weights.sum()) > 0 else torch.where(is_full, 0.0, sizes.double())
        shares = torch.where(is_full, sizes.double(), left * open_weights / open_weights.sum())
        filled = ~is_full & (shares >= sizes)
        if not bool(filled.any()):
            break
        is_full |= filled
    shares = torch.where(is_full, sizes.double(), shares)
    whole = shares.floor().long()
    missing = k - int(whole.sum())
    remainder = torch.where(whole < sizes, shares - whole, -1.0)
    whole[remainder.sort(descending=True, stable=True).indices[:missing]] += 1
    return whole
