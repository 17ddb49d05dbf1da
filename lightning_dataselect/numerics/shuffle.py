"""A random permutation of very many positions: a radix sort of random keys, a block at a time.

A sort of all keys reaches all over the memory. Blocks that fit into the processor's cache are sorted by the first byte
of their keys instead; then what begins with the same byte is put together out of all of them, and sorted by the rest.
"""

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import placement

_KEY_BITS = 62  # of random bits and a position, so that keys of int64 are not negative
_BYTE = 8
_BLOCK = 2**16  # positions in a block are uint16
_FEWEST = 2**22  # of fewer positions more random bits than int32 has would be left after the first byte


def random_order(n: int, generator: torch.Generator) -> Tensor:
    """Draw a random permutation of ``0 .. n - 1``.

    Sorts random numbers. They have 35 random bits or more for 100 million samples: of ``2 ** 35`` pairs one ties and
    keeps the order of its positions.

    Args:
        n: Number of samples.
        generator: Source of the random numbers.

    Returns:
        Shape (n,); int32 below 2**31 samples, which halves the memory, else int64.

    Example:
        >>> random_order(5, torch.Generator().manual_seed(0)).sort().values.tolist()
        [0, 1, 2, 3, 4]
    """
    if n >= 2**31:
        return torch.randperm(n, generator=generator)
    if n >= _FEWEST:
        return order_of_blocks(n, _KEY_BITS - n.bit_length(), generator)
    keys, position = keys_of_positions(n, generator)
    keys.numpy().sort()
    return placement().empty((n,), torch.int32).copy_(keys.bitwise_and_(position))


def keys_of_positions(n: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Draw random keys with the positions in their low bits, int64 (n,); return them, and the mask of those bits.

    Example:
        >>> keys, position = keys_of_positions(3, torch.Generator().manual_seed(0))
        >>> (keys & position).tolist()
        [0, 1, 2]
    """
    bits = n.bit_length()
    keys = placement().empty((n,), torch.int64).random_(2 ** (_KEY_BITS - bits), generator=generator)
    for part in parts(n):
        keys[part].bitwise_left_shift_(bits).add_(torch.arange(part.start, part.stop))
    return keys, 2**bits - 1


def order_of_blocks(n: int, n_bits: int, generator: torch.Generator) -> Tensor:
    """Return the order of ``n`` random numbers of ``n_bits`` bits, int32 (n,); equal ones keep theirs."""
    n_rest = n_bits - _BYTE
    rest, place = (placement().empty((n,), dtype).numpy() for dtype in (torch.int32, torch.uint16))
    starts = np.arange(0, n, _BLOCK, dtype=np.int32)
    ends = np.zeros((len(starts), 2**_BYTE + 1), dtype=np.int64)  # of each byte in each block
    for start, end in zip(starts.tolist(), ends, strict=True):
        block = slice(start, min(start + _BLOCK, n))
        keys = torch.empty(block.stop - start, dtype=torch.int64).random_(2**n_bits, generator=generator)
        first = (keys >> n_rest).to(torch.uint8).numpy()
        in_order = first.argsort(kind="stable")
        rest[block] = keys.bitwise_and_(2**n_rest - 1).int().numpy()[in_order]
        place[block] = in_order
        end[:] = start
        end[1:] += np.bincount(first, minlength=2**_BYTE).cumsum()
    order, used = placement().empty((n,), torch.int32), 0
    for begin, end in zip(ends.T[:-1], ends.T[1:], strict=True):
        pieces = [slice(*piece) for piece in zip(begin.tolist(), end.tolist(), strict=True)]
        positions = np.concatenate([place[piece] for piece in pieces]) + np.repeat(starts, end - begin)
        in_order = _argsort(np.concatenate([rest[piece] for piece in pieces]))
        order.numpy()[used : used + len(positions)] = positions[in_order]
        used += len(positions)
    return order


def _argsort(keys: np.ndarray) -> np.ndarray:
    """Return the order of int32 keys that are not negative; equal ones keep theirs."""
    low, high = ((keys >> shift).astype(np.uint16) for shift in (0, 16))
    by_low = low.argsort(kind="stable")  # of uint16, which NumPy sorts byte by byte
    return by_low[high[by_low].argsort(kind="stable")]
