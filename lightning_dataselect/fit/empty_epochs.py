"""Epochs of a stream that yields nothing: a warning, and the end of a fit that would go on for ever."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.fit.notices import warn_of_empty_epoch
from lightning_dataselect.trainer import FitLimits, planned_epochs


class EmptyEpochs:
    """Warn of an epoch without a batch, and end a fit that only steps would end, as it takes none any more.

    Args:
        trainer: The Trainer of the fit.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._has_warned = False
        self._limits: FitLimits | None = None  # moved once an endless fit is ended

    def follow(self, following: int) -> None:
        """Note that an epoch had no batch.

        Args:
            following: The 0-based epoch to come.
        """
        is_endless = planned_epochs(self._trainer) is None
        if is_endless or not self._has_warned:
            self._has_warned = True
            warn_of_empty_epoch(following - 1, "before it has taken its steps" if is_endless else None)
        if is_endless:
            self._limits = FitLimits(self._trainer)
            self._limits.end_after(following)

    def give_back(self) -> None:
        """Give the Trainer its own limits back."""
        if self._limits is not None:
            self._limits.give_back()
