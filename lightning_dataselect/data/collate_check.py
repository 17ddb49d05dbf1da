"""Detect collate functions that sort, drop or replace the samples of a batch.

Losses are assigned to samples by their places in the batch, and nothing in a batch shows that these were changed. So
each batch is checked where it is made, in a worker if there are any: by its number of rows, by samples that are None,
and by one or two numbers per sample that the collate function passes on unchanged. Only batches that look unusual are
examined closely.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakMethod

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, default_collate, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from lightning_dataselect.data.batch_tree import Path, part_at
from lightning_dataselect.data.mixed_in import mix_in
from lightning_dataselect.data.places import Collate, collated, dense, sorts_samples
from lightning_dataselect.data.row_origin import find_witnesses, match_rows, same_numbers, tells_apart
from lightning_dataselect.utils.errors import InvalidLoaderError

Arrive = Callable[[list[int] | None, Any], None]


class FollowedBatch:
    """A batch whose rows are not exactly the samples drawn for it, on its way out of the loader.

    Attributes:
        batch: What the collate function returned.
        rows: For each row, the position of its sample among those drawn; -1 if it is none of them.
    """

    def __init__(self, batch: Any, rows: list[int]) -> None:
        self.batch = batch
        self.rows = rows

    def pin_memory(self) -> FollowedBatch:
        """Pin the batch, as the loader would."""
        return FollowedBatch(pin_memory(self.batch), self.rows)


class _ReportingLoader(DataLoader[Any]):
    _arrive: Arrive | None = None  # of a loader that another makes of its own class
    _begin: Callable[[], None] | None = None
    _deliver: Callable[[Iterator[Any]], Iterator[Any]] | None = None

    def __iter__(self) -> Any:
        if self._begin is not None:
            self._begin()
        batches = super().__iter__()
        return batches if self._deliver is None else self._deliver(batches)

    def _get_iterator(self) -> Any:
        iterator: Any = super()._get_iterator()
        if (arrive := self._arrive) is None:
            return iterator
        # held weakly: an iterator in a circle waits for the garbage collector, and its workers live on until then
        fetch = WeakMethod(iterator._next_data)

        def fetch_reporting() -> Any:
            batch = fetch()()  # type: ignore[misc]
            is_followed = isinstance(batch, FollowedBatch)
            given = batch.batch if is_followed else batch
            arrive(batch.rows if is_followed else None, given)
            return given

        iterator._next_data = fetch_reporting
        return iterator


def report_rows(
    loader: DataLoader[Any],
    arrive: Arrive,
    begin: Callable[[], None] | None = None,
    deliver: Callable[[Iterator[Any]], Iterator[Any]] | None = None,
) -> None:
    """Report each batch that an iterator of ``loader`` yields to ``arrive``, before anyone else sees it.

    Args:
        loader: A loader of our own, which is modified.
        arrive: Called with the rows of a `FollowedBatch`, or None for a batch with exactly the samples drawn for it,
            and with the batch itself.
        begin: Called before each pass over it.
        deliver: What it yields in a pass goes through this; None if it yields batches as it reads them.
    """
    mix_in(_ReportingLoader, loader)
    loader.__dict__.update(_arrive=arrive, _begin=begin, _deliver=deliver)


class FollowedCollate:
    """A collate function that reports, batch by batch, what became of the samples.

    Args:
        collate_fn: The loader's.
        required: Whether sorting is an error, rather than a warning.
    """

    def __init__(self, collate_fn: Collate, *, required: bool) -> None:
        self.collate_fn = collate_fn
        self._required = required
        self._is_checked = False
        self._axes: set[Path] | None = None  # the parts of a batch with samples along the first axis
        self._witnesses: list[tuple[Path, Path]] | None = None

    def __call__(self, samples: Any) -> Any:
        """Collate ``samples``.

        Returns:
            The batch, in a `FollowedBatch` if its rows are not the samples in their order.

        Raises:
            InvalidLoaderError: If `collate_fn` changes their order.
        """
        if not self._is_checked:
            self._is_checked = True
            worker = get_worker_info()
            if (worker is None or worker.id == 0) and sorts_samples(self.collate_fn, samples):
                self._say()
        if not isinstance(samples, list):
            return self.collate_fn(samples)
        given = list(samples)  # it may empty the list
        batch = self.collate_fn(samples)
        rows = self._rows(given, batch)
        return batch if rows is None else FollowedBatch(batch, rows)

    def _rows(self, samples: list[Any], batch: Any) -> list[int] | None:
        """Return the sample of each row of ``batch``, -1 for none; None if the rows are exactly ``samples``."""
        present = [i for i, sample in enumerate(samples) if sample is not None]
        tensors, lists = _parts(batch, {len(samples), len(present)})
        n_rows = self._count_rows(tensors, lists, len(samples), len(present))
        if n_rows is None:
            return None
        if n_rows == len(present):
            self._learn_axes(tensors, n_rows)
            if self._agrees([samples[i] for i in present], tensors):
                return None if n_rows == len(samples) else present
        return self._matched(samples, present, tensors, n_rows)

    def _count_rows(self, tensors: dict[Path, Tensor], lists: set[int], n: int, n_present: int) -> int | None:
        lengths = Counter(len(tensors[path]) for path in (self._axes or tensors) if path in tensors)
        lengths.update(lists)
        if n_present in lengths:
            return n_present
        if n in lengths:
            return n
        # for the first batch, the sample axes are not known yet; time-major parts have them elsewhere
        if not self._axes and any({n, n_present} & {*tensor.shape[1:]} for tensor in tensors.values()):
            return None
        return lengths.most_common(1)[0][0] if len(lengths) == 1 or (lengths and self._axes) else None

    def _learn_axes(self, tensors: dict[Path, Tensor], n_rows: int) -> None:
        found = {path for path, tensor in tensors.items() if len(tensor) == n_rows not in tensor.shape[1:]}
        self._axes = found if self._axes is None else (self._axes & found or self._axes)

    def _agrees(self, samples: list[Any], tensors: dict[Path, Tensor]) -> bool:
        """Return whether the numbers that identify samples are where they should be."""
        if self._witnesses is not None:
            return all(same_numbers(samples, tensors, pair) for pair in self._witnesses)
        if len(samples) == 1:
            return True
        found = find_witnesses(samples, tensors)
        if found and tells_apart(samples, found[0]):
            self._witnesses = found
            return True
        # perhaps no number is passed on, or it is this batch in which none is where it should be
        rows = self._rows_alone(samples, [*range(len(samples))], tensors, len(samples))
        is_moved = rows is not None and -1 not in rows and rows != [*range(len(samples))]
        self._witnesses = None if is_moved else found
        return not is_moved

    def _matched(
        self, samples: list[Any], present: list[int], tensors: dict[Path, Tensor], n_rows: int
    ) -> list[int] | None:
        if len(present) == len(samples) == n_rows and self._witnesses is not None and not self._repeats_itself(samples):
            return None
        return self._rows_alone(samples, present, tensors, n_rows)

    def _rows_alone(
        self, samples: list[Any], present: list[int], tensors: dict[Path, Tensor], n_rows: int
    ) -> list[int] | None:
        """Return the sample that each row is made of when collated alone, -1 for none; None if rows are no samples."""
        axes = [path for path in (self._axes or tensors) if path in tensors and len(tensors[path]) == n_rows]
        alone: dict[int, dict[Path, Tensor]] = {}
        for i in present:
            try:
                with isolate_rng(include_cuda=False):
                    alone[i] = dense(self.collate_fn([copy.deepcopy(samples[i])]))
            except Exception:  # a sample that the collate function would drop
                continue
        if alone and all(len(found.get(path, ())) > 1 for found in alone.values() for path in axes):
            return None  # rows are not samples, but their nodes or tokens, one sample's after another's
        alone = {i: found for i, found in alone.items() if all(len(found.get(path, ())) == 1 for path in axes)}
        return match_rows({path: tensors[path] for path in axes}, alone, n_rows) if axes else [-1] * n_rows

    def _repeats_itself(self, samples: list[Any]) -> bool:
        """Forget witnesses that the collate function draws at random; return whether any others are left."""
        assert self._witnesses is not None
        tried = [collated(self.collate_fn, samples, seed) for seed in range(2)]
        self._witnesses = [
            (there, path)
            for there, path in self._witnesses
            if all(path in found for found in tried) and torch.equal(tried[0][path], tried[1][path])
        ]
        return bool(self._witnesses)

    def _say(self) -> None:
        name = getattr(self.collate_fn, "__qualname__", type(self.collate_fn).__name__)
        words = (
            f"The train loader's collate_fn, {name}, reorders the samples of a batch, so one sample's loss would be"
            " taken for another's. Keep their order: torch.nn.utils.rnn.pack_padded_sequence(...,"
            " enforce_sorted=False) accepts sequences in any order."
        )
        if self._required:
            raise InvalidLoaderError(words)
        warnings.warn(words, stacklevel=2)


def checked(collate_fn: Collate, *, required: bool) -> Collate:
    """Return ``collate_fn`` as a `FollowedCollate`, or as is if it is torch's own, which never moves a sample."""
    if collate_fn is default_collate or isinstance(collate_fn, FollowedCollate):
        return collate_fn
    return FollowedCollate(collate_fn, required=required)


