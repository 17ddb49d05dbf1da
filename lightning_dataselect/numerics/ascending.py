"""Very many numbers in ascending order: a radix sort that stays in the processor's cache.

A sort of all of them reaches all over the memory. Parts that fit into the cache are split by the first bits instead, at
limits that make the pieces about equally large; then the pieces of all parts are put together, and sorted bit by bit.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import places
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import placement

FEWEST = 2**20  # numbers; of fewer the counting takes longer than it saves
_PIECES = 2**8
_HALF = 16  # bits that NumPy sorts one byte after the other
_FIRSTS = 2**_HALF
MOST = 2**22  # numbers of a piece whose order, int64, is made


def ascending(values: Tensor, mask: Callable[[slice], Tensor]) -> Tensor:
    """Return those of the ``values`` that a mask is True for, sorted.

    Args:
        values: float32 (n,), no NaN where the mask is True.
        mask: Gives the mask of one part of the values, bool; see `parts`.

    Returns:
        float32 (k,).

    Example:
        >>> values = torch.tensor([3.0, 2.0, -1.0])
        >>> ascending(values, lambda part: values[part] != 2).tolist()
        [-1.0, 3.0]
    """
    if len(values) < FEWEST:
        found = torch.cat([values[part][mask(part)] for part in parts(len(values))] or [values])
        found.numpy().sort()
        return found
    counts = np.zeros(_FIRSTS, dtype=np.int64)
    for part in parts(len(values)):
        counts += np.bincount(_first_half(_keys(values[part], mask(part))), minlength=_FIRSTS)
    n = int(counts.sum())
    piece_of = ((counts.cumsum() - counts) * _PIECES // max(n, 1)).astype(np.uint8)
    split, ends = _split(values, mask, piece_of, n)
    found, used = placement().empty((n,), values.dtype), 0
    for piece, (begin, end) in enumerate(zip(ends.T[:-1], ends.T[1:], strict=True)):
        keys = found.numpy().view(np.int32)[used : used + int((end - begin).sum())]
        if len(keys):
            np.concatenate([split[slice(*at)] for at in zip(begin.tolist(), end.tolist(), strict=True)], out=keys)
            firsts = np.flatnonzero((piece_of == piece) & (counts > 0))
            _sort(keys, firsts, counts[firsts])
            _flip(keys)
        used += len(keys)
    return found


def _keys(values: Tensor, mask: Tensor) -> npt.NDArray[np.int32]:
    """Return int32 keys in the order of the values; like `radix.ordered`, but for the two zeros."""
    return _flip(values.index_select(0, places(mask)).numpy().view(np.int32))


def _flip(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Turn the bits of floats into keys, in place, or keys into bits: those of negative numbers the other way round."""
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits


def _first_half(keys: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return (keys >> _HALF) + _FIRSTS // 2


def _split(
    values: Tensor, mask: Callable[[slice], Tensor], piece_of: npt.NDArray[np.uint8], n: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Sort the keys of each part by the pieces that they belong to; return them, and where each piece begins and ends.

    Returns:
        int32 (n,), and int64 (parts, pieces + 1).
    """
    split, used = placement().empty((n,), values.dtype).numpy().view(np.int32), 0
    ends = np.zeros((len(parts(len(values))), _PIECES + 1), dtype=np.int64)
    for part, end in zip(parts(len(values)), ends, strict=True):
        keys = _keys(values[part], mask(part))
        piece = piece_of.take(_first_half(keys))
        keys.take(piece.argsort(kind="stable"), out=split[used : used + len(keys)])
        end[:] = used
        end[1:] += np.bincount(piece, minlength=_PIECES).cumsum()
        used += len(keys)
    return split, ends


def _sort(keys: npt.NDArray[np.int32], firsts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> None:
    """Sort keys in place, of which ``sizes`` have one of the first halves, ``firsts``."""
    if len(firsts) > 1 and len(keys) > MOST:
        keys.sort()
        return
    last = keys.astype(np.uint16)
    if len(firsts) > 1:
        last = last.take(_first_half(keys).astype(np.uint16).argsort(kind="stable"))
    begin = 0
    for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True):
        run = last[begin : begin + size]
        run.sort(kind="stable")
        np.add(run, (first - _FIRSTS // 2) * _FIRSTS, out=keys[begin : begin + size], dtype=np.int32)
        begin += size
