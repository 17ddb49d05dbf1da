"""The k-th largest of very many numbers, by radix selection: two passes that count in place of a sort.

The keys are the bit patterns of float32, and are made a part at a time: there is no N-sized copy, and no limit on N.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import places
from lightning_dataselect.numerics.parts import parts

_BUCKETS = 2**16


def ordered(values: Tensor) -> Tensor:
    """Return int32 keys in the order of float32 values; NaN and +inf are one and the highest.

    Example:
        >>> ordered(torch.tensor([-1.0, -0.0, 0.0, 2.0, float("nan")])).diff().sign().tolist()
        [1, 0, 1, 1]
    """
    plain = torch.nan_to_num(values.float(), nan=math.inf, posinf=math.inf, neginf=-math.inf)
    bits = plain.add_(0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0: the two zeros are one key
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def kth_largest(key: Callable[[slice], Tensor], n: int, k: int) -> tuple[int, int, int]:
    """Find the k-th largest of ``n`` int32 keys.

    Args:
        key: Gives the keys of one part at a time.
        n: Number of keys.
        k: 1 for the largest.

    Returns:
        The key, how many keys are above it, and how many are equal to it.

    Example:
        >>> keys = torch.tensor([5, 7, 5, 1], dtype=torch.int32)
        >>> kth_largest(lambda part: keys[part], n=4, k=2)
        (5, 1, 2)
    """
    counts = torch.zeros(_BUCKETS, dtype=torch.int64)
    for part in parts(n):
        counts += torch.bincount((key(part) >> 16) + _BUCKETS // 2, minlength=_BUCKETS)
    high, n_above = _bucket(counts, k)
    high -= _BUCKETS // 2
    counts = torch.zeros(_BUCKETS, dtype=torch.int64)
    for part in parts(n):
        keys = key(part)
        keys = keys.index_select(0, places((keys >> 16) == high))
        counts += torch.bincount(keys & (_BUCKETS - 1), minlength=_BUCKETS)
    low, n_above_low = _bucket(counts, k - n_above)
    return high * _BUCKETS + low, n_above + n_above_low, int(counts[low])


def _bucket(counts: Tensor, k: int) -> tuple[int, int]:
    """Return the bucket that holds the k-th item from the top, and the number of items above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, k))
    bucket = len(counts) - 1 - place
    return bucket, int(from_top[place] - counts[bucket])
