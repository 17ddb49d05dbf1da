"""Count the samples in a batch whose origin is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

from lightning_dataselect.data.batch_tree import Path, leaves_in, part_at
from lightning_dataselect.utils.errors import UnsupportedLoaderError


class RowCounter:
    """Count the rows of batches, along the first axis of the parts that the first batch has shown to hold samples.

    Args:
        batch_size: Size of all batches except smaller last ones; None if unknown.

    Example:
        >>> import torch
        >>> counter = RowCounter(batch_size=None)
        >>> counter.count({"x": torch.zeros(3, 2), "y": torch.zeros(3), "name": ["a", "b", "c"]})
        3
        >>> counter.count({"x": torch.zeros(2, 2), "y": torch.zeros(2), "name": ["a", "b"]})
        2
    """

    def __init__(self, batch_size: int | None) -> None:
        self._expected = batch_size
        self._last = 0
        self._places: list[Path] | None = None

    def count(self, batch: Any) -> int:
        """Return the number of samples in ``batch``.

        Raises:
            UnsupportedLoaderError: If its parts do not agree.
        """
        if self._places is None:
            lengths = self._settle(batch)
        else:
            lengths = {path: _length(part_at(batch, path)) for path in self._places}
            if len(set(lengths.values())) > 1:  # a part that stays the same while others change belongs to all samples
                lengths = {path: length for path, length in lengths.items() if length != self._last}
        if len(set(lengths.values())) != 1:
            raise UnsupportedLoaderError(
                f"How many samples a batch ({type(batch).__name__}) holds cannot be determined: the first axes of its"
                f" parts have the lengths {sorted(set(lengths.values())) or 'none'}. Let the DataLoader make the"
                " batches (batch_size=...), or name what tells the samples apart with `sample_id`."
            )
        self._places = list(lengths)
        self._last = next(iter(lengths.values()))
        return self._last

    def _settle(self, batch: Any) -> dict[Path, int]:
        """Find the parts of the first batch that hold samples."""
        arrays, lists = {}, {}
        for path, part in leaves_in(batch):
            if getattr(part, "shape", ()):
                arrays[path] = _length(part)
            elif path and isinstance(part, Sequence) and not isinstance(part, str | bytes):
                lists[path] = len(part)
        for found in (arrays, lists):
            fits = {path: length for path, length in found.items() if length == self._expected}
            if fits:
                return fits
        return arrays or lists


def _length(part: Any) -> int:
    shape = getattr(part, "shape", None)
    return int(shape[0]) if shape else len(part)


def rows_agreed_on(batch: Any, n: int, *, besides: Any = None) -> int | None:
    """Return how many rows all parts of a batch have, if that is not ``n``, the number of its samples.

    None where a part may have a row or a column for each of ``n`` samples, where parts disagree, as those of graphs do,
    or where it holds something whose rows cannot be counted.

    Args:
        batch: What the loader yielded.
        n: How many samples it is said to hold.
        besides: The part that says so, which does not count.

    Example:
        >>> import torch
        >>> x, nodes = torch.zeros(8, 3), {"x": torch.zeros(8, 3), "edges": torch.zeros(2, 20)}
        >>> rows_agreed_on((x, ["a"] * 8), 7), rows_agreed_on((x, ["a"] * 8), 8), rows_agreed_on(nodes, 5)
        (8, None, None)
    """
    arrays: set[int] = set()
    lists: dict[Path, int] = {}
    own: set[Path] = set()
    for path, part in leaves_in(batch):
        above = {path[:depth] for depth in range(1, len(path))}
        if part is besides or above & own:
            own.add(path)
            continue
        shape = getattr(part, "shape", None)
        if shape is not None:
            is_listed = bool(above & lists.keys())
            if n in shape[: 1 if is_listed else 2]:
                return None
            if not is_listed:
                arrays.update(shape[:1])
        elif isinstance(part, Sequence) and not isinstance(part, str | bytes):
            if path:
                lists[path] = len(part)
        elif not isinstance(part, str | bytes | Number | None):
            return None
    lengths = arrays or set(lists.values())
    return lengths.pop() if len(lengths) == 1 and n not in lists.values() else None
