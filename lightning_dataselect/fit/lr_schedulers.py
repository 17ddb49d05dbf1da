"""The Trainer's step-wise learning-rate schedulers, kept in step with the share of the training that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import lightning.pytorch as pl

from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.trainer import (
    intercept_scheduler_calls,
    optimizer_steps_now,
    step_lr_scheduler,
    take_over_schedulers,
)

Position = Callable[[int, int], int]
"""Find the batch of the unpruned fit that corresponds to so many batches of an epoch of so many."""


class Schedules(Protocol):
    """Keep the learning rates of a fit in step with its progress."""

    def start(self, state: FitState, n_batches: int) -> None:
        """Begin, or continue, an epoch of ``n_batches``."""

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Catch up after a batch in an epoch of ``n_batches``."""

    def give_back(self) -> None:
        """Give the Trainer's schedulers back to whoever steps them without a selector."""


class StretchedSchedulers:
    """Take over the schedulers that Lightning steps after optimizer steps, until they are given back.

    If the planned epochs pass faster or slower than those of the fit, epoch-wise schedulers are stepped accordingly.

    Args:
        trainer: The Trainer, its schedulers set up.
        unpruned: The fit that they are kept in step with.
        position: Finds the corresponding batch of that fit, see `Position`.
        moves_epochs: True to take over the epoch-wise schedulers too.
    """

    def __init__(
        self, trainer: pl.Trainer, unpruned: UnprunedFit, position: Position, *, moves_epochs: bool = False
    ) -> None:
        self._trainer = trainer
        self.unpruned = unpruned
        """On a stream, only an assumption until its length is known."""
        self._position = position
        self._taken = list(trainer.lr_scheduler_configs)
        self._by_epoch = [config.interval == "epoch" for config in self._taken]
        intervals = ("step", "epoch") if moves_epochs else ("step",)
        self._frequencies, self.give_back = take_over_schedulers(trainer, intervals)

    def start(self, state: FitState, n_batches: int) -> None:
        """Start to count; epochs before the first one with this callback are not made up for."""
        if not state.scheduler_calls:
            state.scheduler_calls = [0] * len(self._frequencies)
            self._missing(state, self._position(state.batches_done, n_batches))

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Make each scheduler's missing steps, after an optimizer step or at the end of an epoch."""
        ends_epoch = state.batches_done >= n_batches
        if not (ends_epoch or optimizer_steps_now(self._trainer)):
            return
        position = self._position(state.batches_done, n_batches)
        calls, steps = self._missing(state, position, ends_epoch), self.unpruned.calls(position)
        epoch = max(position - 1, 0) // self.unpruned.full_batches
        for which, (taken, config) in enumerate(zip(self._taken, self._trainer.lr_scheduler_configs, strict=True)):
            # StochasticWeightAveraging replaces the user's scheduler with its own
            for left in range(calls[which] - 1, -1, -1) if config is taken else ():
                if self._by_epoch[which]:
                    epoch = (state.scheduler_calls[which] - left) * (self._frequencies[which] or 1) - 1
                step_lr_scheduler(self._trainer, config.scheduler, steps - left, epoch)

    def _missing(self, state: FitState, position: int, ends_epoch: bool = True) -> list[int]:
        """Return how many calls each scheduler is missing, and count them as made."""
        due = [
            0 if every is None or (by_epoch and not ends_epoch) else self._due(position, every, by_epoch)
            for every, by_epoch in zip(self._frequencies, self._by_epoch, strict=True)
        ]
        missing = [max(now - made, 0) for now, made in zip(due, state.scheduler_calls, strict=True)]
        state.scheduler_calls = [made + more for made, more in zip(state.scheduler_calls, missing, strict=True)]
        return missing

    def _due(self, position: int, every: int, by_epoch: bool) -> int:
        if by_epoch:
            return position // self.unpruned.full_batches // every
        return self.unpruned.calls(position, every)


