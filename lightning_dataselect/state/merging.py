"""Bring together what several ranks have written into their columns: only that travels, in the dtype that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

OverRanks = Literal["last", "sum", "min"]
"""How a column merges several ranks' writes to a sample: the last value, the sum of the increments, the least."""

CHUNK = 1 << 21  # samples that are merged at a time, so that what travels takes no memory of the order of all


@dataclass(frozen=True)
class Shared:
    """A column that ranks write to.

    Attributes:
        column: (N + 1,) or (N + 1, width), this rank's own; slot ``N`` stands for no sample.
        over_ranks: What becomes of several ranks' writes to a sample.
        base: Of a sum, the column as it was after the last merge.
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
        """Return whether this rank has something to give of samples from ``start`` to ``end``, if it has written."""
        return self.base is None or not torch.equal(self.column[start:end], self.base[start:end])

    def outgoing(self, rows: Tensor) -> Tensor:
        """Return what this rank gives the others of the samples ``rows``."""
        values = self.column.index_select(0, rows)
        return values if self.base is None else values.sub_(self.base.index_select(0, rows))

    def take_in(self, rows: Sequence[Tensor], values: Sequence[Tensor], start: int, end: int) -> None:
        """Take what every rank gives, in the order of ranks, so that all come to the same.

        Args:
            rows: int64, of each rank, the samples that it gives something of, all of them from ``start`` to ``end``.
            values: What it gives.
            start: The first sample of the chunk.
            end: The one after its last.
        """
        if self.base is not None:
            self.column[start:end] = self.base[start:end]
        for index, value in zip(rows, values, strict=True):
            if self.over_ranks == "sum":
                self.column.index_add_(0, index, value)
            elif self.over_ranks == "min":
                self.column.scatter_reduce_(0, index, value, "amin")
            else:
                self.column.index_copy_(0, index, value)
        if self.base is not None:
            self.base[start:end] = self.column[start:end]


def merge(columns: Sequence[Shared], written: Tensor, counted: Tensor, n: int) -> None:
    """Give every rank what each rank has written since the last merge; all ranks must call it together.

    Where two ranks wrote the same sample, the higher rank's last value stands, on all ranks alike.

    Args:
        columns: The same on every rank.
        written: bool (N + 1,), the samples whose columns of a last value this rank has written to.
        counted: bool (N + 1,), those whose columns of a sum or a minimum it has written to.
        n: Number of samples, N.
    """
    # wide numbers first, so that each lies in the message where it can be read in place
    ordered = sorted(columns, key=lambda shared: -shared.column.element_size())
    for start in range(0, n, CHUNK):
        _merge_chunk(ordered, written, counted, start, min(start + CHUNK, n))


def _merge_chunk(columns: Sequence[Shared], written: Tensor, counted: Tensor, start: int, end: int) -> None:
    mine = [mark[start:end].nonzero().squeeze(1) for mark in (written, counted)]
    is_one = torch.equal(*mine)  # as a rule what is counted is measured, too, and travels once
    changed = [len(mine[shared.is_count]) > 0 and shared.has_changed(start, end) for shared in columns]
    about = torch.tensor([*map(len, mine), is_one, *changed], device=written.device)
    facts = [of_rank.tolist() for of_rank in _gathered(about, about.numel())]
    sent = [shared for shared, *flags in zip(columns, *(of_rank[3:] for of_rank in facts), strict=True) if any(flags)]
    if not sent:
        return
    own = torch.cat(mine[:1] if is_one else mine).int()
    even = [own, own.new_zeros(own.numel() % 2)]
    parts = [*even, *(shared.outgoing(mine[shared.is_count] + start) for shared in sent)]
    layouts = [_Layout(sent, *of_rank[:3]) for of_rank in facts]
    message = torch.cat([part.reshape(-1).view(torch.uint8) for part in parts])
    messages = _gathered(message, max(layout.size for layout in layouts))
    del parts, message
    rows = [layout.rows(other, start) for layout, other in zip(layouts, messages, strict=True)]
    for which, shared in enumerate(sent):
        values = [layout.values(other, which) for layout, other in zip(layouts, messages, strict=True)]
        shared.take_in([of_rank[shared.is_count] for of_rank in rows], values, start, end)


class _Layout:
    """Find what a rank has sent: the samples, up to a multiple of eight bytes, and the values of each column."""

    def __init__(self, sent: Sequence[Shared], n_written: int, n_counted: int, is_one: int) -> None:
        self._sent = sent
        self._n = n_written, n_counted
        self._is_one = bool(is_one)
        self._n_rows = n_written if is_one else n_written + n_counted
        self._ends = [4 * (self._n_rows + self._n_rows % 2)]
        for shared in sent:
            self._ends.append(self._ends[-1] + self._n[shared.is_count] * shared.row_bytes)
        self.size = self._ends[-1]

    def rows(self, message: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return the samples that were written and those that were counted, int64."""
        both = message[: 4 * self._n_rows].view(torch.int32).long() + start
        return (both, both) if self._is_one else (both[: self._n[0]], both[self._n[0] :])

    def values(self, message: Tensor, which: int) -> Tensor:
        """Return the values of a column."""
        column = self._sent[which].column
        part = message[self._ends[which] : self._ends[which + 1]].view(column.dtype)
        return part.reshape(-1, *column.shape[1:])


def _gathered(mine: Tensor, size: int) -> list[Tensor]:
    """Return what each rank has handed in, filled up to ``size``."""
    padded = mine if mine.numel() == size else torch.cat([mine, mine.new_zeros(size - mine.numel())])
    everyones = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, padded)
    return everyones


def shared_columns(
    columns: Mapping[str, Tensor], over_ranks: Mapping[str, OverRanks], bases: Mapping[str, Tensor]
) -> list[Shared]:
    """Return the columns as they are merged; one that goes by two names is taken once.

    Args:
        columns: By name.
        over_ranks: What becomes of writes, by name; ``"last"`` where nothing is said.
        bases: Of sums, by name.
    """
    known: dict[int, Shared] = {}
    for name, column in columns.items():
        known.setdefault(id(column), Shared(column, over_ranks.get(name, "last"), bases.get(name)))
    return list(known.values())
