"""A fit on a stream that ends when a share of the compute of its plan is spent, however long its epochs are."""

from __future__ import annotations

import math

import lightning.pytorch as pl

from lightning_dataselect.fit.notices import warn_of_empty_epoch
from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.state.compute_budget import StreamedCompute
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.trainer import FitLimits, planned_accumulation
from lightning_dataselect.utils.errors import TrainerSettingsError

UNKNOWN_LENGTH = 1 << 40
"""Stands for the number of batches of an epoch whose end was never seen: more than any fit takes."""


class StreamBudget:
    """End a fit on a stream with the budget of its method, which is counted in batches; see `FitBudget`.

    The plan is ``max_steps``, or ``max_epochs`` times the length of the stream; where that is not known, the first
    epoch shows it, and has to be within the budget. Ranks come to the same end: a batch counts what the method expects
    of it, and what the epochs that have ended took on all ranks; a single rank counts what it took itself.

    Args:
        trainer: The Trainer of the fit.
        policy: Has the budget, and says what its samples are expected to cost.
        run: The position of the fit.
        limits: The end that the user has given the fit.
    """

    def __init__(self, trainer: pl.Trainer, policy: SelectionPolicy, run: RunState, limits: FitLimits) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._limits = limits
        self.is_over = False
        """True from the last batch on that is in the budget."""

    @property
    def max_epochs(self) -> int | None:
        """The user's number of epochs, or None if only steps end the fit."""
        return self._limits.max_epochs

    def learn_length(self, n_batches: int | None) -> None:
        """Note how many batches a whole epoch has; None if that is unknown.

        Raises:
            TrainerSettingsError: If the budget ends in an epoch of unknown length.
        """
        state, share, epochs = self._run.fit, self._policy.budget, self._limits.max_epochs
        assert share is not None
        if n_batches is not None:
            state.stream_batches = n_batches
        total = self.planned(state.stream_batches or UNKNOWN_LENGTH).n_batches
        if total >= UNKNOWN_LENGTH and epochs is not None and round(share * epochs, 9) < 1:
            raise TrainerSettingsError(
                f"{type(self._policy).__name__}(budget={share}) ends within the first of max_epochs={epochs} epochs,"
                " and the length of an epoch of the stream is not known. Give the Trainer max_steps, or"
                " limit_train_batches as a number of batches: those of training on everything; or give the data"
                " set a __len__."
            )
        full, all_batches = float(state.stream_batches or UNKNOWN_LENGTH), float(total)
        self._run.compute = StreamedCompute(share, full, all_batches, spent=state.budget_spent)

    def planned(self, full_batches: int) -> UnprunedFit:
        """Return the fit as the user has planned it, with nothing dropped, of epochs of ``full_batches``."""
        limits = self._limits
        accumulate = planned_accumulation(self._trainer)
        return UnprunedFit.of_plan(full_batches, limits.max_epochs, accumulate, limits.max_steps)

    # ---- the way there -------------------------------------------------------------------------------------------

    def share(self, batches_done: int, n_batches: int) -> float:
        """Return the share of the budget that is spent after ``batches_done`` batches of the present epoch."""
        return 1.0 if self.is_over else min(self._spent(batches_done) / self._total, 1.0)

    def begin_batch(self, batches_done: int) -> bool:
        """Return whether the batch that follows ``batches_done`` of the epoch is the last one in the budget."""
        cost = self._cost_of_batch(batches_done)
        self.is_over = self._total - self._spent(batches_done) - cost < cost / 2
        return self.is_over

    def close_epoch(self) -> None:
        """Write down what the epoch took, on all ranks, and settle whether another one follows it."""
        state = self._run.fit
        if state.batches_done == 0:  # the stream is empty by now, and no budget would ever end the fit
            warn_of_empty_epoch(state.plan.epoch, f"before the budget of {type(self._policy).__name__} is spent")
            self.is_over = True
        state.budget_spent = self._total if self.is_over else self._spent(state.batches_done, on_all_ranks=True)
        self.learn_length(None)

    def settle_end(self, epoch: int) -> None:
        """Tell the Trainer how many epochs there will be, ``epoch`` being the one to come, as far as that is known."""
        left, length = self._total - self._run.fit.budget_spent, self._run.fit.stream_batches
        if self.is_over or left < self._policy.sample_cost(epoch) / 2:
            self._limits.end_after(epoch)
        else:
            self._limits.end_after(epoch + (max(1, math.ceil(left / length)) if length else 1))

    @property
    def _total(self) -> float:
        assert self._run.compute is not None
        return self._run.compute.total

    def _spent(self, batches_done: int, *, on_all_ranks: bool = False) -> float:
        return self._run.fit.budget_spent + batches_done * self._cost_of_batch(batches_done, on_all_ranks=on_all_ranks)

    def _cost_of_batch(self, batches_done: int, *, on_all_ranks: bool = False) -> float:
        state = self._run.fit
        offered = state.n_trained + state.n_left_out
        if batches_done and offered and (on_all_ranks or self._run.world_size == 1):
            return (state.n_forward + 2 * state.n_backward) / (3 * offered)
        return self._policy.sample_cost(state.plan.epoch)
