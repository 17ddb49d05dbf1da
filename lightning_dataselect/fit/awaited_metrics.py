"""Schedulers that go by a metric of a validation, which comes later than the end of an epoch that is shorter."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn


class AwaitedMetrics:
    """Let ``ReduceLROnPlateau`` wait for the first validation, where a whole epoch would have had one.

    With ``check_val_every_n_epoch=None`` validation comes every so many batches, whatever the epoch. Lightning ends a
    fit in which a metric is not there when an epoch ends.

    Args:
        trainer: The Trainer of the fit.
        method: Name of the method, for messages.
    """

    def __init__(self, trainer: pl.Trainer, method: str) -> None:
        self._trainer = trainer
        self._method = method
        self._waiting: list[pl.utilities.types.LRSchedulerConfig] = []
        self._done_before = 0
        self._has_warned = False

    def start(self) -> None:
        """Count from here on: metrics are in no checkpoint."""
        self._done_before = self._batches_done

    def end_epoch(self, n_batches: int, full: int) -> None:
        """Let schedulers wait that will not find their metric.

        Args:
            n_batches: Batches of the epoch that ends.
            full: Batches of an epoch with nothing dropped.
        """
        self.give_back()
        trainer, interval = self._trainer, self._trainer.val_check_batch
        if trainer.check_val_every_n_epoch is not None or not isinstance(interval, int) or full < interval:
            return
        if self._batches_done // interval > self._done_before // interval:
            return
        self._waiting = [
            config
            for config in trainer.lr_scheduler_configs
            if config.reduce_on_plateau and config.strict and config.interval == "epoch"
            if config.monitor not in trainer.callback_metrics
        ]
        for config in self._waiting:
            config.strict = False
        if self._waiting and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"An epoch ends before the first validation: with {self._method} it has {n_batches} batches in place of"
                f" {full}, and val_check_interval={trainer.val_check_interval}. Until then ReduceLROnPlateau does not"
                f" find {self._waiting[0].monitor!r}, and is not stepped. To step it after each epoch, leave"
                " check_val_every_n_epoch=None out."
            )

    def give_back(self) -> None:
        """Restore how strict Lightning is about missing metrics."""
        for config in self._waiting:
            config.strict = True
        self._waiting = []

    @property
    def _batches_done(self) -> int:
        return int(self._trainer.fit_loop.total_batch_idx) + 1
