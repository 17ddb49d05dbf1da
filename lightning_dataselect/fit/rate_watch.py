"""Notice rates that the user's own code sets, which a selector cannot keep in step."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.trainer import scheduled_settings

_CHANGES_THAT_TELL = 3
_EPOCHS_THAT_TELL = 2


class RateWatch:
    """Warn if rates, weight decay or momentum change by something that cannot be kept in step.

    They may change from batch to batch, or, if a budget ends the fit after another number of epochs, from epoch to
    epoch.

    Args:
        trainer: The Trainer.
        unpruned: The fit that schedules are kept in step with.
        method: Name of the method, for messages.
        has_budget: True if the fit ends when a budget is spent, not where that fit ends.
    """

    def __init__(self, trainer: pl.Trainer, unpruned: UnprunedFit, method: str, *, has_budget: bool = False) -> None:
        self._trainer = trainer
        self._full_batches, self._n_batches = unpruned.full_batches, unpruned.n_batches
        self._n_epochs = unpruned.max_epochs
        self._method = method
        self._has_budget = has_budget
        self._before: dict[str, list[float]] | None = None
        self._at_end: dict[str, list[float]] | None = None
        self._n_changes = 0
        self._n_changed_epochs = 0
        self._has_warned = False

    def is_due(self, batches_done: int, n_batches: int) -> bool:
        """Tell if a change now would be evidence; on the last batch, Lightning steps epoch-wise schedulers."""
        is_pruned = n_batches < self._full_batches or self._has_budget
        return is_pruned and batches_done < n_batches and not self._has_warned

    def before_schedulers(self, batches_done: int, n_batches: int) -> None:
        """Check the rates after a batch, before any of our schedulers is stepped."""
        if batches_done == 1:
            self._begin_epoch()
            return
        if self._before is None:
            return
        changed = _changed(self._before, scheduled_settings(self._trainer))
        self._n_changes = self._n_changes + 1 if changed else 0
        if self._n_changes == _CHANGES_THAT_TELL:
            shorter = f"this epoch takes {n_batches} batches in place of {self._full_batches}"
            why = "the fit ends with its budget" if self._has_budget else shorter
            self._warn(
                changed,
                f"The {changed} changes from batch to batch, but not by a scheduler that a selector could keep in"
                " step: your own code sets it, perhaps from trainer.global_step. With"
                f" {self._method} {why}, so a schedule over all {self._n_batches} does not reach its end.",
            )

    def after_schedulers(self) -> None:
        """Remember the rates."""
        self._before = scheduled_settings(self._trainer)

    def end_epoch(self) -> None:
        """Remember the rates with which an epoch ends."""
        if self._has_budget and not self._has_warned:
            self._at_end = scheduled_settings(self._trainer)

    def forget(self) -> None:
        """Ignore the change by a scheduler that the module's own code has stepped."""
        self._before = self._at_end = None

    def _begin_epoch(self) -> None:
        if self._at_end is None or any(config.reduce_on_plateau for config in self._trainer.lr_scheduler_configs):
            return
        changed = _changed(self._at_end, scheduled_settings(self._trainer))
        self._n_changed_epochs = self._n_changed_epochs + 1 if changed else 0
        if self._n_changed_epochs == _EPOCHS_THAT_TELL:
            self._warn(
                changed,
                f"The {changed} changes from epoch to epoch, but not by a scheduler that a selector could keep in"
                f" step: your own code sets it, perhaps from current_epoch. With {self._method} the fit ends with its"
                f" budget, so a schedule over {self._n_epochs} epochs does not reach its end.",
            )

    def _warn(self, changed: str, words: str) -> None:
        self._has_warned = True
        otherwise = ", or return a scheduler from configure_optimizers" if changed == "learning rate" else ""
        rank_zero_warn(
            f"{words} Compute it from the share of the training that is done,"
            f" (current_epoch + batch_idx / trainer.num_training_batches) / max_epochs{otherwise}."
            " lr_schedule='steps' leaves rates alone, without this warning."
        )


def _changed(before: dict[str, list[float]], now: dict[str, list[float]]) -> str:
    """Name what has changed, or return nothing."""
    return next((name for name, values in now.items() if values != before.get(name)), "")
