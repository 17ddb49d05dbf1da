"""The learning-rate schedules of a fit on a stream, whose length may be unknown until it ends."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.fit.notices import warn_of_manual_schedules
from lightning_dataselect.fit.schedules_in_time import SchedulesInTime
from lightning_dataselect.fit.stream_budget import UNKNOWN_LENGTH, StreamBudget
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState


class StreamSchedules:
    """Keep step-wise schedules in step where a budget ends the fit, or where steps are left out.

    Elsewhere every batch is trained on, and the Trainer's own stepping is right.

    Args:
        trainer: The Trainer of the fit.
        policy: Says whether schedules are kept in step.
        run: The position of the fit.
        budget: Ends the fit; None if only the Trainer does.
    """

    def __init__(
        self, trainer: pl.Trainer, policy: SelectionPolicy, run: RunState, budget: StreamBudget | None
    ) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._budget = budget
        self._schedules: SchedulesInTime | None = None  # None: the Trainer steps them

    def start(self) -> None:
        """Take over the schedules that would be out of step otherwise."""
        run, n_batches = self._run, stream_length(self._trainer)
        if self._budget is None:
            is_needed = run.waiting is not None and n_batches is not None
        else:
            is_needed = n_batches is not None or self._trainer.lightning_module.automatic_optimization
            if not is_needed and self._trainer.lr_scheduler_configs:
                warn_of_manual_schedules(type(self._policy).__name__)
        if is_needed:
            full = n_batches or run.fit.stream_batches or UNKNOWN_LENGTH
            self._schedules = SchedulesInTime(self._trainer, self._policy, self._budget)
            self._schedules.start(run.fit, full, full)

    def learn_length(self, n_batches: int) -> None:
        """Note how many batches a whole epoch has, once the stream has shown it."""
        if self._schedules is not None:
            self._schedules.learn_length(n_batches)

    def begin_batch(self, batch_idx: int) -> None:
        """Note that a batch has begun."""
        if self._schedules is not None and (length := self._length(batch_idx)) is not None:
            self._schedules.begin_batch(length)

    def end_batch(self, batch_idx: int) -> None:
        """Catch up after a batch."""
        if self._schedules is not None and (length := self._length(batch_idx)) is not None:
            self._schedules.end_batch(self._run.fit, length)

    def give_back(self) -> None:
        """Let the Trainer step its schedulers itself again."""
        if self._schedules is not None:
            self._schedules.give_back()

    def _length(self, batch_idx: int) -> int | None:
        """Return the batches of the current epoch, now at ``batch_idx``; None if that is unknown and not needed."""
        n_batches = stream_length(self._trainer)
        if self._budget is None:
            return n_batches
        if self._trainer.is_last_batch:
            return batch_idx + 1
        return max(n_batches or UNKNOWN_LENGTH, batch_idx + 2)


def stream_length(trainer: pl.Trainer) -> int | None:
    """Return the batches of an epoch, if the stream has a length."""
    n_batches = trainer.num_training_batches
    return n_batches if isinstance(n_batches, int) else None
