"""A fit that ends when a share of the compute of its plan is spent, however many epochs that takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning.pytorch as pl

from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.state.compute_budget import ComputeBudget
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.trainer import FitLimits, planned_accumulation
from lightning_dataselect.utils.errors import TrainerSettingsError

CountSamples = Callable[[int], float]
"""Count the samples of the first so many batches of an epoch, on all ranks."""

_SLACK = 1e-6  # of an epoch: sums of shares are seldom exact in floating point


class FitBudget:
    """End a fit with the budget of its method: only the last epoch is cut short.

    Every rank comes to the same end, because all go by what the epochs that have ended cost on all ranks, and by what
    the present one is expected to cost.

    Args:
        trainer: The Trainer of a fit that is set up and has not begun.
        policy: Has the budget, and says what its samples are expected to cost.
        run: The records of the epochs that have ended.

    Raises:
        TrainerSettingsError: If nothing says what training on everything would be.
    """

    def __init__(self, trainer: pl.Trainer, policy: SelectionPolicy, run: RunState) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._limits = FitLimits(trainer)
        if self._limits.max_epochs is None and self._limits.max_steps == -1:
            raise TrainerSettingsError(
                f"{type(policy).__name__}(budget={policy.budget}) ends the fit after a share of its compute, but with"
                f" max_epochs={trainer.max_epochs} and max_steps=-1 it has no end to take a share of. Give the Trainer"
                " max_epochs or max_steps: those of training on everything."
            )
        self.max_epochs = self._limits.max_epochs
        """The user's number of epochs, or None if only steps end the fit."""
        self.is_last = False
        """True if the present epoch is the last one."""
        self._cost = self._cost_of_batch = 0.0  # of the present epoch

    def open(self, full_batches: int, count: CountSamples) -> None:
        """Take note of what training on everything would cost.

        Args:
            full_batches: Batches of an epoch with nothing dropped.
            count: Counts the samples of such an epoch.
        """
        assert self._policy.budget is not None
        plan = self.planned(full_batches)
        epochs, batches = divmod(plan.n_batches, max(full_batches, 1))
        full_epoch = count(full_batches)
        self._run.compute = ComputeBudget(self._policy.budget, full_epoch, epochs * full_epoch + count(batches))

    def planned(self, full_batches: int) -> UnprunedFit:
        """Return the fit as the user has planned it, with nothing dropped."""
        limits = self._limits
        accumulate = planned_accumulation(self._trainer)
        return UnprunedFit.of_plan(full_batches, limits.max_epochs, accumulate, limits.max_steps)

    @property
    def limits(self) -> FitLimits:
        """The user's own end of the fit, and the means to move it."""
        return self._limits

    # ---- the end -------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Announce a provisional end to those who plan by it, so that no fit is refused that would go on."""
        limits, begun = self._limits, max(self._trainer.current_epoch, self._run.known_epochs) + 1
        assert self._policy.budget is not None
        planned = limits.max_epochs or 0
        share = planned if self._trainer.ckpt_path else math.ceil(self._policy.budget * planned - _SLACK)
        limits.end_after(max(share, begun))

    def begin_epoch(self, n_batches: int, count: CountSamples) -> int:
        """Settle how many batches of the present epoch are in the budget.

        Args:
            n_batches: Batches of its plan.
            count: Counts the samples of them.

        Returns:
            The number of batches that it is to have, at least one.
        """
        epoch = self._run.fit.plan.epoch
        cost_of_sample, left = self._policy.sample_cost(epoch), self._left_before(epoch)
        self._cost, self._cost_of_batch = cost_of_sample * count(n_batches), cost_of_sample * count(1)
        self.is_last = left - self._cost < self._cost_of_batch / 2
        if left < self._cost - self._cost_of_batch / 2:
            n_batches = min(n_batches, max(1, math.floor(left / self._cost_of_batch + 0.5)))
        return n_batches

    def settle_end(self, epoch: int) -> None:
        """Tell the Trainer where the fit ends, of which ``epoch`` comes next, if later ones are as it is."""
        if self.is_spent(epoch):
            self._limits.end_after(epoch)
            return
        if self._run.fit.plan.epoch != epoch:
            return
        further = (self._left_before(epoch) - self._cost) / max(self._cost, self._cost_of_batch, _SLACK)
        n_further = 0 if self.is_last else max(1, math.ceil(further - _SLACK))
        self._limits.end_after(epoch + 1 + n_further)

    def close_last(self) -> None:
        """Write down that the budget is used up, where the present epoch was the last one."""
        if self.is_last:
            self._run.fit.budget_spent = self._total

    def is_spent(self, epoch: int) -> bool:
        """Return whether nothing is left for ``epoch``, the one to come: less than half a batch, but for the first."""
        if self._run.fit.budget_spent >= self._total or self._trains_nothing(epoch):
            return True
        has_begun = self._run.spent_before(epoch) > 0
        return has_begun and self._left_before(epoch) < max(self._cost_of_batch / 2, _SLACK)

    def _trains_nothing(self, epoch: int) -> bool:
        """Return whether the fit has gone on for all of the user's epochs, and the last of them spent nothing."""
        history, planned = self._run.fit.history, self.max_epochs
        if planned is None or epoch < planned or not history:
            return False
        return history[-1]["n_forward"] == history[-1]["n_backward"] == 0

    def affords_pass(self, n: int, epoch: int) -> bool:
        """Return whether a pass that measures ``n`` samples leaves a batch for ``epoch``, the one to come."""
        return self._left_before(epoch) - n / 3 >= self._cost_of_batch

    def end_early(self, epoch: int, further: float) -> None:
        """Let the fit end once ``further`` samples are trained on from ``epoch`` on, unless it ends sooner anyway."""
        spent = self._run.spent_before(epoch)
        if spent + further < self._total:
            self._run.fit.shortened_at, self._run.fit.early_end = spent, spent + further

    def give_back(self) -> None:
        """End fits where the user has said."""
        self._limits.give_back()

    # ---- the way there -------------------------------------------------------------------------------------------

    def share(self, batches_done: int, n_batches: int) -> float:
        """Return the share of the budget that is spent after ``batches_done`` of ``n_batches`` of the present epoch."""
        run = self._run
        spent = run.spent_before(run.fit.plan.epoch)
        before, after = run.progress(spent), 1.0 if self.is_last else run.progress(spent + self._cost)
        return min(before + (after - before) * batches_done / n_batches, 1.0)

    @property
    def _total(self) -> float:
        assert self._run.compute is not None
        return self._run.fit.early_end or self._run.compute.total

    def _left_before(self, epoch: int) -> float:
        return self._total - self._run.spent_before(epoch)
