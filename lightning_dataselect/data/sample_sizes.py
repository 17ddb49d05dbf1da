"""Tell the samples of a batch apart by anything that a step may sort them by: lengths, shapes and numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.data.batch_tree import Path, leaves_in, part_at

_LARGE = 1 << 20  # entries: larger ones are images, not tokens
_FEATURES = 16  # parts that are checked in batches with very many parts
_FIELDS = 8  # a sequence with more items is a text, not a record
_NUMBERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_NUMBERS |= {torch.float16, torch.float32, torch.float64}
Sizes = Mapping[Path, Sequence[Hashable]]


class SampleSizes:
    """Notice when samples first differ in size.

    Samples that are all alike do not reveal a step that sorts them, by their lengths say.

    Example:
        >>> sizes, texts = SampleSizes(), [torch.ones(5), torch.ones(5), torch.ones(7)]
        >>> sizes.differ_anew(texts[:2], 2), sizes.differ_anew(texts[1:], 2), sizes.differ_anew(texts[1:], 2)
        (False, True, False)
    """

    def __init__(self) -> None:
        self._even: dict[Path, set[Path]] | None = None  # part of a batch -> what all samples have had in common so far

    @property
    def all_differ(self) -> bool:
        """True once samples have differed in everything."""
        return self._even is not None and not self._even

    def differ_anew(self, batch: Any, size: int) -> bool:
        """Tell if samples differ where all earlier ones were alike, without waiting for a device.

        Args:
            batch: What the loader yielded.
            size: The number of samples in it.
        """
        if size < 2:
            return False
        if self._even is None:
            parts = {path: _sizes_in(part, size, waits=False) for path, part in leaves_in(batch)}
            self._even = {path: {key for key in sizes if not _vary(sizes[key])} for path, sizes in parts.items()}
        differ = False
        for path, keys in list(self._even.items()):
            sizes = _sizes_in(_found(batch, path), size, waits=False) if keys else {}
            varying = {key for key in keys & sizes.keys() if _vary(sizes[key])}
            differ |= bool(varying)
            keys -= varying
            if not keys:
                del self._even[path]
        return differ


def unlike_samples(batch: Any, size: int, usual: Sequence[int], counts: Sequence[int] | None = None) -> list[int]:
    """Choose samples no two of which are alike in length, number of entries or anything else to sort by.

    Args:
        batch: What the loader yielded.
        size: The number of samples in it.
        usual: Positions of some of them, to be used if nothing distinguishes samples.
        counts: A number for each sample; those with the lowest and the highest are chosen first.

    Returns:
        As many positions as ``usual``, without repeats.

    Example:
        >>> mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]])
        >>> unlike_samples({"mask": mask}, 5, [4, 0, 2])
        [4, 1, 3]
    """
    parts = [_sizes_in(part, size, waits=True) for _, part in leaves_in(batch)]
    varying = [sizes for part in parts for sizes in part.values() if _vary(sizes)][:_FEATURES]
    chosen = [usual[0]]
    if counts is not None and len(counts) == size and _vary(counts):
        chosen = [counts.index(min(counts)), counts.index(max(counts))]
    for turn in usual[len(chosen) :]:
        left = [i for i in range(size) if i not in chosen]
        told = [sum(all(sizes[i] != sizes[j] for j in chosen) for sizes in varying) + (i == turn) / 2 for i in left]
        chosen.append(left[told.index(max(told))])
    return chosen


def _found(batch: Any, path: Path) -> Any:
    try:
        return part_at(batch, path)
    except (AttributeError, IndexError, KeyError, TypeError):  # a batch with another structure
        return None


def _sizes_in(part: Any, size: int, *, waits: bool) -> Sizes:
    """Return the size, or the number, of each sample in a part of a batch."""
    if isinstance(part, Tensor):
        return _sizes_in_tensor(part, size, waits=waits)
    is_list = isinstance(part, Sequence) and not isinstance(part, str | bytes) and len(part) == size
    return dict(_columns(part, ())) if is_list else {}


def _sizes_in_tensor(part: Tensor, size: int, *, waits: bool) -> Sizes:
    is_plain = part.layout is torch.strided and not (part.is_nested or part.is_meta) and part.dtype in _NUMBERS
    if not is_plain or part.shape[:1] != (size,) or part.numel() > _LARGE or not (waits or part.is_cpu):
        return {}
    is_real = part.dtype.is_floating_point
    values = part.detach().cpu().numpy()
    if values.ndim == 1:
        return {(): values.tolist()}
    rows = values.reshape(size, -1)
    sizes: dict[Path, Sequence[Hashable]] = {}
    if waits or not is_real or _is_mask(rows):
        sizes[()] = np.count_nonzero(rows, axis=1).tolist()  # tokens that are not padding
    if not is_real and (waits or part.dtype.is_signed):
        sizes["ignored",] = (rows < 0).sum(1).tolist()  # labels
    elif waits:
        sizes["missing",] = np.isnan(rows).sum(1).tolist()
    return sizes


def _is_mask(rows: np.ndarray[Any, Any]) -> bool:
    """Tell if floating-point numbers are all 0 or 1; for most tensors a few of them already show the contrary."""
    return all(bool(((some == 0) | (some == 1)).all()) for some in (rows[:, :1], rows))


def _columns(items: Sequence[Any], path: Path) -> Iterator[tuple[Path, list[Hashable]]]:
    """Yield the size of each item in a list and, if all are records with the same fields, those of their fields."""
    first = items[0]
    if isinstance(first, Mapping) and all(isinstance(item, Mapping) and item.keys() == first.keys() for item in items):
        for key in first:
            yield from _columns([item[key] for item in items], (*path, key))
        return
    sizes = [_size(item) for item in items]
    yield path, sizes
    is_record = isinstance(first, list | tuple) and len(first) <= _FIELDS and not _vary(sizes)
    for n in range(len(first) if is_record else 0):
        yield from _columns([item[n] for item in items], (*path, n))


def _size(item: Any) -> Hashable:
    if isinstance(item, Tensor | np.ndarray):
        return tuple(item.shape)
    if isinstance(item, bool | int | float):
        return item
    return len(item) if isinstance(item, Sequence) else None


def _vary(sizes: Sequence[Hashable]) -> bool:
    return any(size != sizes[0] for size in sizes)
