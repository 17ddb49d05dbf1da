"""Merge what several ranks have written into their columns; only that is sent, in its own dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

OverRanks = Literal["last", "sum", "min"]
"""How a column merges several ranks' writes to a sample: the last value, the sum of the increments, or the minimum."""

CHUNK = 1 << 20  # samples that are merged at a time, so that messages take no memory proportional to all samples
MOST_CHUNKS = 64  # since ranks wait for each other in each round: with very many samples, more are merged at a time


@dataclass(frozen=True)
class Shared:
    """A column that ranks write to.

    Attributes:
        column: (N + 1,) or (N + 1, width), this rank's own; slot ``N`` belongs to no sample.
        over_ranks: How several ranks' writes to a sample are merged.
        base: For a sum, the column as it was after the last merge.
    """

    column: Tensor
    over_ranks: OverRanks
    base: Tensor | None = None

    @property
    def row_bytes(self) -> int:
        """The number of bytes of a sample."""
        return self.column[0].numel() * self.column.element_size()

    @property
    def is_count(self) -> bool:
        """True if it merges as a sum or a minimum."""
        return self.over_ranks != "last"

    def has_changed(self, start: int, end: int) -> bool:
        """Return whether a rank that has written has something to send about samples from ``start`` to ``end``."""
        return self.base is None or not torch.equal(self.column[start:end], self.base[start:end])

    def outgoing(self, rows: Tensor) -> Tensor:
        """Return what this rank sends to the others about the samples ``rows``."""
        values = self.column.index_select(0, rows)
        return values if self.base is None else values.sub_(self.base.index_select(0, rows))

    def open(self, start: int, end: int) -> None:
        """Undo what this rank has written to the samples from ``start`` to ``end``, if it will be added again."""
        if self.base is not None:
            self.column[start:end] = self.base[start:end]

    def take_in(self, rows: Tensor, values: Tensor) -> None:
        """Merge what was received about the samples ``rows``, int64 (m,), each of them once; ``N`` for none."""
        if self.over_ranks == "sum":
            self.column.index_add_(0, rows, values)
        elif self.over_ranks == "min":
            self.column.scatter_reduce_(0, rows, values, "amin")
        else:
            self.column.index_copy_(0, rows, values)

    def close(self, start: int, end: int) -> None:
        """Mark the samples from ``start`` to ``end`` as merged."""
        if self.base is not None:
            self.base[start:end] = self.column[start:end]


