"""Keep the schedules of a fit in step: which of them are taken over, and what they are kept in step with."""

from __future__ import annotations

from typing import Protocol

import lightning.pytorch as pl

from lightning_dataselect.fit.lr_schedulers import ManualSchedulers, Schedules, StretchedSchedulers
from lightning_dataselect.fit.rate_watch import RateWatch
from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.trainer import planned_accumulation


class Budget(Protocol):
    """Know what a fit would be with nothing dropped, and how much of its budget is spent."""

    def planned(self, full_batches: int) -> UnprunedFit:
        """Return the fit as the user has planned it, with nothing dropped, of epochs of ``full_batches``."""

    def share(self, batches_done: int, n_batches: int) -> float:
        """Return the share of the budget that is spent after ``batches_done`` of ``n_batches`` of the epoch."""


class SchedulesInTime:
    """Keep step-wise schedules in step with the share of the training that is done, or of the budget that is spent.

    Args:
        trainer: The Trainer of the fit.
        policy: Says whether schedules are kept in step.
        budget: Ends the fit; None if only the Trainer does.
    """

    def __init__(self, trainer: pl.Trainer, policy: SelectionPolicy, budget: Budget | None) -> None:
        self._trainer = trainer
        self._policy = policy
        self._budget = budget
        self._schedules: Schedules | None = None  # None: schedules are left alone
        self._rates: RateWatch | None = None
        self._n_batches: int | None = None  # of the current epoch; None between batches
        self._unpruned: UnprunedFit

    def start(self, state: FitState, full: int, n_batches: int) -> None:
        """Take over step-wise schedules from here on, unless the fit is endless and has no end that they could reach.

        Args:
            state: The position of the fit.
            full: Batches of an epoch with nothing dropped.
            n_batches: Batches of the current epoch.
        """
        policy, trainer, budget = self._policy, self._trainer, self._budget
        is_endless = policy.max_epochs is None and budget is None and trainer.max_steps == -1
        if policy.lr_schedule != "stretch" or is_endless:
            return
        if budget is None:
            accumulate = planned_accumulation(trainer)
            unpruned = UnprunedFit.of_plan(full, policy.max_epochs, accumulate, trainer.max_steps)
        else:
            unpruned = budget.planned(full)
        self._unpruned = unpruned
        ends_by_steps = budget is None and 0 <= trainer.max_steps < unpruned.calls(full * unpruned.max_epochs)
        automatic = trainer.lightning_module.automatic_optimization

        def position(batches_done: int, n_batches: int) -> int:
            if budget is not None:
                return self._unpruned.at(budget.share(batches_done, n_batches))
            if automatic:
                return unpruned.position(state.plan.epoch, batches_done, n_batches, trainer.global_step)
            return state.plan.epoch * full + batches_done * full // n_batches

        if not ends_by_steps:
            self._rates = RateWatch(trainer, unpruned, type(policy).__name__, has_budget=budget is not None)
        if not trainer.lr_scheduler_configs:
            return
        if automatic:
            # epochs are as many as the budget, or max_steps, leaves room for
            moves_epochs = budget is not None or ends_by_steps
            self._schedules = StretchedSchedulers(trainer, unpruned, position, moves_epochs=moves_epochs)
        elif not ends_by_steps:
            self._schedules = ManualSchedulers(trainer, full, position, self._present_length)
        if self._schedules is not None:
            self._schedules.start(state, n_batches)

    def learn_length(self, full: int) -> None:
        """Note that an epoch with nothing dropped has ``full`` batches, if that was unknown at the start."""
        assert self._budget is not None
        self._unpruned = self._budget.planned(full)
        if isinstance(self._schedules, StretchedSchedulers):
            self._schedules.unpruned = self._unpruned

    def begin_batch(self, n_batches: int) -> None:
        """Note that a batch has begun, in an epoch of ``n_batches``."""
        self._n_batches = n_batches

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Catch up after a batch in an epoch of ``n_batches``."""
        done, watch = state.batches_done, self._rates
        if watch is not None and not watch.is_due(done, n_batches):
            watch = None
        if watch is not None:
            watch.before_schedulers(done, n_batches)
        if self._schedules is not None:
            self._schedules.end_batch(state, n_batches)
        if watch is not None:
            watch.after_schedulers()
        if self._rates is not None and done >= n_batches:
            self._rates.end_epoch()
        self._n_batches = None

    def give_back(self) -> None:
        """Let the Trainer step its schedulers itself again."""
        if self._schedules is not None:
            self._schedules.give_back()

    def _present_length(self) -> int | None:
        """Return the number of batches of the current epoch; None between batches."""
        if self._rates is not None:
            self._rates.forget()
        return self._n_batches
