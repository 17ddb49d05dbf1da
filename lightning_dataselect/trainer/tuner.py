"""Lightning's searches for a learning rate or a batch size, which train for some steps without any other callback."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl

_FINDERS = frozenset({"LearningRateFinder", "BatchSizeFinder"})


def searches_first(trainer: pl.Trainer) -> bool:
    """Return whether a search may precede the first epoch: the Tuner's, or that of a callback of the user's.

    Args:
        trainer: The Trainer of a fit that is set up.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(cls.__name__ in _FINDERS for each in callbacks for cls in type(each).__mro__)  # of whichever package


def is_searching(trainer: pl.Trainer, callbacks: Sequence[pl.Callback]) -> bool:
    """Return whether a search is under way: for as long as that, the Trainer does without all of its callbacks.

    Args:
        trainer: The Trainer of a fit that is set up.
        callbacks: Those that it had then.
    """
    present: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return not any(each is callback for each in present for callback in callbacks)
