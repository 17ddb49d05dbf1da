"""End an epoch with the current batch, although its loader has more, or Lightning cannot know that it has not."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import missing, refusal

_NAMES = ("fit_loop.epoch_loop.batch_progress.is_last_batch", "fit_loop._data_fetcher")


class EpochEnd:
    """End epochs of a fit, whatever the length of their loader, and run the validation that is due then.

    Args:
        trainer: The Trainer of the fit to come.

    Raises:
        UnsupportedTrainerError: If this version of lightning has no attribute that marks a batch as the last one.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        for path in _NAMES:
            if missing(trainer, path):
                raise refusal("no epoch of a stream can be ended before its loader", path)
        self._trainer = trainer
        self._users: int | float | None = None  # val_check_batch as it was, while it is replaced
        self._is_moved = False

    def end_with_batch(self, n_batches: int) -> None:
        """Make the current batch the last of its epoch; to be called before it is trained on.

        Optimizers step on it. Validation follows if it is due once an epoch, or at an interval longer than the epoch.

        Args:
            n_batches: Number of batches in the epoch, including this one.
        """
        trainer = self._trainer
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
        if getattr(trainer, "_val_check_time_interval", None) is not None:
            return
        interval, self._users, self._is_moved = trainer.val_check_interval, trainer.val_check_batch, True
        if isinstance(interval, float):
            trainer.val_check_batch = n_batches
        elif trainer.check_val_every_n_epoch is not None:
            trainer.val_check_batch = min(interval, n_batches)

    def let_go(self) -> None:
        """Restore the user's validation interval, for the next epoch or the next fit."""
        if self._is_moved:
            assert self._users is not None
            self._trainer.val_check_batch, self._is_moved = self._users, False

    def read_anew(self) -> None:
        """Restart the epoch's iterator, since its loader now yields other samples than when Lightning made it."""
        iter(self._trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
