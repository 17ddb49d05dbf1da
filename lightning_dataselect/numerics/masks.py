"""Masks of samples, where torch would make an index of eight bytes a sample."""

import torch
from torch import Tensor

from lightning_dataselect.numerics.placement import placement
from lightning_dataselect.numerics.radix import parts


def spread(chosen: Tensor, candidates: Tensor) -> Tensor:
    """Return which samples were chosen, where ``chosen`` says it of the candidates alone.

    Args:
        chosen: bool, as long as there are candidates.
        candidates: bool, shape (n,).

    Returns:
        bool, shape (n,).

    Example:
        >>> spread(torch.tensor([True, False]), torch.tensor([False, True, True])).tolist()
        [False, True, False]
    """
    return torch.zeros_like(candidates).masked_scatter_(candidates, chosen)


def taken(values: Tensor, mask: Tensor) -> Tensor:
    """Return the ``values``, shape (n,), where ``mask``, bool (n,), is True, in their order.

    Example:
        >>> taken(torch.tensor([0.5, 0.25, 0.75]), torch.tensor([True, False, True])).tolist()
        [0.5, 0.75]
    """
    found, used = placement().empty((int(mask.count_nonzero()),), values.dtype), 0
    for part in parts(len(mask)):
        here = values[part][mask[part]]
        found[used : used + len(here)] = here
        used += len(here)
    return found
