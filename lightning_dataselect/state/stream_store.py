"""Columns for the samples of a stream, which have no index: of one batch, or of as many keys as are kept in mind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import Identity, Write
from lightning_dataselect.utils.errors import InvalidArgumentError

Key = str | int | bytes
SampleId = str | int | Callable[[Any], Any]
"""The place of a sample's key in a batch: the name of a field, its position, or a function of the batch."""

_FIRST_ROOM = 1024


class StreamStore(SampleHistoryStore):
    """The base of both: slots are handed out as samples come, and each rank has those of its own samples alone.

    Args:
        n: Number of slots to begin with.
        columns: Further columns and their initial values.
        score_is_loss: Whether the method ranks by the last loss, so that both are one column.
    """

    def __init__(self, n: int, columns: Mapping[str, float] | None = None, *, score_is_loss: bool = False) -> None:
        super().__init__(n, columns, score_is_loss=score_is_loss)

    @property
    def n_samples(self) -> float:
        """Infinite: it is not known how many will come."""
        return math.inf

    def merge(self) -> None:
        """Write what was put aside: other ranks have other samples."""
        self.flush()

    def end_epoch(self, kept: Tensor) -> None:
        """Write what was put aside: no epoch of a stream is planned, so none leaves anything out."""
        self.flush()

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: see :meth:`rank_state`."""
        return {}

    def shared_state(self) -> dict[str, Tensor]:
        """Return nothing: see :meth:`rank_state`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over nothing."""

    def _make_room(self, n: int) -> None:
        """Grow to ``n`` slots; those that exist keep what they hold."""
        self.flush()
        before, self.n = self.n, n
        for name, column in self._columns.items():
            larger = column.new_full((n + 1, *column.shape[1:]), self._initial[name])
            larger[:before] = column[:before]
            self._columns[name] = larger
        if self._score_is_loss:
            self._columns["score"] = self._columns["loss"]


class BatchStore(StreamStore):
    """Hold the columns of the current batch alone, a slot for each of its rows; nothing is remembered.

    Example:
        >>> store = BatchStore(0)
        >>> slots = store.open_batch(3)
        >>> store["loss"][slots] = torch.tensor([1.0, 2.0, 3.0])
        >>> store["loss"][store.open_batch(2)]
        tensor([nan, nan])
        >>> store.column("loss")
        tensor([])
    """

    identity: ClassVar[Identity] = Identity.NONE

    def open_batch(self, n_rows: int) -> Tensor:
        """Forget the previous batch; return the slots of the rows of the next one, int64 (B,), on the CPU."""
        if n_rows > self.n:
            self._make_room(n_rows)
        for name, column in self._columns.items():
            column.fill_(self._initial[name])
        return torch.arange(n_rows)

    def column(self, name: str) -> Tensor:
        """Return an empty column: nothing is known of any sample."""
        return self[name][:0].cpu()

    def record_logits(self, seen: Observation) -> None:
        """Do nothing."""

    def record_losses(self, indices: Tensor, losses: Tensor) -> None:
        """Write the losses, float32 (B,), at ``indices``, int64 (B,)."""
        self["loss"].index_copy_(0, indices, losses)

    def write_later(self, write: Write, indices: Tensor, losses: Tensor) -> None:
        """Write a method's own columns at once."""
        write(self, [(indices, losses)])

    def count_trained(self, indices: Tensor) -> None:
        """Do nothing."""

    def count_dropped(self, offered: Tensor, taken: Tensor) -> None:
        """Do nothing."""


