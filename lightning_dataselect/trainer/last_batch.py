"""An epoch that ends with the batch under way, though its loader has more, or Lightning cannot know that it has not."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import Restore


def end_epoch_with_batch(trainer: pl.Trainer, n_batches: int) -> Restore:
    """Let the batch under way be the last of its epoch; to be called before it is trained on.

    Optimizers step on it, and validation that is due once an epoch, or less often than the epoch is long, follows it.

    Args:
        trainer: The Trainer of the fit under way.
        n_batches: The batches of the epoch, this one included.

    Returns:
        What lets epochs be validated as before; to be called when the next one begins.
    """
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
    before = trainer.val_check_batch

    def undo() -> None:
        trainer.val_check_batch = before

    if getattr(trainer, "_val_check_time_interval", None) is None:
        if isinstance(trainer.val_check_interval, float):
            trainer.val_check_batch = n_batches
        elif trainer.check_val_every_n_epoch is not None:
            trainer.val_check_batch = min(trainer.val_check_interval, n_batches)
    return undo


def read_epoch_anew(trainer: pl.Trainer) -> None:
    """Begin the epoch's iterator anew, whose loader yields other samples than when Lightning made it."""
    iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
