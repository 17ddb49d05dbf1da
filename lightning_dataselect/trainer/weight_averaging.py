"""``StochasticWeightAveraging``, which reads once where a fit ends, told of an end that moves."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import missing


def measures_norms(trainer: pl.Trainer, epoch: int) -> bool:
    """Return whether ``epoch`` does not train, but measures what batch norms see under the averaged weights."""
    return any(
        getattr(callback, "_model_contains_batch_norm", False) and getattr(callback, "_max_epochs", None) == epoch
        for callback in trainer.callbacks  # type: ignore[attr-defined]
    )


class WeightAveragingEnd:
    """Move the epochs that weights are averaged over together with the end of the fit.

    That callback copies ``max_epochs`` when a fit begins. Should the fit go on beyond, it spends the next epoch on the
    statistics of batch norms: it replaces the weights and skips every backward pass.

    Args:
        trainer: The Trainer of a fit that is set up and has not begun.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self._averaging = [
            (callback, callback._swa_epoch_start)
            for callback in callbacks  # of whichever package
            if not missing(callback, "_swa_epoch_start") and not missing(callback, "_initialized")
        ]

    def move(self, n_epochs: int) -> None:
        """Let averaging end ``n_epochs`` later; where it is to begin after a share of the fit, that moves, too."""
        for callback, start in self._averaging:
            if missing(callback, "_max_epochs"):  # the fit is yet to begin, and the end to be read
                continue
            callback._max_epochs += n_epochs
            if isinstance(start, float) and not callback._initialized:
                callback._swa_epoch_start = int(callback._max_epochs * start)
