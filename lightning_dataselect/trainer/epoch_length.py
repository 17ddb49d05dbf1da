"""Change the length of an epoch while a fit runs, for which Lightning has no public API."""

from __future__ import annotations

from typing import Protocol

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.trainer.patching import Restore, missing, patch_attribute

_LENGTH = ("fit_loop._combined_loader.limits", "fit_loop._data_fetcher.length")


class EpochLengths(Protocol):
    """Give the epochs of a fit the lengths of their plans."""

    def begin(self, n_batches: int, replanned: bool) -> None:
        """Make the epoch that the loop is about to begin, or to resume, ``n_batches`` long.

        Args:
            n_batches: Its length.
            replanned: Whether its plan has changed after Lightning made its iterator.
        """

    def set_next(self, n_batches: int) -> None:
        """Make the epoch after the one that is ending ``n_batches`` long."""

    def cut(self, n_batches: int) -> None:
        """Make the epoch that is beginning ``n_batches`` long, whatever the length of its loader."""

    def give_back(self) -> None:
        """Restore the user's settings of the Trainer."""


def epoch_lengths(trainer: pl.Trainer) -> EpochLengths:
    """Return how to change the length of epochs in this version of lightning, once the train loader has an iterator."""
    gone = [path for path in _LENGTH if missing(trainer, path)]
    if not gone:
        return InPlace(trainer)
    rank_zero_warn(
        f"This lightning ({pl.__version__}) has no {', '.join(gone)}, by which a selector changes the length of"
        " epochs. It sets reload_dataloaders_every_n_epochs=1 for this fit instead: right, but slower, since workers"
        " and validation loaders start anew in each epoch. lightning 2.5 and 2.6 are known to work without."
    )
    return ByReload(trainer)


class InPlace:
    """Change lengths without a new loader, so that workers persist.

    Every place that stores the length is set: ``fit_loop.max_batches`` (progress bar, end of epoch, gradient
    accumulation), the combined loader's limits (future iterators), the fetcher's ``length`` (``is_last_batch`` of the
    current one), and ``val_check_batch``. If one is left out, validation silently stops or an epoch is cut short.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer

    def begin(self, n_batches: int, replanned: bool) -> None:
        """Restart the iterator if the plan has changed, and set every length."""
        if replanned:
            iter(self._trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        self.set_next(n_batches)

    def set_next(self, n_batches: int) -> None:
        """Set every length."""
        trainer, loop = self._trainer, self._trainer.fit_loop
        assert loop._combined_loader is not None and loop._data_fetcher is not None
        loop.max_batches = n_batches
        loop._combined_loader.limits = n_batches  # of every loader in it
        loop._data_fetcher.length = n_batches
        _set_validation_batch(trainer, n_batches)

    def cut(self, n_batches: int) -> None:
        """Set every length, since Lightning may have made a new loader."""
        self.set_next(n_batches)

    def give_back(self) -> None:
        """Do nothing: the next fit sets every length."""


class ByReload:
    """Let Lightning make a new loader for each epoch and read the length from it."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._users = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        self._reload_after(1)

    def begin(self, n_batches: int, replanned: bool) -> None:
        """Have the loader of this epoch made again: schedules have been built from the length of a full one."""
        if replanned or self._trainer.fit_loop.max_batches != n_batches:
            self._reload_after(-1)  # a reload is due whatever the epoch of the last one
            self._trainer.fit_loop.setup_data()
            self._reload_after(1)

    def set_next(self, n_batches: int) -> None:
        """Do nothing: Lightning asks for the loader when the epoch begins."""

    def cut(self, n_batches: int) -> None:
        """Set the public lengths; the loader is not read to its end."""
        self._trainer.fit_loop.max_batches = n_batches
        _set_validation_batch(self._trainer, n_batches)

    def give_back(self) -> None:
        """Restore the user's reload interval."""
        self._reload_after(self._users)

    def _reload_after(self, n_epochs: int) -> None:
        self._trainer.reload_dataloaders_every_n_epochs = n_epochs  # type: ignore[attr-defined]


def shorten_val_check_interval(trainer: pl.Trainer, n_batches: int) -> Restore:
    """Make ``val_check_interval`` fit an epoch of ``n_batches`` while Lightning takes a new loader and checks it."""
    interval = trainer.val_check_interval
    if not isinstance(interval, int) or trainer.check_val_every_n_epoch is None:
        return lambda: None
    return patch_attribute(trainer, "val_check_interval", min(interval, n_batches))


def _set_validation_batch(trainer: pl.Trainer, n_batches: int) -> None:
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return
    interval = trainer.val_check_interval
    if isinstance(interval, float):
        trainer.val_check_batch = max(1, int(n_batches * interval))
    elif trainer.check_val_every_n_epoch is not None:
        # an interval that fitted the full epoch would otherwise never be reached in a shorter one
        trainer.val_check_batch = min(interval, n_batches)


def set_counted_length(trainer: pl.Trainer, n_batches: int) -> None:
    """Set only the length that the loop's counters are compared with, ``fit_loop.max_batches``.

    If an epoch had ended when the checkpoint was written, Lightning resets its counters once they reach
    ``max_batches``. With the length of a longer next epoch, it would start that one in the middle.
    """
    trainer.fit_loop.max_batches = n_batches
