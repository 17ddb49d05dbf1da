"""The Trainer's step-wise learning-rate schedulers, stepped in time with the share of the training that is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.trainer import (
    intercept_scheduler_calls,
    learning_rates,
    optimizer_steps_now,
    step_lr_scheduler,
    take_over_step_schedulers,
)

_CHANGES_THAT_TELL = 3


class Schedules(Protocol):
    """Keeps the learning rates of a fit in time."""

    def start(self, state: FitState, n_batches: int) -> None:
        """Begin, or go on, with an epoch of ``n_batches``."""

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Catch up after a batch of an epoch of ``n_batches``."""

    def give_back(self) -> None:
        """Leave the Trainer's schedulers to whoever steps them without a selector."""


class StretchedSchedulers:
    """Take over the schedulers that Lightning steps after optimizer steps, until they are given back.

    Args:
        trainer: The Trainer, its schedulers set up.
        unpruned: The fit that they are kept in time with.
    """

    def __init__(self, trainer: pl.Trainer, unpruned: UnprunedFit) -> None:
        self._trainer = trainer
        self._unpruned = unpruned
        self._taken = list(trainer.lr_scheduler_configs)
        self._frequencies, self.give_back = take_over_step_schedulers(trainer)

    def start(self, state: FitState, n_batches: int) -> None:
        """Begin to count; what lies before the first epoch with this callback is not made up for."""
        if not state.scheduler_calls:
            state.scheduler_calls = [0] * len(self._frequencies)
            self._missing(state, self._position(state, n_batches))

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Step each scheduler as often as it is short of, after a batch that ends in an optimizer step."""
        if not optimizer_steps_now(self._trainer):
            return
        position = self._position(state, n_batches)
        calls, steps = self._missing(state, position), self._unpruned.calls(position)
        for taken, config, missing in zip(self._taken, self._trainer.lr_scheduler_configs, calls, strict=True):
            # StochasticWeightAveraging puts a scheduler of its own in the place of the user's
            for left in range(missing - 1, -1, -1) if config is taken else ():
                step_lr_scheduler(self._trainer, config.scheduler, steps - left)

    def _position(self, state: FitState, n_batches: int) -> int:
        return self._unpruned.position(state.plan.epoch, state.batches_done, n_batches, self._trainer.global_step)

    def _missing(self, state: FitState, position: int) -> list[int]:
        """Return how many calls each scheduler is short of; they count as made from now on."""
        due = [0 if f is None else self._unpruned.calls(position, f) for f in self._frequencies]
        missing = [max(now - made, 0) for now, made in zip(due, state.scheduler_calls, strict=True)]
        state.scheduler_calls = [made + more for made, more in zip(state.scheduler_calls, missing, strict=True)]
        return missing


class ManualSchedulers:
    """Let the ``step()`` that a manually optimizing module calls within a batch count for as many as it stands for.

    Two calls in an epoch show on which batches a module steps its scheduler: on every one, or every second. From then
    on a call makes as many steps as the unpruned fit would have made by that share of the training. A call on one batch
    of an epoch alone, the last say, counts for one.

    Args:
        trainer: The Trainer, its schedulers set up.
        full_batches: Batches of an epoch with nothing pruned.
        present_length: Returns the number of batches of the present epoch, None between batches.
    """

    def __init__(self, trainer: pl.Trainer, full_batches: int, present_length: Callable[[], int | None]) -> None:
        self._full_batches = full_batches
        self._present_length = present_length
        self._state: FitState | None = None
        self._last: dict[int, tuple[int, int, Callable[[], None]]] = {}  # epoch, batch and step of the last call
        self._n_schedulers = len(trainer.lr_scheduler_configs)
        self.give_back = intercept_scheduler_calls(trainer, self._call)

    def start(self, state: FitState, n_batches: int) -> None:
        """Begin, or go on, to count: ``state.scheduler_calls`` holds four numbers a scheduler, see `_Calls`."""
        self._state = state
        if not state.scheduler_calls:
            state.scheduler_calls = [*_Calls(begun=state.plan.epoch)] * self._n_schedulers

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Make up, after an epoch's last batch, for what its calls have left."""
        if state.batches_done >= n_batches:
            for which, (epoch, _, step) in self._last.items():
                if epoch == state.plan.epoch and self._calls_of(which).period > 0:
                    self._catch_up(which, self._full_batches, step)

    def _call(self, which: int, step: Callable[[], None]) -> None:
        n, state = self._present_length(), self._state
        assert state is not None
        if n is None:
            step()
            return
        epoch, batch_idx, calls = state.plan.epoch, state.batches_done, self._calls_of(which)
        last_epoch, last_batch, _ = self._last.get(which, (-1, -1, step))
        if calls.period < 0 and last_epoch == epoch and batch_idx > last_batch:
            period = batch_idx - last_batch
            calls = self._keep(which, calls._replace(first=last_batch % period, period=period))
        self._last[which] = epoch, batch_idx, step
        if calls.period > 0:
            self._catch_up(which, (batch_idx + 1) * self._full_batches // n, step)
        else:
            step()
            self._keep(which, calls._replace(made=calls.made + 1))

    def _catch_up(self, which: int, position: int, step: Callable[[], None]) -> None:
        """Step as often as is due after ``position`` batches of what would be the present epoch."""
        assert self._state is not None
        calls = self._calls_of(which)
        epochs_before = self._state.plan.epoch - calls.begun
        due = epochs_before * calls.within(self._full_batches) + calls.within(position)
        for _ in range(calls.made, due):
            step()
        self._keep(which, calls._replace(made=max(calls.made, due)))

    def _calls_of(self, which: int) -> _Calls:
        assert self._state is not None
        return _Calls(*self._state.scheduler_calls[4 * which : 4 * which + 4])

    def _keep(self, which: int, calls: _Calls) -> _Calls:
        assert self._state is not None
        self._state.scheduler_calls[4 * which : 4 * which + 4] = calls
        return calls


class _Calls(NamedTuple):
    """Calls seen of one scheduler."""

    made: int = 0  # steps since the epoch `begun`
    first: int = -1  # the first batch of an epoch that steps, -1 for unknown
    period: int = -1  # batches from one that steps to the next
    begun: int = 0

    def within(self, n_batches: int) -> int:
        """Return how many of the first ``n_batches`` batches of an epoch step.

        Example:
            >>> [_Calls(first=1, period=2).within(n) for n in range(6)]
            [0, 0, 1, 1, 2, 2]
        """
        return max(-(-(n_batches - self.first) // self.period), 0)


class RateWatch:
    """Say so where rates change from batch to batch by something that cannot be kept in time.

    Args:
        trainer: The Trainer.
        full_batches: Batches of an epoch with nothing pruned.
        max_epochs: Number of epochs of the fit.
        method: Name of the method, for messages.
    """

    def __init__(self, trainer: pl.Trainer, full_batches: int, max_epochs: int, method: str) -> None:
        self._trainer = trainer
        self._full_batches = full_batches
        self._max_epochs = max_epochs
        self._method = method
        self._before: list[float] | None = None
        self._n_changes = 0

    def before_schedulers(self, batches_done: int, n_batches: int) -> None:
        """Look at the rates after a batch, before any scheduler of ours is stepped."""
        is_pruned, is_last = n_batches < self._full_batches, batches_done >= n_batches
        if self._before is None or is_last or not is_pruned or self._n_changes >= _CHANGES_THAT_TELL:
            return  # on the last batch Lightning steps schedulers that go by epochs
        self._n_changes = self._n_changes + 1 if learning_rates(self._trainer) != self._before else 0
        if self._n_changes == _CHANGES_THAT_TELL:
            whole = self._full_batches * self._max_epochs
            rank_zero_warn(
                "The learning rate changes from batch to batch, but by no scheduler that a selector could keep in time:"
                " your own code sets it, from trainer.global_step say. With"
                f" {self._method} this epoch takes {n_batches} batches in place of {self._full_batches}, so a schedule"
                f" over all {whole} stops on the way. Let it go by the share of the training that is done,"
                " (current_epoch + batch_idx / trainer.num_training_batches) / max_epochs, or return a scheduler from"
                " configure_optimizers. lr_schedule='steps' leaves rates alone, and says nothing."
            )

    def after_schedulers(self, batches_done: int, n_batches: int) -> None:
        """Remember the rates; from epoch to epoch they may change."""
        self._before = None if batches_done >= n_batches else learning_rates(self._trainer)

    def forget(self) -> None:
        """Take no notice of the change by a scheduler that the module's own code has stepped."""
        self._before = None
