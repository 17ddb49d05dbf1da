"""Per-sample state: columns of one number or one vector per sample, merged over ranks and saved in checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory
from lightning_dataselect.state.merging import OverRanks, merge, shared_columns
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import UnknownColumnError

Write: TypeAlias = Callable[["ScoreStore", Sequence[tuple[Tensor, Tensor]]], None]

_BASE_COLUMNS = {"loss": float("nan"), "score": float("nan")}
_CHUNK = 1 << 20


class Identity(str, Enum):
    """Ways to identify a sample when it comes again, which determine what can be remembered about it.

    Attributes:
        INDEX: Its place in a map-style data set; it can also be chosen before it is read.
        KEY: A key that it carries, in a stream.
        NONE: Nothing: the results of a stream's batch are forgotten with the batch.
    """

    INDEX = "index"
    KEY = "key"
    NONE = "none"


class ScoreStore:
    """Hold columns of one number or vector per sample, written batch by batch and read at the end of an epoch.

    A column has ``N + 1`` slots: slot ``N`` takes the writes of padding samples, so that a step needs no masking and
    never waits for the device. Every store has the columns ``"loss"`` (the last measured loss) and ``"score"`` (what
    the method ranks by); NaN means never measured.

    Args:
        n: Number of samples of the training set.
        columns: Further columns and their initial values.
        world_size: Number of ranks that write. With more than one, each rank marks what it has written since the last
            :meth:`merge`.
        score_is_loss: Whether the method ranks by the last loss, so that both are one column.
        memory: Where the columns are allocated.

    Example:
        >>> store = ScoreStore(3)
        >>> store["loss"][torch.tensor([2, 0, 3])] = torch.tensor([1.5, 0.5, 9.0])  # 3 is the padding slot
        >>> store.column("loss")
        tensor([0.5000,    nan, 1.5000])
    """

    identity: ClassVar[Identity] = Identity.INDEX
    """The way in which samples are identified."""

    def __init__(
        self,
        n: int,
        columns: Mapping[str, float] | None = None,
        world_size: int = 1,
        *,
        score_is_loss: bool = False,
        memory: InMemory = IN_MEMORY,
    ) -> None:
        self.n = n
        self.memory = memory
        self._score_is_loss = score_is_loss
        self.world_size = world_size
        self._initial: dict[str, float] = {**_BASE_COLUMNS, **(columns or {})}
        own = self._initial.keys() - ({"score"} if score_is_loss else ())
        self._columns = {
            name: memory.full((n + 1,), value, torch.float32) for name, value in self._initial.items() if name in own
        }
        if score_is_loss:
            self._columns["score"] = self._columns["loss"]
        n_marks = n + 1 if world_size > 1 else 0
        self._dirty, self._counted = (memory.full((n_marks,), False, torch.bool) for _ in range(2))
        self._over_ranks: dict[str, OverRanks] = {}
        self._merged: dict[str, Tensor] = {}  # with several ranks, the sums as they were after the last merge

    @property
    def n_samples(self) -> float:
        """Number of samples; infinite if it is unknown, as in a stream."""
        return self.n

    @property
    def device(self) -> torch.device:
        """Return the device that the columns are on."""
        return self._columns["loss"].device

    def __getitem__(self, name: str) -> Tensor:
        """Return the column ``name``, float32 (N + 1,), on the store's device."""
        try:
            return self._columns[name]
        except (KeyError, TypeError):  # a name that is not a string
            raise self._unknown(name) from None

    def _unknown(self, name: object) -> UnknownColumnError:
        return UnknownColumnError(
            f"There is no column {name!r}.{did_you_mean(str(name), self._columns)} There are"
            f" {', '.join(self._columns)}; a method adds its own by `columns`."
        )

    def __contains__(self, name: str) -> bool:
        """Return whether there is a column ``name``."""
        return name in self._columns

    def shared_state(self) -> dict[str, Tensor]:
        """Return every column, (N,) or (N, width), on the store's device, sharing its memory."""
        return {name: column[: self.n] for name, column in self._columns.items()}

    def add_column(self, name: str, initial: float, dtype: torch.dtype, over_ranks: OverRanks = "last") -> Tensor:
        """Add a column of one number per sample.

        Args:
            name: Of a column that is not there yet.
            initial: The initial number of every sample.
            dtype: Of the numbers.
            over_ranks: How several ranks' writes to a sample are merged.

        Returns:
            The column, (N + 1,), on the store's device.
        """
        column = self._full((self.n + 1,), initial, dtype)
        self._columns[name], self._over_ranks[name], self._initial[name] = column, over_ranks, initial
        if over_ranks == "sum" and self.world_size > 1:
            self._merged[name] = self._full((self.n + 1,), initial, dtype)
        return column

    def add_vectors(self, name: str, width: int, dtype: torch.dtype) -> Tensor:
        """Add a column of one vector per sample, initially NaN, once outputs have shown its width.

        With several ranks, all must call it together; the largest width is used.

        Args:
            name: Of a column that is not there yet.
            width: Numbers per sample.
            dtype: Of the numbers.

        Returns:
            The column, (N + 1, width), on the store's device.
        """
        if self.world_size > 1:
            widest = torch.tensor([width], device=self.device)
            dist.all_reduce(widest, dist.ReduceOp.MAX)
            width = int(widest)
        self._columns[name] = self._full((self.n + 1, width), torch.nan, dtype)
        self._initial[name] = torch.nan
        return self._columns[name]

    def remove_vectors(self, name: str) -> None:
        """Remove a column of one vector per sample, if it exists; all ranks must do so together."""
        if self._columns.pop(name, None) is not None:
            del self._initial[name]

    def column(self, name: str) -> Tensor:
        """Return the column ``name`` without its padding slot, (N,) or (N, width), on the CPU."""
        return self[name][: self.n].cpu()

    def write_later(self, write: Write, indices: Tensor, losses: Tensor) -> None:
        """Have a method's own columns written, at the latest before they are read; at once, if nothing is buffered.

        Args:
            write: Given the store and the losses of batches, in order, writes columns. Always the same function.
            indices: int64 (B,), the samples of a batch whose losses have just been recorded.
            losses: float32 (B,), theirs; neither tensor may change afterwards.

        Example:
            >>> def write_last(store, batches):
            ...     for indices, losses in batches:
            ...         store["score"].index_copy_(0, indices, losses)
            >>> store = ScoreStore(2)
            >>> store.write_later(write_last, torch.tensor([1]), torch.tensor([0.5]))
            >>> store.column("score")
            tensor([   nan, 0.5000])
        """
        write(self, [(indices, losses)])

    def to(self, device: torch.device | str) -> None:
        """Move every column to ``device``, unless they are on disk."""
        device = self.memory.device(device)
        self._columns = {name: column.to(device) for name, column in self._columns.items()}
        if self._score_is_loss:
            self._columns["score"] = self._columns["loss"]
        self._dirty, self._counted = self._dirty.to(device), self._counted.to(device)
        self._merged = {name: column.to(device) for name, column in self._merged.items()}

    def forget_infinite(self) -> None:
        """Reset infinite losses to never measured."""
        for chunk in self["loss"].split(_CHUNK):
            chunk.masked_fill_(chunk.isinf(), torch.nan)

    def forget_measured(self) -> None:
        """Reset every sample to never measured."""
        self._reset(self._columns)

    def _full(self, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
        return self.memory.full(shape, value, dtype, self.device)

    def _reset(self, names: Iterable[str]) -> None:
        for name in names:
            self._columns[name].fill_(self._initial[name])
            if name in self._merged:
                self._merged[name].fill_(self._initial[name])

    def mark_dirty(self, indices: Tensor) -> None:
        """Mark ``indices``, int64 (B,), as written by this rank since the last merge."""
        if self.world_size > 1:
            self._dirty[indices] = True

    def mark_counted(self, indices: Tensor) -> None:
        """Mark ``indices``, int64 (B,), as written by this rank in sum or minimum columns only."""
        if self.world_size > 1:
            self._counted[indices] = True

    def merge(self) -> None:
        """Give every rank what each rank has written since the last merge; all ranks must call it together.

        If two ranks wrote to the same sample, the higher rank's values are kept, on all ranks, except in sum and
        minimum columns. See :mod:`lightning_dataselect.state.merging`.
        """
        if self.world_size == 1:
            return
        self._counted |= self._dirty
        merge(shared_columns(self._columns, self._over_ranks, self._merged), self._dirty, self._counted, self.n)
        self._dirty.zero_()
        self._counted.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return every column, (N,) or (N, width), on the CPU."""
        columns = {id(column): column for column in self._columns.values()}  # a column with two names is copied once
        copies = {which: self.memory.copy(column[: self.n]) for which, column in columns.items()}
        return {name: copies[id(column)] for name, column in self._columns.items()}

    def state_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Return every column of some samples, on the CPU.

        Args:
            rows: int64 (m,), samples; -1 for one that was never measured.

        Example:
            >>> store = ScoreStore(2)
            >>> store["loss"][torch.tensor([0, 1])] = torch.tensor([1.5, 0.5])
            >>> store.state_of(torch.tensor([1, -1, 0]))["loss"]
            tensor([0.5000,    nan, 1.5000])
        """
        places, unknown, found = rows.clamp(min=0), rows < 0, {}
        for name, initial in self._initial.items():
            found[name] = self.column(name)[places]
            found[name][unknown] = initial
        return found

    def rank_state(self) -> dict[str, Any]:
        """Return the state that only this rank has, to be saved for each rank; nothing if the ranks' writes merge."""
        return {}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Restore an earlier :meth:`rank_state`."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the columns of an earlier :meth:`state_dict`."""
        for name, values in state.items():
            n = len(values)  # fewer samples, if the data set has grown
            if values.dim() == 2:
                self._columns[name] = self._full((self.n + 1, values.shape[1]), torch.nan, values.dtype)
                self._initial[name] = torch.nan
            self._columns[name][:n] = values.to(self._columns[name].device)
            if name in self._merged:
                self._merged[name].copy_(self._columns[name])
