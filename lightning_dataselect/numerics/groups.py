"""Choosing from many groups at once, each with a budget of its own: two passes that count in place of a sort."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import places
from lightning_dataselect.numerics.parts import parts

_KEY_BITS = 31
_MOST_BITS = 16
_MOST_BUCKETS = 2**19  # which stay in the processor's cache


def top_of_groups(keys: Tensor, group: Callable[[slice], Tensor], budgets: Tensor) -> Tensor:
    """Mark the highest keys of each group, as many as its budget; of equal ones those that come first.

    Args:
        keys: int32 (n,), 0 or more.
        group: Gives the groups of one part of the samples, int64, see `parts`.
        budgets: int64 (g,), none above the size of its group.

    Returns:
        bool (n,).

    Example:
        >>> keys, groups = torch.tensor([5, 7, 6, 1], dtype=torch.int32), torch.tensor([0, 0, 1, 1])
        >>> top_of_groups(keys, lambda part: groups[part], torch.tensor([1, 2])).tolist()
        [False, True, True, True]
    """
    n, n_groups = len(keys), len(budgets)
    if n == 0:
        return torch.zeros(0, dtype=torch.bool)
    room = max(min(_MOST_BUCKETS, n) // max(n_groups, 1), 1)
    bits = min(max(room.bit_length() - 1, 1), _MOST_BITS)
    ranges = [keys[part].aminmax() for part in parts(n)]
    highest = max(int(each.max) for each in ranges)
    shift = max((highest - min(int(each.min) for each in ranges)).bit_length() - bits, 0)

    counts = torch.zeros(n_groups << bits, dtype=torch.int32 if n < 2**31 else torch.int64)
    one = counts.new_ones(1)
    for part in parts(n):
        buckets = group(part).bitwise_left_shift(bits).bitwise_or_((highest - keys[part]) >> shift)
        counts.index_add_(0, buckets, one.expand(len(buckets)))
    # buckets stand from the top: the one in which a budget runs out, and how much of it is left for that one
    from_top = counts.view(n_groups, -1).cumsum_(1)
    last = torch.searchsorted(from_top, budgets[:, None].to(counts.dtype))
    before = torch.where(last > 0, from_top.gather(1, (last - 1).clamp(min=0)), 0)
    limit, left = last.squeeze(1).int(), budgets - before.squeeze(1)

    chosen, edge = torch.empty(n, dtype=torch.bool), []
    for part in parts(n):
        groups = group(part)
        below = (highest - keys[part]).bitwise_right_shift_(shift).sub_(limit.index_select(0, groups))
        torch.lt(below, 0, out=chosen[part])
        here = places(below == 0)
        rest = 2**_KEY_BITS - 1 - keys[part].index_select(0, here).long()
        edge.append((groups.index_select(0, here).bitwise_left_shift_(_KEY_BITS).bitwise_or_(rest), here + part.start))
    ordered = torch.cat([key for key, _ in edge]).sort(stable=True)
    group_of_edge = ordered.values >> _KEY_BITS
    sizes = torch.bincount(group_of_edge, minlength=n_groups)
    place = torch.arange(len(group_of_edge)) - (sizes.cumsum(0) - sizes)[group_of_edge]
    chosen[torch.cat([here for _, here in edge])[ordered.indices[place < left[group_of_edge]]]] = True
    return chosen
