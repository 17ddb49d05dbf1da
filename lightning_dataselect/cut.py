"""Cutting a batch to some of its samples, whatever it is made of."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def cut_batch(batch: Any, positions: Tensor, batch_size: int) -> Any:
    """A batch of the samples at ``positions``, in a structure like that of ``batch``.

    Tensors and arrays whose first axis has ``batch_size`` entries are cut along it, and so are lists of one item a
    sample; containers (tuples, named tuples, dicts, dataclasses, Hugging Face ``BatchEncoding``) are gone through, and
    whatever has no sample axis is passed on.

    Args:
        batch: what the loader yielded.
        positions: int64 (b,), on the device of the batch.
        batch_size: number of samples in ``batch``.

    Raises:
        TypeError: if nothing in the batch has a sample axis.

    Example:
        >>> batch = {"x": torch.arange(6).view(3, 2), "name": ["a", "b", "c"], "scale": 2.0}
        >>> cut_batch(batch, torch.tensor([0, 2]), batch_size=3)
        {'x': tensor([[0, 1],
                [4, 5]]), 'name': ['a', 'c'], 'scale': 2.0}
    """
    cutter = _Cutter(positions, batch_size)
    smaller = cutter(batch)
    if not cutter.has_cut:
        raise TypeError(
            f"No part of the batch ({type(batch).__name__}) has a first axis of {batch_size} samples, so it cannot be"
            " cut to the chosen ones. Let the loader yield tensors, or containers of tensors, with the samples along"
            " the first axis, or take a method that chooses before the epoch, such as InfoBatch."
        )
    return smaller


class _Cutter:
    def __init__(self, positions: Tensor, batch_size: int) -> None:
        self._positions = positions
        self._batch_size = batch_size
        self._listed: list[int] | None = None
        self.has_cut = False

    def __call__(self, part: Any) -> Any:
        if isinstance(part, Tensor):
            return self._tensor(part)
        if isinstance(part, str | bytes):
            return part
        if isinstance(part, Mapping):
            return self._mapping(part)
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            return _replaced(part, {f.name: self(getattr(part, f.name)) for f in dataclasses.fields(part)})
        if isinstance(part, Sequence):
            return self._sequence(part)
        if getattr(part, "shape", ()) and len(part) == self._batch_size:
            self.has_cut = True
            return part[self._as_list()]
        return part

    def _tensor(self, part: Tensor) -> Tensor:
        if part.dim() == 0 or part.shape[0] != self._batch_size:
            return part
        self.has_cut = True
        return part[self._positions.to(part.device)]

    def _mapping(self, part: Mapping[Any, Any]) -> Any:
        cut = {key: self(value) for key, value in part.items()}
        if type(part) is dict:
            return cut
        smaller = copy.copy(part)
        for key, value in cut.items():
            smaller[key] = value  # type: ignore[index]
        return smaller

    def _sequence(self, part: Sequence[Any]) -> Any:
        if len(part) == self._batch_size and not any(self._has_sample_axis(item) for item in part):
            self.has_cut = True
            items = [part[i] for i in self._as_list()]
        else:
            items = [self(item) for item in part]
        if hasattr(part, "_fields"):
            return type(part)(*items)
        return tuple(items) if isinstance(part, tuple) else items

    def _has_sample_axis(self, item: Any) -> bool:
        return isinstance(item, Tensor) and item.dim() > 0 and item.shape[0] == self._batch_size

    def _as_list(self) -> list[int]:
        if self._listed is None:
            self._listed = self._positions.tolist()
        return self._listed


def _replaced(part: Any, values: dict[str, Any]) -> Any:
    # not dataclasses.replace: that would call __init__ and __post_init__ again
    smaller = copy.copy(part)
    for name, value in values.items():
        object.__setattr__(smaller, name, value)
    return smaller