def _parts(batch: Any, sizes: set[int]) -> tuple[dict[Path, Tensor], set[int]]:
    """Return the tensors of a batch that have a first axis, and the lengths of its lists of one item per sample.

    The contents of the items are ignored: they say nothing about how many there are.

    Args:
        batch: What the collate function returned.
        sizes: Possible numbers of samples in it.

    Example:
        >>> x, y = torch.zeros(3, 7), torch.zeros(3)
        >>> tensors, lists = _parts({"x": list(x), "more": [x, y]}, {3})
        >>> list(tensors), lists
        ([('more', 0), ('more', 1)], {3})
    """
    tensors, lists = dense(batch), dict[Path, int]()
    for path in sorted({leaf[:n] for leaf in tensors for n in range(len(leaf))}, key=len):
        part = part_at(batch, path)
        if not isinstance(part, list | tuple) or hasattr(part, "_fields") or len(part) not in sizes:
            continue
        are_fields = any(isinstance(item, Tensor) and item.dim() > 0 and len(item) in sizes for item in part)
        if not are_fields and not any(path[:n] in lists for n in range(len(path))):
            lists[path] = len(part)
    kept = {path: tensor for path, tensor in tensors.items() if not any(path[: len(of)] == of for of in lists)}
    return kept, set(lists.values())
