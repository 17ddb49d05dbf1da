"""The epochs in which a method selects, those that train on everything, and how much is dropped in each."""

from __future__ import annotations

import math
from collections.abc import Callable

from lightning_dataselect.numerics.ratio_schedule import RatioSchedule, check_ratio_of_epoch


class SelectionSchedule:
    """Say what is due in an epoch: everything, a new selection, or the same one as before.

    Attributes:
        prune_ratio: Share of the samples that is dropped, in the epoch being selected for.
        ratio_schedule: Gives it for each epoch; None if it is the same for all.
        warmup_epochs: Number of epochs at the start that train on everything.
        anneal: Share of the epochs at the end that train on everything.
        every_n_epochs: Epochs between two selections.
        max_epochs: Epochs of the current fit as the Trainer plans it, or None if only steps or time end it.
    """

    prune_ratio: float
    ratio_schedule: RatioSchedule | Callable[[int], float] | None = None
    warmup_epochs: int
    anneal: float
    every_n_epochs: int
    max_epochs: int | None

    @property
    def first_epoch(self) -> int:
        """The 0-based epoch that the method began with; above 0 in a fit resumed from a checkpoint without it."""
        return 0

    def trains_on_everything(self, epoch: int) -> bool:
        """Return whether ``epoch`` takes all samples without asking :meth:`select`."""
        return self.in_warmup(epoch) or self.in_annealing(epoch) or self.ratio_at(epoch) == 0

    def ratio_at(self, epoch: int) -> float:
        """Return the share that is dropped in ``epoch``, 0-based, after the warm-up.

        Raises:
            TrainerSettingsError: If it depends on the number of epochs of the fit, which is unknown.
        """
        schedule = self.ratio_schedule
        if schedule is None:
            return self.prune_ratio
        if not isinstance(schedule, RatioSchedule):
            return check_ratio_of_epoch(schedule, epoch)
        begin = self.first_epoch
        while self.in_warmup(begin):
            begin += 1
        n_epochs = None
        if self.max_epochs is not None:
            n_epochs = max(math.ceil(round((1 - self.anneal) * self.max_epochs, 9)) - begin, 1)
        return schedule.ratio(epoch - begin, n_epochs)

    @property
    def largest_ratio(self) -> float:
        """The largest share that an epoch may drop, as far as that is known."""
        return self.ratio_schedule.largest if isinstance(self.ratio_schedule, RatioSchedule) else self.prune_ratio

    def in_warmup(self, epoch: int) -> bool:
        """Return whether ``epoch`` is one of the first ``warmup_epochs`` since :attr:`first_epoch`."""
        return epoch < self.first_epoch + self.warmup_epochs

    def in_annealing(self, epoch: int) -> bool:
        """Return whether ``epoch`` is in the last ``anneal`` share of the epochs, if their number is known."""
        progress = self.progress(epoch)
        # rounded, because 1 - 0.9 is not 1 / 10 in floating point
        return progress is not None and round(progress, 9) >= round(1 - self.anneal, 9)

    def progress(self, epoch: int) -> float | None:
        """Return the share of the fit that is done when ``epoch`` begins; None if its end is unknown.

        Example:
            >>> schedule = SelectionSchedule()
            >>> schedule.max_epochs = 10
            >>> schedule.progress(3)
            0.3
        """
        return epoch / self.max_epochs if self.max_epochs else None

    def selects_anew(self, epoch: int) -> bool:
        """Return whether the samples of ``epoch`` are newly chosen, rather than those of the previous epoch."""
        since_warmup = epoch - self.first_epoch - self.warmup_epochs
        return not self.trains_on_everything(epoch) and since_warmup % self.every_n_epochs == 0
