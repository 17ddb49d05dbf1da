"""The history of each sample in a fit: how often it was trained on and dropped, when learnt, how confidently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory
from lightning_dataselect.state.class_history import OF_CLASSES, Shown, add_at, write_classes
from lightning_dataselect.state.merging import OverRanks
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore, Write

_MOST_BATCHES = 64
_MOST_BYTES = 8 << 20
_CHUNK = 1 << 20
_OF_ALL: dict[str, tuple[float, torch.dtype, OverRanks]] = {
    "times_trained": (0, torch.int32, "sum"),
    "times_dropped": (0, torch.int32, "sum"),
    "times_measured": (0, torch.int32, "sum"),
    "loss_sum": (0.0, torch.float32, "sum"),
}


class SampleHistoryStore(ScoreStore):
    """Keep the history of each sample besides its scores.

    Columns, int32 unless said otherwise: ``times_trained``, how often the sample was back-propagated, and
    ``times_dropped``, how often the method left it out, of an epoch or of a batch; ``times_measured``, how often it had
    a finite loss, and ``loss_sum`` (float32), the sum of these. From the first batch on that shows the logits of
    classes also ``margin`` (see `numerics.margins`), ``predicted`` and ``label`` as last seen, ``first_learnt`` (the
    epoch in which it was first classified correctly, or `class_history.NEVER`) and ``times_forgotten`` (how often it
    was classified wrong right after having been correct); ``times_classified``, how often it was classified; and
    ``margin_sum``, ``confidence_sum`` and ``confidence_squares`` (float32), the sums over these times of the margin, of
    the probability of the label (see `numerics.margins`) and of its square.

    The results of steps are buffered and written for many steps at once: before anything is read, merged or saved, and
    at the latest after 64 batches or 8 MiB. The columns take 52 bytes a sample, 16 without classes; with several ranks
    36 more, 16 without classes.

    Args:
        n: Number of samples of the training set.
        columns: Further columns and their initial values.
        world_size: Number of ranks that write.
        score_is_loss: Whether the method ranks by the last loss, so that both are one column.
        memory: Where the columns are allocated.

    Example:
        >>> from lightning_dataselect.state.class_history import NEVER
        >>> store = SampleHistoryStore(3)
        >>> for epoch, logits in enumerate(([[2.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [3.0, 0.0]])):
        ...     i, labels = torch.tensor([0, 2]), torch.tensor([0, 0])
        ...     store.record_logits(Observation(i, torch.zeros(2), torch.tensor(logits), labels, epoch))
        ...     store.count_trained(i)
        ...     store.end_epoch(kept=i)
        >>> {name: store.column(name).tolist() for name in ("times_trained", "times_dropped", "predicted")}
        {'times_trained': [2, 0, 2], 'times_dropped': [0, 2, 0], 'predicted': [1, -1, 0]}
        >>> store.column("margin").tolist(), store.column("times_forgotten").tolist()
        ([-1.0, nan, 3.0], [1, 0, 0])
        >>> store.column("first_learnt").eq(NEVER).tolist()
        [False, True, False]
    """

    _kind: tuple[Any, ...] = (0,)  # for results not written yet: their epoch, and the format of logits
    _write: Write | None = None  # what writes the method's own columns

    def __init__(
        self,
        n: int,
        columns: Mapping[str, float] | None = None,
        world_size: int = 1,
        *,
        score_is_loss: bool = False,
        memory: InMemory = IN_MEMORY,
    ) -> None:
        super().__init__(n, columns, world_size, score_is_loss=score_is_loss, memory=memory)
        self._own = list(columns or {})
        for name, (initial, dtype, over_ranks) in _OF_ALL.items():
            self.add_column(name, initial, dtype, over_ranks)
        self._forget_pending()

    @property
    def own_columns(self) -> list[str]:
        """The names of the further columns that it was created with, one number per sample."""
        return self._own

    @property
    def knows_classes(self) -> bool:
        """True once class logits were seen, and their columns exist."""
        return "margin" in self

    def __getitem__(self, name: str) -> Tensor:
        """Return the column ``name``, float32 (N + 1,), on the store's device, after writing buffered losses."""
        if name == "loss" or (name == "score" and self._score_is_loss):
            self._write_losses()
        elif self._unwritten:
            self._write_own()
        return super().__getitem__(name)

    # ---- in a step: nothing here waits for the device, or does more than buffer -----------------------------------

    def record_logits(self, seen: Observation) -> None:
        """Buffer the classes that a batch shows, if any."""
        logits, targets = seen.logits, seen.targets
        if logits is None or targets is None or logits.shape[1] < 2:
            return
        labels = targets.argmax(1) if targets.dim() == 2 else targets
        kind = seen.epoch, logits.shape[1], logits.dtype, logits.device
        if self._shown and kind != self._kind:
            self.flush()
        if logits.nbytes > _MOST_BYTES // 8:  # waiting for more of these gains nothing
            self.flush()
            self._write_classes(Shown(seen.indices, logits, labels), seen.epoch)
            return
        self._kind = kind
        # compiled modules, and loaders of some, write the next batch into the same memory
        self._shown.append(Shown(seen.indices, logits.clone(), labels.clone()))
        self._put_aside(logits.nbytes + labels.nbytes)

    def record_losses(self, indices: Tensor, losses: Tensor) -> None:
        """Buffer losses, float32 (B,), of the samples ``indices``, int64 (B,); neither tensor may change afterwards."""
        self._measured.append((indices, losses))
        self._put_aside(indices.nbytes + losses.nbytes)

    def write_later(self, write: Write, indices: Tensor, losses: Tensor) -> None:
        """Have a method's own columns written together with those of other steps (see `ScoreStore.write_later`)."""
        self._write = write
        self._unwritten.append((indices, losses))

    def count_trained(self, indices: Tensor) -> None:
        """Count samples that are back-propagated; int64 (B,), N for padding, on any device."""
        self._trained.append(indices)
        self._put_aside(indices.nbytes)

    def count_dropped(self, offered: Tensor, taken: Tensor) -> None:
        """Count samples left out of a batch, given all its samples, int64 (B,), and those it trains on, int64 (b,)."""
        self._offered.append(offered)
        self._taken.append(taken)
        self._put_aside(offered.nbytes + taken.nbytes)

    # ---- at the boundary of an epoch ------------------------------------------------------------------------------

    def end_epoch(self, kept: Tensor) -> None:
        """Merge the ranks' writes, and count the samples that the plan left out; all ranks must call it together.

        Args:
            kept: int64 (n,), the samples of the plan.
        """
        self.merge()
        if kept.numel() < self.n:
            dropped = self["times_dropped"]
            dropped += 1
            for chunk in kept.split(_CHUNK):
                add_at(dropped, chunk.to(dropped.device), -1)
            if self.world_size > 1:
                self._merged["times_dropped"].copy_(dropped)

    def forget_measured(self) -> None:
        """Reset every sample to never measured, but keep how often it was trained on and dropped."""
        self.flush()
        self._reset(self._columns.keys() - {"times_trained", "times_dropped"})

    def flush(self) -> None:
        """Write what was buffered."""
        self._write_losses()
        self._write_own()
        trained, offered, taken, shown, epoch = self._trained, self._offered, self._taken, self._shown, self._kind[0]
        measured = self._measured
        self._forget_pending()
        if measured:
            indices, losses = map(torch.cat, zip(*measured, strict=True))
            known = losses.isfinite()
            self.mark_counted(indices)
            add_at(self["times_measured"], indices, known.int())
            add_at(self["loss_sum"], indices, torch.where(known, losses, 0.0))
        if trained:
            indices = torch.cat(trained).to(self.device)
            self.mark_counted(indices)
            add_at(self["times_trained"], indices, 1)
        if offered:
            indices = torch.cat(offered).to(self.device)
            self.mark_counted(indices)
            add_at(self["times_dropped"], indices, 1)
            add_at(self["times_dropped"], torch.cat(taken).to(self.device), -1)
        if shown:
            self._write_classes(Shown(*map(torch.cat, zip(*shown, strict=True))), epoch)

    def merge(self) -> None:
        """Give every rank what each rank has written since the last merge; all ranks must call it together."""
        self.flush()
        if self.world_size > 1:
            anyone = torch.tensor([self.knows_classes], dtype=torch.int32, device=self.device)
            dist.all_reduce(anyone, dist.ReduceOp.MAX)
            if bool(anyone):
                self._open_classes()
        super().merge()

    def column(self, name: str) -> Tensor:
        """Return the column ``name`` without its padding slot, (N,) or (N, width), on the CPU."""
        self.flush()
        return super().column(name)

    def to(self, device: torch.device | str) -> None:
        """Move every column to ``device``."""
        self.flush()
        super().to(device)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the columns of an earlier :meth:`state_dict`."""
        self._forget_pending()
        if "margin" in state:
            self._open_classes()
        super().load_state_dict(state)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every column, (N,) or (N, width), on the CPU."""
        self.flush()
        return super().state_dict()

    def shared_state(self) -> dict[str, Tensor]:
        """Return every column, (N,) or (N, width), on the store's device, sharing its memory."""
        self.flush()
        return super().shared_state()

    def __getstate__(self) -> dict[str, Any]:
        """Write what was buffered before pickling."""
        self.flush()
        return self.__dict__

    # ---- inside --------------------------------------------------------------------------------------------------

    def _forget_pending(self) -> None:
        self._measured: list[tuple[Tensor, Tensor]] = []
        self._n_written = 0  # how many of these are in the column of the last loss
        self._unwritten: list[tuple[Tensor, Tensor]] = []  # what is not in a method's own columns yet
        self._trained: list[Tensor] = []
        self._offered: list[Tensor] = []
        self._taken: list[Tensor] = []
        self._shown: list[Shown] = []
        self.n_bytes_pending = 0
        """Bytes of what was buffered and is not written yet."""

    def _put_aside(self, n_bytes: int) -> None:
        self.n_bytes_pending += n_bytes
        is_full = len(self._trained) >= _MOST_BATCHES or len(self._measured) >= _MOST_BATCHES
        if is_full or self.n_bytes_pending >= _MOST_BYTES:
            self.flush()

    def _write_losses(self) -> None:
        """Write the last losses, batch by batch, since a sample may occur more than once."""
        column = self._columns["loss"]
        for indices, losses in self._measured[self._n_written :]:
            column.index_copy_(0, indices, losses)
        self._n_written = len(self._measured)

    def _write_own(self) -> None:
        """Write the method's own columns."""
        batches, self._unwritten = self._unwritten, []
        if batches and self._write is not None:
            self._write(self, batches)

    def _write_classes(self, shown: Shown, epoch: int) -> None:
        self._open_classes()
        write_classes(self, shown, epoch)

    def _open_classes(self) -> None:
        if not self.knows_classes:
            for name, (initial, dtype, over_ranks) in OF_CLASSES.items():
                self.add_column(name, initial, dtype, over_ranks)
