"""The number of batches in the epochs of a fit: in the current one as planned, and in one with nothing dropped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import lightning.pytorch as pl

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.combination import Combination
from lightning_dataselect.trainer import (
    EpochLengths,
    Restore,
    epoch_lengths,
    limited_batches,
    set_counted_length,
    shorten_val_check_interval,
)


class FitLengths:
    """Count the batches of epochs, and tell the Trainer.

    Args:
        trainer: The Trainer of the fit.
        budget: Cuts the last epoch short; None if nothing does.
    """

    def __init__(self, trainer: pl.Trainer, budget: FitBudget | None = None) -> None:
        self._trainer = trainer
        self._budget = budget
        self._of_trainer: EpochLengths | None = None  # None: the fit has not started
        self._restore_interval: Restore = _nothing
        self.is_due = False
        """True if setting the current epoch's length has to wait for the loop's counters, until the next batch."""
        self.combination: Combination | None = None
        """Knows how the loader is combined with others; None if it is the only one."""
        self.selected: Sequence[SelectedLoader] = ()
        """All loaders that samples are selected from, including this one."""
        self.n_batches = 0
        """Batches of the current epoch."""

    @property
    def has_started(self) -> bool:
        """True once the fit's first epoch has its length."""
        return self._of_trainer is not None

    # ---- counting ------------------------------------------------------------------------------------------------

    def measure(self, loader: SelectedLoader, *, trained_before: bool = False) -> None:
        """Count the batches of the current epoch.

        Args:
            loader: The train loader, under the plan of that epoch.
            trained_before: True if an earlier fit has trained it, so that no budget cuts it.
        """
        self._announce(full=False)
        self.n_batches = self._counted(loader)
        if self._budget is not None:
            affordable = self._budget.begin_epoch(self.n_batches, partial(self._count_samples, loader))
            self.n_batches = self.n_batches if trained_before else affordable

    def measure_pass(self, loader: SelectedLoader) -> None:
        """Count the batches of a pass that does not train, which no budget pays for."""
        self.n_batches = self._counted(loader)

    def _counted(self, loader: SelectedLoader) -> int:
        """Count the batches of an epoch of as many samples as ``loader`` has announced."""
        n_batches = len(loader.batches)
        if self.combination is not None:
            n_batches = self.combination.n_batches(n_batches)
        return limited_batches(self._trainer, n_batches)

    def full(self, loader: SelectedLoader) -> int:
        """Return the number of batches of an epoch with nothing dropped."""
        self._announce(full=True)
        n_batches = self._counted(loader)
        self._announce(full=False)
        return n_batches

    def _announce(self, *, full: bool) -> None:
        for loader in self.selected:
            loader.sampler.announce_full = full

    def open_budget(self, loader: SelectedLoader) -> None:
        """Tell the budget, if there is one, what training on everything would cost."""
        if self._budget is not None:
            self._budget.open(self.full(loader), partial(self._count_samples, loader, of_full_epoch=True))

    def _count_samples(self, loader: SelectedLoader, n_batches: int, *, of_full_epoch: bool = False) -> float:
        """Count the samples of the first ``n_batches`` of the current epoch, or of a full one, on all ranks."""
        batches, sampler = loader.batches, loader.sampler
        sampler.announce_full = of_full_epoch
        per_rank, size, once = len(sampler), batches.batch_size, batches.n_of_plan
        sampler.announce_full = False

        def first(n: int) -> float:
            return per_rank * n / once if size is None else min(per_rank, n * size)

        if n_batches <= once or self.combination is None or not self.combination.repeats:
            return first(min(n_batches, once)) * self._trainer.world_size
        turns, rest = divmod(n_batches, once)
        return (turns * first(once) + first(rest)) * self._trainer.world_size

    def extent(self, loader: SelectedLoader, batches_done: int, n_in_batches: int) -> tuple[int, float]:
        """Measure how far the current epoch has got.

        Args:
            loader: The train loader, under the plan of that epoch.
            batches_done: How many of its batches are done.
            n_in_batches: Samples in them that were trained on, on all ranks.

        Returns:
            The number of samples in the same part of an epoch with nothing dropped, and the share of the epoch's
            samples that are in the batches done.
        """
        planned = max(self._count_samples(loader, self._counted(loader)), 1)
        whole = self._count_samples(loader, self.full(loader), of_full_epoch=True)
        return round(whole * n_in_batches / planned), self._count_samples(loader, batches_done) / planned

    # ---- telling the Trainer -------------------------------------------------------------------------------------

    def hold_interval(self, loader: SelectedLoader) -> None:
        """Make ``val_check_interval`` fit the epoch while Lightning reloads the loader and checks it."""
        self.release_interval()
        n_batches = self._counted(loader)
        self._restore_interval = shorten_val_check_interval(self._trainer, n_batches)

    def release_interval(self) -> None:
        """Restore ``val_check_interval`` once Lightning has taken the loader."""
        self._restore_interval()
        self._restore_interval = _nothing

    def start(self, *, replanned: bool) -> None:
        """Give the fit's first epoch its length.

        Args:
            replanned: True if its plan has changed after Lightning made its iterator.
        """
        self._of_trainer = epoch_lengths(self._trainer)
        self._of_trainer.begin(self.n_batches, replanned)
        self.release_interval()

    def finish_counting(self, batches_done: int) -> None:
        """Let the loop's counters reach the end of an epoch that had ended before a resume, which resets them."""
        set_counted_length(self._trainer, batches_done)
        self.is_due = True

    def start_epoch(self) -> None:
        """Cut the new epoch if there is a budget, which a reloaded loader does not know about."""
        self.release_interval()
        if self._budget is not None and not self.is_due:
            assert self._of_trainer is not None
            self._of_trainer.cut(self.n_batches)

    def begin_batch(self) -> None:
        """Set the length if it had to wait for the loop's counters."""
        set_counted_length(self._trainer, self.n_batches)
        self.is_due = False

    def set_next(self) -> None:
        """Set the length of the next epoch, which was measured last."""
        assert self._of_trainer is not None
        self._of_trainer.set_next(self.n_batches)

    def give_back(self) -> None:
        """Let the Trainer count by itself again."""
        self.release_interval()
        if self._of_trainer is not None:
            self._of_trainer.give_back()


def _nothing() -> None:
    pass
