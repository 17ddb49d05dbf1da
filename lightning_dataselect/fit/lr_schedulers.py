"""The Trainer's step-wise learning-rate schedulers, stepped in time with the share of the training that is done."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.trainer import step_lr_scheduler, take_over_step_schedulers


class StretchedSchedulers:
    """Take over the schedulers that go by steps, until they are given back.

    Args:
        trainer: The Trainer, its schedulers set up.
        unpruned: The fit that they are kept in time with.
    """

    def __init__(self, trainer: pl.Trainer, unpruned: UnprunedFit) -> None:
        self._unpruned = unpruned
        self._taken = list(trainer.lr_scheduler_configs)
        self._frequencies, self.give_back = take_over_step_schedulers(trainer)

    def start(self, trainer: pl.Trainer, state: FitState, n_batches: int) -> None:
        """Begin to count; what lies before the first epoch with this callback is not made up for."""
        if not state.scheduler_calls:
            state.scheduler_calls = [0] * len(self._frequencies)
            self._missing(trainer, state, n_batches)

    def catch_up(self, trainer: pl.Trainer, state: FitState, n_batches: int) -> None:
        """Step each scheduler as often as it is short of, after a batch of an epoch of ``n_batches``."""
        calls = self._missing(trainer, state, n_batches)
        for taken, config, missing in zip(self._taken, trainer.lr_scheduler_configs, calls, strict=True):
            # StochasticWeightAveraging puts a scheduler of its own in the place of the user's
            for _ in range(missing if config is taken else 0):
                step_lr_scheduler(trainer, config.scheduler)

    def _missing(self, trainer: pl.Trainer, state: FitState, n_batches: int) -> list[int]:
        """Count the calls that each scheduler is short of; they count as made from now on."""
        position = self._unpruned.position(state.plan.epoch, state.batches_done, n_batches, trainer.global_step)
        due = [0 if f is None else self._unpruned.calls(position, f) for f in self._frequencies]
        missing = [max(now - made, 0) for now, made in zip(due, state.scheduler_calls, strict=True)]
        state.scheduler_calls = [made + more for made, more in zip(state.scheduler_calls, missing, strict=True)]
        return missing
