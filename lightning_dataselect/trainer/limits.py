"""The end of a fit, as the user planned it, and as a budget moves it."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.trainer.loops import planned_epochs
from lightning_dataselect.trainer.weight_averaging import WeightAveragingEnd


class FitLimits:
    """Hold the limits of a fit, ``max_epochs`` and ``max_steps``, and change them until they are given back.

    Args:
        trainer: The Trainer of a fit that is set up and has not begun.

    Attributes:
        max_epochs: The user's number of epochs, or None if only steps or time end the fit.
        max_steps: The user's number of optimizer steps, or -1.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self.max_epochs = planned_epochs(trainer)
        self.max_steps = trainer.max_steps
        self._averaging = WeightAveragingEnd(trainer)
        self._users = self._present = trainer.fit_loop.max_epochs or 0

    def end_after(self, n_epochs: int) -> None:
        """End the fit after ``n_epochs``, however many steps these take; keep epochs that others have added."""
        self._move(n_epochs, max_steps=-1)

    def give_back(self) -> None:
        """Restore the user's limits."""
        self._move(self._users, self.max_steps)

    def _move(self, n_epochs: int, max_steps: int) -> None:
        loop = self._trainer.fit_loop
        loop.max_epochs = (loop.max_epochs or 0) + n_epochs - self._present
        loop.epoch_loop.max_steps = max_steps
        self._averaging.move(n_epochs - self._present)
        self._present = n_epochs