class KeyedStore(StreamStore):
    """Hold the columns of samples that carry a key; where there is no more room, those that came longest ago go.

    Args:
        capacity: Number of samples that are kept in mind; memory grows up to it as they come.
        columns: Further columns and their initial values.
        score_is_loss: Whether the method ranks by the last loss, so that both are one column.

    Example:
        >>> store = KeyedStore(3)
        >>> store["loss"][store.open_batch(["a", "b"])] = torch.tensor([1.0, 2.0])
        >>> store["loss"][store.open_batch(["c", "a"])] = torch.tensor([3.0, 4.0])
        >>> store.open_batch(["d"])  # in the place of b
        tensor([1])
        >>> store.keys, store.column("loss")
        (['a', 'd', 'c'], tensor([4., nan, 3.]))
    """

    identity: ClassVar[Identity] = Identity.KEY

    def __init__(self, capacity: int, columns: Mapping[str, float] | None = None, *, score_is_loss: bool = False):
        super().__init__(min(capacity, _FIRST_ROOM), columns, score_is_loss=score_is_loss)
        self._capacity = capacity
        self._slots: dict[Key, int] = {}  # the least recently seen first
        self.left_out = torch.empty(0, dtype=torch.int64)
        """Hashes of the keys that the present pass leaves out, as `KeyFilter` knows them."""

    @property
    def keys(self) -> list[Key]:
        """The keys, in the order of the columns."""
        return sorted(self._slots, key=self._slots.__getitem__)

    def open_batch(self, keys: Sequence[Key]) -> Tensor:
        """Return the slots of the samples of the next batch, int64 (B,), on the CPU.

        Args:
            keys: One a sample.

        Raises:
            InvalidArgumentError: If there are more of them than can be kept in mind.
        """
        if len(keys) > self._capacity:
            raise InvalidArgumentError(
                f"history_size={self._capacity} is less than a batch of {len(keys)} samples: give at least a few"
                " batches, or better all samples of an epoch."
            )
        slots, taken_over = self._slots, []
        for key in keys:  # known ones first, so that no new one takes the slot of one that follows in the same batch
            if key in slots:
                slots[key] = slots.pop(key)
        for key in keys:
            if key in slots:
                continue
            slot = len(slots)
            if slot == self._capacity:
                slot = slots.pop(next(iter(slots)))
                taken_over.append(slot)
            slots[key] = slot
        if len(slots) > self.n:
            self._make_room(min(self._capacity, max(2 * self.n, len(slots))))
        if taken_over:
            self.flush()
            emptied = torch.tensor(taken_over, device=self.device)
            for name, column in self._columns.items():
                column.index_fill_(0, emptied, self._initial[name])
        return torch.tensor([slots[key] for key in keys], dtype=torch.int64)

    def column(self, name: str) -> Tensor:
        """Return the column ``name`` of the samples that are kept in mind, in the order of :attr:`keys`, on the CPU."""
        return super().column(name)[: len(self._slots)]

    def count_left_out(self, slots: Tensor) -> None:
        """Count samples that a pass leaves out, int64 (m,), each once."""
        dropped = self["times_dropped"]
        dropped[slots.to(dropped.device)] += 1

    def rank_state(self) -> dict[str, Any]:
        """Return the keys, the least recently seen first, and their columns."""
        self.flush()
        order = torch.tensor(list(self._slots.values()), dtype=torch.int64)
        return {
            "keys": list(self._slots),
            "left_out": self.left_out,
            "columns": {name: self.column(name)[order] for name in self._columns},
        }

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Take over keys and columns; if there is less room than before, those of the most recent keys."""
        keys = state["keys"][-self._capacity :]
        self._slots, self.left_out = {key: slot for slot, key in enumerate(keys)}, state["left_out"]
        if "margin" in state["columns"]:
            self._open_classes()
        self._make_room(max(self.n, len(keys)))
        for name, values in state["columns"].items():
            self[name][: len(keys)] = values[len(values) - len(keys) :].to(self[name].device)


def stream_store(
    sample_id: SampleId | None, capacity: int, columns: Mapping[str, float], *, score_is_loss: bool
) -> BatchStore | KeyedStore:
    """Return empty columns for a stream: of the samples that carry a key, or of the batch under way alone.

    Args:
        sample_id: The place of the key; None where samples carry none.
        capacity: Number of samples with a key that are kept in mind.
        columns: Further columns and their initial values.
        score_is_loss: Whether the method ranks by the last loss, so that both are one column.

    Example:
        >>> type(stream_store("key", 100, {}, score_is_loss=True)).__name__
        'KeyedStore'
    """
    if sample_id is None:
        return BatchStore(0, columns, score_is_loss=score_is_loss)
    return KeyedStore(capacity, columns, score_is_loss=score_is_loss)
