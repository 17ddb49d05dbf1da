"""Join the samples of several batches into one, whatever the batches are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.data.batch_layout import BatchLayout, is_number
from lightning_dataselect.data.batch_tree import Path, mapping_like, with_fields
from lightning_dataselect.utils.errors import UnsupportedLoaderError


def join_batches(batches: Sequence[Any], sizes: Sequence[int], layout: BatchLayout) -> Any:
    """Return one batch with the samples of several, in the same structure.

    Parts with a sample axis are concatenated along it; a number that grows with the number of samples is computed for
    all of them; parts without a sample axis must be the same in all batches.

    Args:
        batches: At least one, each cut by `subset_batch`, on one device.
        sizes: The number of samples of each.
        layout: Knows the sample axes, which were found when the batches were cut.

    Raises:
        UnsupportedLoaderError: If they cannot be joined, because they are padded to different lengths, say.

    Example:
        >>> layout = BatchLayout()
        >>> layout.axes.update({("x",): 0, ("name",): 0})
        >>> first = {"x": torch.tensor([1, 2]), "name": ["a", "b"], "scale": 2.0}
        >>> join_batches([first, {"x": torch.tensor([3]), "name": ["c"], "scale": 2.0}], [2, 1], layout)
        {'x': tensor([1, 2, 3]), 'name': ['a', 'b', 'c'], 'scale': 2.0}
    """
    return batches[0] if len(batches) == 1 else _Joiner(layout, sum(sizes)).join(batches, ())


class _Joiner:
    def __init__(self, layout: BatchLayout, size: int) -> None:
        self._layout = layout
        self._number = layout.numbers(size)

    def join(self, parts: Sequence[Any], path: Path) -> Any:
        first = parts[0]
        if (axis := self._layout.axes.get(path)) is not None:
            return _end_to_end(parts, axis, path)
        if path in self._layout.per_sample:
            return self._number(path, first)
        if isinstance(first, Mapping):
            return mapping_like(first, {key: self._join_at(parts, key, path) for key in first})
        if dataclasses.is_dataclass(first) and not isinstance(first, type):
            names = [field.name for field in dataclasses.fields(first)]
            return with_fields(
                first, {name: self.join([getattr(p, name) for p in parts], (*path, name)) for name in names}
            )
        if isinstance(first, Sequence) and not isinstance(first, str | bytes):
            items = [self._join_at(parts, i, path) for i in range(len(first))]
            if hasattr(first, "_fields"):
                return type(first)(*items)
            return tuple(items) if isinstance(first, tuple) else items
        if not all(_is_same(first, part) for part in parts[1:]):
            what = "number" if is_number(first) else type(first).__name__
            raise UnsupportedLoaderError(
                f"Each batch holds a {what} at {_named(path)} that is not per sample and differs from batch to batch,"
                " so samples of several batches cannot be combined. Let the loader yield one for each sample, along"
                " the first axis, or set constant_batch_size=False."
            )
        return first

    def _join_at(self, parts: Sequence[Any], key: Any, path: Path) -> Any:
        try:
            return self.join([part[key] for part in parts], (*path, key))
        except (KeyError, IndexError) as error:
            raise UnsupportedLoaderError(
                f"Some batches have an entry at {_named((*path, key))} and others have none, so samples of several"
                " batches cannot be combined. Let all batches have the same entries, or set"
                " constant_batch_size=False."
            ) from error


def _end_to_end(parts: Sequence[Any], axis: int, path: Path) -> Any:
    first = parts[0]
    if isinstance(first, list | tuple):
        items = [item for part in parts for item in part]
        return tuple(items) if isinstance(first, tuple) else items
    shapes = sorted({(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts})
    if len(shapes) > 1:
        raise UnsupportedLoaderError(
            f"The batches hold samples of different sizes at {_named(path)}, {shapes[0]} and {shapes[-1]}, so those of"
            " several batches cannot be combined. Pad or crop all samples of the data set to one size, or set"
            " constant_batch_size=False."
        )
    if isinstance(first, Tensor):
        return torch.cat(list(parts), axis)
    if isinstance(first, np.ndarray):
        return np.concatenate(list(parts), axis)
    raise UnsupportedLoaderError(
        f"The batches hold a {type(first).__name__} at {_named(path)}, but samples of several batches can only be"
        " combined in tensors, NumPy arrays and lists. Let the loader yield one of those, or set"
        " constant_batch_size=False."
    )


def _named(path: Path) -> str:
    return repr(".".join(map(str, path))) if path else "the top"


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)
