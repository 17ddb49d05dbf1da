"""Record the end of an epoch: a whole one, or one that the end of the fit cuts short."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.lengths import FitLengths
from lightning_dataselect.fit.misread import forget_misread
from lightning_dataselect.fit.notices import warn_of_losses
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.step.reader import StepReader


class EpochClosing:
    """Merge what the ranks have measured in an epoch, and add its record to the history, on all ranks together.

    Args:
        trainer: The Trainer of the fit.
        policy: The method, for messages.
        run: The columns and the position of the fit.
        reader: Has read the losses.
        budget: Is told what the epoch cost; None if only the Trainer ends the fit.
        lengths: Knows how long the epoch is.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        policy: SelectionPolicy,
        run: RunState,
        reader: StepReader,
        budget: FitBudget | None,
        lengths: FitLengths,
    ) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._reader = reader
        self._budget = budget
        self._lengths = lengths
        self._has_warned = False

    def close(self, loader: SelectedLoader) -> None:
        """Record an epoch that is complete.

        Args:
            loader: The train loader, under the plan of that epoch.
        """
        store, state = self._run.store, self._run.fit
        forget_misread(self._run, self._reader, ends_epoch=True)
        store.end_epoch(state.plan.indices)
        state.sum_over_ranks(store.world_size, store.device)
        if self._budget is not None:
            self._budget.close_last()
        if not self._has_warned and not self._reader.blind:
            self._has_warned = warn_of_losses(self._run, type(self._policy).__name__)
        store.forget_infinite()
        state.close(store.n, *self._extent(loader))

    def cut(self, loader: SelectedLoader) -> None:
        """Record an epoch that the end of the fit cuts short, so that a longer fit can continue it."""
        store, state = self._run.store, self._run.fit
        forget_misread(self._run, self._reader, ends_epoch=True)
        store.merge()
        state.sum_over_ranks(store.world_size, store.device)
        state.cut(store.n, *self._extent(loader))
        state.leave_counts_to_first(self._trainer.global_rank)

    def _extent(self, loader: SelectedLoader) -> tuple[int, float]:
        state = self._run.fit
        return self._lengths.extent(loader, state.batches_done, state.n_trained + state.n_left_out)
