"""Find the sample of each row of a batch, by numbers that are passed on unchanged or by collating it alone."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.data.batch_tree import Path, bytes_of, part_at

_MOST_WITNESSES = 2


def find_witnesses(samples: list[Any], tensors: dict[Path, Tensor]) -> list[tuple[Path, Path]]:
    """Return pairs of paths, in a sample and in a batch, where a number is passed on unchanged; the best ones.

    Args:
        samples: The samples passed to the collate function, in the order of the rows.
        tensors: Tensors of the batch that have a first axis, by their paths.

    Example:
        >>> samples = [{"x": 1.0, "one": 1.0}, {"x": 2.0, "one": 1.0}]
        >>> find_witnesses(samples, {("x",): torch.tensor([1.0, 2.0]), ("one",): torch.ones(2)})
        [(('x',), ('x',))]
    """
    there = {path: len(set(numbers)) for path, numbers in _numbers_of(samples).items()}
    telling = sorted((path for path, n in there.items() if n > 1), key=lambda path: -there[path])
    pairs = [(path, axis) for path in telling for axis in tensors if same_numbers(samples, tensors, (path, axis))]
    return pairs[:_MOST_WITNESSES]


def tells_apart(samples: list[Any], pair: tuple[Path, Path]) -> bool:
    """Return whether no two samples have the same number at a pair of paths (see `find_witnesses`)."""
    return len(set(_numbers_of(samples)[pair[0]])) == len(samples)


def _numbers_of(samples: list[Any]) -> dict[Path, list[float]]:
    numbers: dict[Path, list[float]] = defaultdict(list)
    for sample in samples:
        for path in _leaves(sample):
            if (number := _first_number(part_at(sample, path))) is not None:
                numbers[path].append(number)
    return {path: found for path, found in numbers.items() if len(found) == len(samples)}


def _leaves(sample: Any) -> list[Path]:
    if isinstance(sample, dict):
        return [(key,) for key in sample]
    return [(i,) for i in range(len(sample))] if isinstance(sample, tuple | list) else [()]


def _first_number(part: Any) -> float | None:
    """Return the first number of a tensor, an array or a list, or the number itself."""
    if isinstance(part, list | tuple) and part:
        part = part[0]
    if hasattr(part, "reshape") and hasattr(part, "shape"):
        part = part.reshape(-1)[0] if 0 not in part.shape else None
    try:
        return float(part)
    except (TypeError, ValueError):
        return None


def same_numbers(samples: list[Any], tensors: dict[Path, Tensor], pair: tuple[Path, Path]) -> bool:
    """Return whether samples and rows have the same numbers at a pair of paths (see `find_witnesses`)."""
    there, path = pair
    rows = tensors.get(path)
    if rows is None or len(rows) != len(samples) or rows[0].numel() == 0 or rows.is_complex():
        return False
    try:
        given = [_first_number(part_at(sample, there)) for sample in samples]
    except (LookupError, TypeError, AttributeError):
        return False
    if None in given:
        return False
    found = rows.reshape(len(rows), -1)[:, 0]
    expected = torch.tensor(given, dtype=torch.float64).to(found.dtype)
    return bool(((found == expected) | (found.isnan() & expected.isnan())).all())


def match_rows(tensors: dict[Path, Tensor], alone: dict[int, dict[Path, Tensor]], n_rows: int) -> list[int]:
    """Return for each row the sample that gives this row when collated alone, each used once first; -1 for none.

    Args:
        tensors: Tensors of the batch that have a row for each sample, by their paths.
        alone: The same for batches of one, by the position of the sample.
        n_rows: The number of rows.

    Example:
        >>> rows = torch.tensor([[3.0, 3.0], [1.0, 1.0], [9.0, 9.0]])
        >>> match_rows({(): rows}, {0: {(): rows[1:2]}, 2: {(): rows[:1]}}, n_rows=3)
        [2, 0, -1]
    """
    waiting: dict[tuple[bytes, ...], deque[int]] = defaultdict(deque)
    widths = {
        path: _common_width(tensor, [found[path] for found in alone.values()]) for path, tensor in tensors.items()
    }
    for i, found in alone.items():
        waiting[tuple(_key(found[path][0], width) for path, width in widths.items())].append(i)
    rows = []
    for row in range(n_rows):
        samples = waiting.get(tuple(_key(tensors[path][row], width) for path, width in widths.items()))
        if samples:
            samples.rotate(-1)
        rows.append(samples[-1] if samples else -1)
    return rows


def _common_width(tensor: Tensor, alone: Sequence[Tensor]) -> int | None:
    """Return the part of a row that is there whatever it is padded to; None for all of it."""
    if tensor.dim() < 2 or all(other.shape[1:] == tensor.shape[1:] for other in alone):
        return None
    return min([tensor.shape[1], *(other.shape[1] for other in alone)])


def _key(row: Tensor, width: int | None) -> bytes:
    part = row if width is None else row[:width]
    return bytes_of(part) if part.numel() else b""
