"""Masks of samples, made and read a part at a time: torch would make an index of eight bytes a sample."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import IN_MEMORY, placement


def marked(n: int, test: Callable[[slice], Tensor], out: Tensor | None = None) -> Tensor:
    """Return the mask of ``n`` samples, bool (n,), of which ``test`` gives one part at a time.

    With ``out``, a mask as long, it is written there.

    Example:
        >>> losses = torch.tensor([0.5, 0.25, 0.75])
        >>> marked(3, lambda part: losses[part] > 0.3).tolist()
        [True, False, True]
    """
    mask = IN_MEMORY.empty((n,), torch.bool) if out is None else out
    for part in parts(n):
        mask[part] = test(part)
    return mask


def places(mask: Tensor) -> Tensor:
    """Return where ``mask``, bool (n,), is True, int64 (k,); NumPy takes a tenth of the time that torch does.

    Example:
        >>> places(torch.tensor([False, True, True])).tolist()
        [1, 2]
    """
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def positions(mask: Tensor) -> Tensor:
    """Return where ``mask``, bool (n,), is True, int64 (k,), sorted: :func:`places` of very many samples.

    Example:
        >>> positions(torch.tensor([False, True, True])).tolist()
        [1, 2]
    """
    found, used = placement().empty((int(mask.count_nonzero()),), torch.int64), 0
    for part in parts(len(mask)):
        here = places(mask[part])
        torch.add(here, part.start, out=found[used : used + len(here)])
        used += len(here)
    return found


def mask_of(n: int, indices: Tensor) -> Tensor:
    """Return the mask of ``n`` samples, bool (n,), that is True at ``indices``, of any whole numbers (k,).

    Example:
        >>> mask_of(3, torch.tensor([2, 0])).tolist()
        [True, False, True]
    """
    mask = IN_MEMORY.full((n,), False, torch.bool)
    for part in parts(len(indices)):
        mask.index_fill_(0, indices[part].long(), True)
    return mask


def spread(values: Tensor, mask: Tensor, otherwise: float = 0) -> Tensor:
    """Return the ``values``, in their order, where ``mask`` is True, and ``otherwise`` elsewhere: undo :func:`taken`.

    Args:
        values: Shape (k,), as many as the mask has True; bool if they say which candidates are chosen.
        mask: bool, shape (n,).
        otherwise: What stands at all other places.

    Returns:
        Shape (n,), of the dtype of the values; the values themselves where the mask is True everywhere.

    Example:
        >>> spread(torch.tensor([True, False]), torch.tensor([False, True, True])).tolist()
        [False, True, False]
    """
    if len(values) == len(mask):
        return values
    place = IN_MEMORY if values.dtype == torch.bool else placement()
    found, used = place.full(mask.shape, otherwise, values.dtype), 0
    for part in parts(len(mask)):
        here = places(mask[part])
        found[part].index_copy_(0, here, values[used : used + len(here)])
        used += len(here)
    return found


def taken(values: Tensor, mask: Tensor) -> Tensor:
    """Return the ``values``, shape (n,), where ``mask``, bool (n,), is True, in their order.

    Example:
        >>> taken(torch.tensor([0.5, 0.25, 0.75]), torch.tensor([True, False, True])).tolist()
        [0.5, 0.75]
    """
    place = IN_MEMORY if values.dtype == torch.bool else placement()
    found, used = place.empty((int(mask.count_nonzero()),), values.dtype), 0
    for part in parts(len(mask)):
        here = places(mask[part])
        torch.index_select(values[part], 0, here, out=found[used : used + len(here)])
        used += len(here)
    return found
