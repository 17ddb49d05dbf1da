"""Passes over a stream that leave samples out: which ones, and where a pass ends, the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.data.kept_stream import kept_stream
from lightning_dataselect.data.keys import named
from lightning_dataselect.data.passed_on import filter_batches
from lightning_dataselect.data.read_ahead import ReadAhead
from lightning_dataselect.data.stream import name_of_stream
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.stream_rows import gather_rows
from lightning_dataselect.state.stream_store import KeyedStore
from lightning_dataselect.utils.errors import UnsupportedLoaderError

_NOTHING = object()


class StreamPasses:
    """Lead a fit from pass to pass over a stream.

    A pass is shorter by what it leaves out, and by how much is not known beforehand. So one batch is read ahead, and
    once a rank has no further one, all ranks end with the current batch.

    Args:
        trainer: The Trainer of the fit.
        policy: Chooses what a pass leaves out.
        run: The columns and the position of the fit.
    """

    def __init__(self, trainer: pl.Trainer, policy: SelectionPolicy, run: RunState) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._last: int | None = None  # batch of the pass under way, once it is known
        self._ahead = ReadAhead(lambda: run.fit.batches_done)
        self._asks_itself: str | None = None  # name of a stream that must ask the filter itself
        self._passes_on = False  # its DataLoader yields what the stream yields
        self.n_left_out = 0
        """Samples that the present pass leaves out, on all ranks."""

    def wrap_loader(self, loader: Any) -> Any:
        """Return what the Trainer is to iterate in place of the user's loader."""
        policy = self._policy
        assert policy.sample_id is not None
        policy.keeps.begin_fit()
        kept = kept_stream(loader, policy.keeps, policy.sample_id)
        self._asks_itself = name_of_stream(loader) if kept is None else None
        self._passes_on = type(loader) is DataLoader and loader.batch_size is None
        looped = filter_batches(loader, self._look_ahead, kept)
        self._ahead.follow(looped)
        self._leave_out(self._store.left_out)
        return looped

    def begin_batch(self, batch_idx: int) -> bool:
        """Begin a batch; return whether it is the last of its pass.

        Raises:
            UnsupportedLoaderError: If the stream never asks which samples are kept.
        """
        if self._asks_itself is not None and not self._policy.keeps.is_asked:
            raise self._refuse_unasked()
        self._ahead.forget(before=batch_idx)
        return batch_idx == self._last

    def choose(self, epoch: int) -> None:
        """Choose what the pass of ``epoch`` leaves out; all ranks must call it together, when the one before ended."""
        policy, store = self._policy, self._store
        self._last = None
        self._ahead.forget()
        if policy.trains_on_everything(epoch):
            self._leave_out(torch.empty(0, dtype=torch.int64))
            return
        rows = gather_rows(store, ["score", *store.own_columns], self._run.world_size)
        out = policy.leave_out(epoch, rows)
        own = torch.zeros_like(out)
        own[rows.own] = out[rows.own]
        self._leave_out(
            torch.cat([rows.hashes[own], rows.hashes[out & ~own]])
        )  # own ones first, in case there is not room for all
        store.count_left_out(rows.slots[out[rows.own]])
        # ranks that were forked from one process share a filter that existed before
        self._trainer.strategy.barrier("what a pass leaves out")

    def extent(self, n_offered: int, *, has_ended: bool) -> tuple[int, float]:
        """Return how many samples the part of the pass that was done has left out, and which share of the pass it is.

        All ranks must call it together.

        Args:
            n_offered: Samples of its batches, on all ranks.
            has_ended: True if the stream had no more.
        """
        store = self._store
        n_known = torch.tensor([len(store.keys)], device=store.device)
        if self._run.world_size > 1:
            dist.all_reduce(n_known)
        done = 1.0 if has_ended else min(n_offered / max(int(n_known) - self.n_left_out, 1), 1.0)
        return round(self.n_left_out * done), done

    # ---- inside --------------------------------------------------------------------------------------------------

    def _refuse_unasked(self) -> UnsupportedLoaderError:
        name, sample_id = type(self._policy).__name__, named(self._policy.sample_id)
        ask = (
            f"with `keeps = {name.lower()}.keeps`, keep a sample only if `keeps(key)` is true for its key, that of"
            f" {sample_id}."
        )
        if self._passes_on:
            return UnsupportedLoaderError(
                f"DataLoader(batch_size=None) passes on what {self._asks_itself} yields, so {name} cannot leave samples"
                f" out of it. Where {self._asks_itself} yields samples, let the DataLoader make batches of them"
                f" (batch_size=32, say). Where it yields batches, let it yield their samples instead, or ask before it"
                f" makes a batch: {ask}"
            )
        return UnsupportedLoaderError(
            f"{self._asks_itself} makes its batches itself, so {name} cannot leave samples out of them. Let the stream"
            f" ask before it decodes and batches: {ask}"
        )

    @property
    def _store(self) -> KeyedStore:
        store = self._run.store
        assert isinstance(store, KeyedStore)
        return store

    def _leave_out(self, hashes: Tensor) -> None:
        self._store.left_out, self.n_left_out = hashes, len(hashes.unique())
        self._policy.keeps.leave_out(hashes)

    def _look_ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of a pass; know of each, when it is yielded, whether another one follows."""
        self._last, index = None, self._run.fit.batches_done
        coming = self._ahead.fetch(batches, index, _NOTHING)
        more = self._agree(coming)
        while more:
            batch, coming = coming, self._ahead.fetch(batches, index + 1, _NOTHING)
            if not (more := self._agree(coming)):
                self._last = index
            yield batch
            index += 1

    def _agree(self, coming: Any) -> bool:
        """Return whether every rank has a batch."""
        has = coming is not _NOTHING
        if self._run.world_size == 1:
            return has
        everyone = torch.tensor([has], dtype=torch.int32, device=self._trainer.strategy.root_device)
        dist.all_reduce(everyone, dist.ReduceOp.MIN)
        return bool(everyone)
