"""The epochs of a fit on train loaders under a plan, as the Trainer's hooks drive them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.pace import Pace
from lightning_dataselect.fit.planned_loader import PlannedLoader
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.reader import StepReader


class Epochs:
    """Drive a fit from epoch to epoch on behalf of one selector: tell the batches of its loader apart, and keep pace.

    Args:
        planned: The selector's train loader, and what its epochs take from it.
        run: The columns and the position of the fit.
        reader: Reads the losses of the samples.
        pace: Says when an epoch begins and ends.
    """

    def __init__(self, planned: PlannedLoader, run: RunState, reader: StepReader, pace: Pace) -> None:
        self._planned = planned
        self._run = run
        self._reader = reader
        self._pace = pace
        pace.add(planned)

    @property
    def n_batches(self) -> int:
        """Batches of the current epoch."""
        return self._pace.n_batches

    @property
    def loader(self) -> SelectedLoader:
        """The train loader under a plan, once the Trainer has asked for one."""
        return self._planned.loader

    @property
    def batch_size(self) -> int | None:
        """Samples of a full batch on this rank; None if the user's own batch sampler makes the batches."""
        return self.loader.batches.batch_size

    @property
    def first_batch(self) -> int:
        """The first batch of the epoch that the loader yields; above 0 if the epoch is resumed."""
        return self.loader.batches.start_batch

    def prepare_loader(self, given: object) -> object:
        """Take the loader that the Trainer would train on; return the one that it is to use instead."""
        return self._pace.prepare_loader(given)

    def start(self) -> None:
        """Determine the current epoch and its length, and take over schedules."""
        self._pace.start(self._planned)

    def start_epoch(self) -> None:
        """Probe compiled steps again, and release what was held while Lightning took a loader."""
        self._reader.capture.start_epoch()
        self._pace.start_epoch(self._planned)

    def arrive(self, batch_idx: int, batch: Any) -> int:
        """Return how many samples a batch holds that is read ahead of its training."""
        return self.loader.batches.size_of(batch_idx)

    def begin_batch(self, batch_idx: int, batch: Any, device: torch.device) -> BatchSamples | None:
        """Begin a batch; return its samples, on ``device``, or None if none are left to train on in this loader."""
        run = self._run
        if not self._pace.begin_batch(self._planned):
            return None
        batches = self._planned.loader.batches
        if batches.watches_order:
            batches.check_order(batch_idx, batch)
        taken = batches.take(batch_idx)
        if taken is None:
            return None
        plan, slots, weights = run.fit.plan, taken.slots(run.store.n), None
        if plan.weights is not None:
            weights = plan.weights_of(taken.indices).to(device, non_blocking=True)
        if slots.device != device:  # checked inline: a short step would notice a call
            slots = slots.to(device, non_blocking=True)
        return BatchSamples(slots, weights)

    def end_batch(self, batch_idx: int) -> None:
        """Count a batch as done, and keep schedules in step."""
        self._pace.end_batch(self._planned, self._run.fit, batch_idx)

    def end_epoch(self, seconds: float) -> None:
        """Close the epoch and, if another one follows, choose its samples and set its length.

        Args:
            seconds: How long the epoch has trained.
        """
        self._pace.end_epoch(self._planned, seconds)

    def give_back(self) -> None:
        """Let the Trainer step its schedulers and count its batches itself again."""
        self._pace.give_back(self._planned)

    def score_samples(
        self, indices: Tensor, store: ScoreStore, loader: SelectedLoader | None = None
    ) -> Iterator[Observation]:
        """Measure samples by a pass without gradients and side effects; see :func:`~.rescoring.score_samples`.

        Args:
            indices: int64 (m,), dataset indices, sorted.
            store: Knows the last loss of every sample.
            loader: Reads them; None for the train loader.
        """
        return self._planned.score_samples(indices, store, loader)
