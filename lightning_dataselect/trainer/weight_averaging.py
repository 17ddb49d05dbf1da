"""``StochasticWeightAveraging``, which reads once where a fit ends, told of an end that moves."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.trainer.patching import missing

_NAMES = ("_swa_epoch_start", "_initialized")


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
        self._averaging = [  # of whichever package
            (callback, getattr(callback, "_swa_epoch_start", None))
            for callback in callbacks
            if any(cls.__name__ == "StochasticWeightAveraging" for cls in type(callback).__mro__)
        ]
        self._has_warned = False

    def move(self, n_epochs: int) -> None:
        """Let averaging end ``n_epochs`` later; where it is to begin after a share of the fit, that moves, too."""
        for callback, start in self._averaging:
            if gone := [name for name in _NAMES if missing(callback, name)]:
                self._warn(gone, n_epochs)
                continue
            if missing(callback, "_max_epochs"):  # the fit is yet to begin, and the end to be read
                continue
            callback._max_epochs += n_epochs
            if isinstance(start, float) and not callback._initialized:
                callback._swa_epoch_start = int(callback._max_epochs * start)

    def _warn(self, gone: list[str], n_epochs: int) -> None:
        if n_epochs == 0 or self._has_warned:
            return
        self._has_warned = True
        rank_zero_warn(
            f"StochasticWeightAveraging of this lightning ({pl.__version__}) has no {', '.join(gone)}, by which a"
            " selector with a budget tells it that the fit ends after another number of epochs. It averages until the"
            " end that the Trainer announced, and skips the steps after that: leave one of the two out. lightning 2.5"
            " and 2.6 are known to work."
        )
