"""Choosing from many groups at once, each with a budget of its own: two passes that count in place of a sort."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_dataselect.numerics.radix import parts

_KEY_BITS = 31
_MOST_BITS = 16
_MOST_BUCKETS = 2**22


def top_of_groups(keys: Tensor, group: Callable[[slice], Tensor], budgets: Tensor) -> Tensor:
    """Mark the highest keys of each group, as many as its budget; of equal ones those that come first.

    Args:
        keys: int32 (n,), 0 or more.
        group: Gives the groups of one part of the samples, int64, see `radix.parts`.
        budgets: int64 (g,), none above the size of its group.

    Returns:
        bool (n,).

    Example:
        >>> keys, groups = torch.tensor([5, 7, 6, 1], dtype=torch.int32), torch.tensor([0, 0, 1, 1])
        >>> top_of_groups(keys, lambda part: groups[part], torch.tensor([1, 2])).tolist()
        [False, True, True, True]
    """
    n, n_groups = len(keys), len(budgets)
    room = max(min(_MOST_BUCKETS, n) // max(n_groups, 1), 1)
    bits = min(max(room.bit_length() - 1, 1), _MOST_BITS)
    shift = _KEY_BITS - bits

    counts = torch.zeros(n_groups << bits, dtype=torch.int64)
    for part in parts(n):
        counts += torch.bincount((group(part) << bits) | (keys[part] >> shift), minlength=len(counts))
    from_top = counts.view(n_groups, -1).flip(1).cumsum(1)
    # counted from the top: the bucket in which a budget runs out, and how much of it is left for that one
    last = torch.searchsorted(from_top, budgets[:, None])
    before = torch.where(last > 0, from_top.gather(1, (last - 1).clamp(min=0)), 0)
    limit, left = (2**bits - 1 - last).squeeze(1).int(), budgets - before.squeeze(1)

    chosen, edge = torch.empty(n, dtype=torch.bool), []
    for part in parts(n):
        groups = group(part)
        above = (keys[part] >> shift) - limit[groups]
        torch.gt(above, 0, out=chosen[part])
        places = (above == 0).nonzero().squeeze(1)
        edge.append(
            ((groups[places] << _KEY_BITS) | (2**_KEY_BITS - 1 - keys[part][places].long()), places + part.start)
        )
    ordered = torch.cat([key for key, _ in edge]).sort(stable=True)
    group_of_edge = ordered.values >> _KEY_BITS
    sizes = torch.bincount(group_of_edge, minlength=n_groups)
    place = torch.arange(len(group_of_edge)) - (sizes.cumsum(0) - sizes)[group_of_edge]
    chosen[torch.cat([places for _, places in edge])[ordered.indices[place < left[group_of_edge]]]] = True
    return chosen