def merge(columns: Sequence[Shared], written: Tensor, counted: Tensor, n: int) -> None:
    """Give every rank what each rank has written since the last merge; all ranks must call it together.

    If two ranks wrote to the same sample, the last value of the higher rank is kept, on all ranks.

    Args:
        columns: The same columns on every rank.
        written: bool (N + 1,), the samples whose last-value columns this rank has written to.
        counted: bool (N + 1,), those whose sum or minimum columns it has written to.
        n: Number of samples, N.
    """
    # wide numbers first, so that each is aligned in the message and can be read in place
    ordered = sorted(columns, key=lambda shared: -shared.column.element_size())
    size = max(CHUNK, -(-n // MOST_CHUNKS))
    chunks = [_Chunk(ordered, (written, counted), start, min(start + size, n), n) for start in range(0, n, size)]
    own = torch.tensor([chunk.facts() for chunk in chunks], device=written.device)
    facts = _gathered(own).cpu()
    for which, chunk in enumerate(chunks):
        chunk.merge(facts[:, which])


@dataclass(frozen=True)
class _Chunk:
    """Samples that are merged at a time."""

    columns: Sequence[Shared]
    marks: tuple[Tensor, Tensor]  # those written and those counted
    start: int
    end: int
    n: int

    def facts(self) -> list[int]:
        """Return how many samples this rank has written and counted, whether they are the same, and what changed."""
        parts = [mark[self.start : self.end] for mark in self.marks]
        numbers = [int(part.count_nonzero()) for part in parts]
        # usually, counted samples are measured too, and are sent once
        changed = [numbers[each.is_count] > 0 and each.has_changed(self.start, self.end) for each in self.columns]
        return [*numbers, torch.equal(*parts), *changed]

    def merge(self, facts: Tensor) -> None:
        """Merge, with the :meth:`facts` of every rank, int64 (R, 3 + number of columns)."""
        numbers, is_one = facts[:, :2], bool(facts[:, 2].all())
        sent = [shared for shared, flag in zip(self.columns, facts[:, 3:].any(0).tolist(), strict=True) if flag]
        if not sent:
            return
        # what is sent is read before anything is merged
        rows = [mark[self.start : self.end].nonzero().squeeze(1) for mark in self.marks]
        values = [shared.outgoing(rows[shared.is_count] + self.start) for shared in sent]
        for shared in sent:
            shared.open(self.start, self.end)
        # if few ranks have written nearly everything, messages of equal size would be mostly empty
        if int(numbers.amax(0).sum()) * len(numbers) <= 2 * int(numbers.sum()):
            layout = _Layout(sent, is_one, *numbers.amax(0).tolist())
            message = layout.message(rows, values, self.end - self.start)
            del rows, values
            messages = _gathered(message)
            del message
            self._take_in(layout, messages)
        else:
            for layout, message in self._in_turn(sent, is_one, rows, values, numbers):
                self._take_in(layout, message)
        for shared in sent:
            shared.close(self.start, self.end)

    def _in_turn(
        self, sent: list[Shared], is_one: bool, rows: list[Tensor], values: list[Tensor], numbers: Tensor
    ) -> Iterator[tuple[_Layout, Tensor]]:
        """Yield the message of each rank that has something to send, uint8 (1, bytes), in the order of ranks."""
        for rank in numbers.any(1).nonzero().squeeze(1).tolist():
            layout = _Layout(sent, is_one, *numbers[rank].tolist())
            if rank == dist.get_rank():
                message = layout.message(rows, values, self.end - self.start)
            else:
                message = torch.empty(layout.size, dtype=torch.uint8, device=self.marks[0].device)
            dist.broadcast(message, rank)
            yield layout, message[None]

    def _take_in(self, layout: _Layout, messages: Tensor) -> None:
        """Merge the messages of some ranks, uint8 (ranks, bytes), in the order of ranks."""
        rows = [self._samples(part) for part in layout.rows(messages)]
        for which, shared in enumerate(layout.sent):
            of_ranks = rows[-1] if shared.is_count else rows[0]
            # rank by rank, so that all ranks agree if several have written to a sample
            for index, values in zip(of_ranks, layout.values(messages, which), strict=True):
                shared.take_in(index, values)

    def _samples(self, rows: Tensor) -> Tensor:
        """Return the samples at the places ``rows`` of this chunk, int64; the place after its last one is no sample."""
        samples = rows.long().add_(self.start)
        return samples if self.end == self.n else samples.masked_fill_(samples == self.end, self.n)


class _Layout:
    """Describe the layout of a message: the samples, padded to a multiple of eight bytes, and each column's values.

    Args:
        sent: The columns.
        is_one: Whether the written and the counted samples are the same, and listed once.
        n_written: Number of samples that were written, or room for that many.
        n_counted: The same for samples that were counted.
    """

    def __init__(self, sent: Sequence[Shared], is_one: bool, n_written: int, n_counted: int) -> None:
        self.sent = sent
        self._is_one = is_one
        self._n = n_written, n_counted
        n_rows = n_written if is_one else n_written + n_counted
        self._ends = [4 * (n_rows + n_rows % 2)]
        for shared in sent:
            self._ends.append(self._ends[-1] + self._n[shared.is_count] * shared.row_bytes)
        self.size = -(-self._ends[-1] // 8) * 8

    def message(self, rows: Sequence[Tensor], values: Sequence[Tensor], none: int) -> Tensor:
        """Return a message, uint8 (bytes,), of samples and values, with unused room for samples set to ``none``."""
        message = torch.zeros(self.size, dtype=torch.uint8, device=rows[0].device)
        for place, part in zip(self.rows(message[None]), rows, strict=False):
            place[0, : len(part)] = part
            place[0, len(part) :] = none
        for which, part in enumerate(values):
            self.values(message[None], which)[0, : len(part)] = part
        return message

    def rows(self, messages: Tensor) -> list[Tensor]:
        """Return the places of the samples that were written and, unless they are the same, those that were counted.

        Args:
            messages: uint8 (ranks, bytes).

        Returns:
            int32 (ranks, m) each.
        """
        both = messages[:, : self._ends[0]].view(torch.int32)
        n_written, n_counted = self._n
        written = both[:, :n_written]
        return [written] if self._is_one else [written, both[:, n_written : n_written + n_counted]]

    def values(self, messages: Tensor, which: int) -> Tensor:
        """Return the places of the values of a column, (R, m) or (R, m, width)."""
        shared = self.sent[which]
        part = messages[:, self._ends[which] : self._ends[which + 1]].view(shared.column.dtype)
        return part.unflatten(1, (self._n[shared.is_count], *shared.column.shape[1:]))


def _gathered(mine: Tensor) -> Tensor:
    """Return the tensors of all ranks, which have the same shape, stacked in the order of ranks."""
    everyones = mine.new_empty(dist.get_world_size(), *mine.shape)
    dist.all_gather(list(everyones), mine)
    return everyones


def shared_columns(
    columns: Mapping[str, Tensor], over_ranks: Mapping[str, OverRanks], bases: Mapping[str, Tensor]
) -> list[Shared]:
    """Return the columns as they are merged; a column with two names is included once.

    Args:
        columns: By name.
        over_ranks: How writes are merged, by name; ``"last"`` if not given.
        bases: The bases of sums, by name.
    """
    known: dict[int, Shared] = {}
    for name, column in columns.items():
        known.setdefault(id(column), Shared(column, over_ranks.get(name, "last"), bases.get(name)))
    return list(known.values())