class ManualSchedulers:
    """Let a ``step()`` call of a manually optimizing module make as many steps as it stands for.

    Two calls in an epoch show on which batches a module steps its scheduler: on every one, or on every second one; and
    also on the last one, if that is none of them. From then on, a call makes as many steps as the unpruned fit would
    have made by that share of the training. A call on a single batch of an epoch, such as the last one, or between two
    epochs, stands for as many calls as planned epochs pass in one.

    Args:
        trainer: The Trainer, its schedulers set up.
        full_batches: Batches of an epoch with nothing pruned.
        position: Finds the corresponding batch of the unpruned fit, see `Position`.
        present_length: Returns the number of batches of the current epoch, None between batches.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        full_batches: int,
        position: Position,
        present_length: Callable[[], int | None],
    ) -> None:
        self._full_batches = full_batches
        self._position = position
        self._present_length = present_length
        self._state: FitState | None = None
        self._last: dict[int, tuple[int, int, Callable[[], None]]] = {}  # epoch, batch and step of the last call
        self._n_schedulers = len(trainer.lr_scheduler_configs)
        self.give_back = intercept_scheduler_calls(trainer, self._call)

    def start(self, state: FitState, n_batches: int) -> None:
        """Start or continue to count: ``state.scheduler_calls`` holds seven numbers per scheduler, see `_Calls`."""
        self._state = state
        if not state.scheduler_calls:
            begun = self._position(0, n_batches) // self._full_batches
            state.scheduler_calls = [*_Calls(begun=begun)] * self._n_schedulers

    def end_batch(self, state: FitState, n_batches: int) -> None:
        """Make up, after an epoch's last batch, for the steps that its calls have left."""
        if state.batches_done >= n_batches:
            for which, (epoch, _, step) in self._last.items():
                if epoch == state.plan.epoch and self._calls_of(which).period > 0:
                    self._catch_up(which, self._position(n_batches, n_batches), step)

    def _call(self, which: int, step: Callable[[], None]) -> None:
        n, state = self._present_length(), self._state
        assert state is not None
        if n is None:
            self._call_between_batches(which, step)
            return
        epoch, batch_idx, calls = state.plan.epoch, state.batches_done, self._calls_of(which)
        last_epoch, last_batch, _ = self._last.get(which, (-1, -1, step))
        is_last = batch_idx + 1 == n
        if last_epoch == epoch and batch_idx > last_batch and not (calls.is_sure or (is_last and calls.period > 0)):
            period = batch_idx - last_batch
            calls = calls._replace(first=last_batch % period, period=period, is_sure=int(not is_last))
        if calls.period > 1 and is_last and (batch_idx - calls.first) % calls.period:
            calls = calls._replace(at_end=1)
        self._keep(which, calls)
        self._last[which] = epoch, batch_idx, step
        if calls.period > 0:
            self._catch_up(which, self._position(batch_idx + 1, n), step)
        else:
            self._answer(which, self._position(n, n), epoch + 1, step)

    def _call_between_batches(self, which: int, step: Callable[[], None]) -> None:
        assert self._state is not None
        history, epoch = self._state.history, self._state.plan.epoch
        n_epochs = history[-1]["epoch"] + 1 if history else 0
        if n_epochs == 0 or self._calls_of(which).period > 0:
            step()
        else:
            self._answer(which, self._position(int(epoch < n_epochs), 1), n_epochs, step)

    def _answer(self, which: int, position: int, n_epochs: int, step: Callable[[], None]) -> None:
        """Let a call that is made once an epoch stand for the number of unpruned epochs that pass in one of the fit."""
        calls = self._calls_of(which)
        calls = self._keep(which, calls._replace(asked=calls.asked + 1))
        stands_for = position / (self._full_batches * n_epochs)
        self._step_until(which, math.floor(round(calls.asked * stands_for, 6)), step)

    def _catch_up(self, which: int, position: int, step: Callable[[], None]) -> None:
        """Make the steps that are due after ``position`` batches of the unpruned fit."""
        calls = self._calls_of(which)
        epochs, batches = divmod(position, self._full_batches)
        a_whole_epoch = calls.within_epoch(self._full_batches)
        self._step_until(which, (epochs - calls.begun) * a_whole_epoch + calls.within(batches), step)

    def _step_until(self, which: int, due: int, step: Callable[[], None]) -> None:
        calls = self._calls_of(which)
        for _ in range(calls.made, due):
            step()
        self._keep(which, calls._replace(made=max(calls.made, due)))

    def _calls_of(self, which: int) -> _Calls:
        assert self._state is not None
        return _Calls(*self._state.scheduler_calls[7 * which : 7 * which + 7])

    def _keep(self, which: int, calls: _Calls) -> _Calls:
        assert self._state is not None
        self._state.scheduler_calls[7 * which : 7 * which + 7] = calls
        return calls


class _Calls(NamedTuple):
    """The observed calls of one scheduler."""

    made: int = 0  # steps since the epoch `begun` of the unpruned fit
    first: int = -1  # the first batch of an epoch that steps, -1 for unknown
    period: int = -1  # batches from one that steps to the next
    begun: int = 0
    asked: int = 0  # calls by the module while `period` is unknown
    at_end: int = 0  # 1 if an epoch's last batch steps although no period ends there
    is_sure: int = 0  # 1 if `period` does not rest on a last batch, which may step for being the last

    def within(self, n_batches: int) -> int:
        """Return how many of the first ``n_batches`` batches of an epoch step.

        Example:
            >>> [_Calls(first=1, period=2).within(n) for n in range(6)]
            [0, 0, 1, 1, 2, 2]
        """
        return max(-(-(n_batches - self.first) // self.period), 0)

    def within_epoch(self, n_batches: int) -> int:
        """Return how many of an epoch's batches step, of which it has ``n_batches``.

        Example:
            >>> _Calls(first=2, period=3, at_end=1).within_epoch(10)  # after batches 3, 6, 9 and 10
            4
        """
        ends_in_between = (n_batches - 1 - self.first) % self.period != 0
        return self.within(n_batches) + self.at_end * ends_in_between
