"""Tell the samples of a batch apart by what a step may sort them by: lengths, shapes, and numbers of their own."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.data.batch_tree import Path, leaves_in, part_at

_LARGE = 1 << 20  # entries: more are no tokens, but images
_FEATURES = 16  # that are looked at, of batches with very many parts
_FIELDS = 8  # a sequence of more items is a text, and no record
_NUMBERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_NUMBERS |= {torch.float16, torch.float32, torch.float64}
Sizes = Mapping[Path, Sequence[Hashable]]


class SampleSizes:
    """Notice where samples first differ in size.

    Samples that are all alike show nothing of a step that sorts them, as by their lengths.

    Example:
        >>> sizes, texts = SampleSizes(), [torch.ones(5), torch.ones(5), torch.ones(7)]
        >>> sizes.differ_anew(texts[:2], 2), sizes.differ_anew(texts[1:], 2), sizes.differ_anew(texts[1:], 2)
        (False, True, False)
    """

    def __init__(self) -> None:
        self._even: dict[Path, set[Path]] | None = None  # part of a batch -> what all samples had alike so far

    @property
    def all_differ(self) -> bool:
        """True once there is nothing left that all samples have had alike."""
        return self._even is not None and not self._even

    def differ_anew(self, batch: Any, size: int) -> bool:
        """Tell if samples differ where those of all batches before were alike; nothing here waits for a device.

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
    """Choose samples of which no two are alike in length, number of entries or what else a step may sort them by.

    Args:
        batch: What the loader yielded.
        size: The number of samples in it.
        usual: Positions of some of them, which are as good as any others where nothing tells samples apart.
        counts: A number of each sample, of which those with the least and the most are chosen first.

    Returns:
        As many positions, each once.

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
    except (AttributeError, IndexError, KeyError, TypeError):  # of a batch of another structure
        return None


def _sizes_in(part: Any, size: int, *, waits: bool) -> Sizes:
    """Return what each of the samples has in a part of a batch: its size, or a number."""
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
        sizes[()] = np.count_nonzero(rows, axis=1).tolist()  # tokens that are no padding
    if not is_real and (waits or part.dtype.is_signed):
        sizes["ignored",] = (rows < 0).sum(1).tolist()  # labels
    elif waits:
        sizes["missing",] = np.isnan(rows).sum(1).tolist()
    return sizes


def _is_mask(rows: np.ndarray[Any, Any]) -> bool:
    """Tell if real numbers are all 0 or 1, which most are not, as a few show already."""
    return all(bool(((some == 0) | (some == 1)).all()) for some in (rows[:, :1], rows))


def _columns(items: Sequence[Any], path: Path) -> Iterator[tuple[Path, list[Hashable]]]:
    """Yield the size of each item of a list, and where all are records of the same fields, of what is in them."""
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
