"""The base of every score: write one number a sample from what a training step has shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore


class Score:
    """Rate samples: the higher the score, the sooner ``sampler="highest"`` keeps a sample.

    Derive from it to write a score of your own: a frozen dataclass, whose fields are its arguments, with :meth:`rate`.

    Example:
        >>> from dataclasses import dataclass
        >>> from lightning_dataselect import ScoreSelector
        >>> @dataclass(frozen=True)
        ... class SquaredLoss(Score):
        ...     def rate(self, seen, store):
        ...         store["score"][seen.indices] = seen.losses.square()
        >>> ScoreSelector(score=SquaredLoss(), sampler="proportional").warmup_epochs
        1
    """

    measuring_epochs: ClassVar[int] = 1
    """Epochs measured where ``warmup_epochs`` is not given."""
    is_signed: ClassVar[bool] = False
    """True if the score may be below zero, so that nothing can be drawn in proportion to it."""

    vectors: ClassVar[tuple[str, ...]] = ()
    """Columns of one vector a sample that :meth:`rate` adds, of no more use once nothing is measured any more."""

    @property
    def fewest_epochs(self) -> int:
        """Epochs without which there is no score."""
        return 1

    @property
    def needs_extra_forward(self) -> bool:
        """True if :meth:`before_step` runs the step, so that one that optimizes manually cannot be measured."""
        return False

    @property
    def needs_one_loader(self) -> bool:
        """True if the step must not have batches of several train loaders."""
        return False

    def columns(self) -> dict[str, float]:
        """Return the columns that the score keeps besides ``"score"``, by name, with their initial values."""
        return {}

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Write ``store["score"]`` of the samples of a batch; nothing here may wait for the device."""
        raise NotImplementedError(f"{type(self).__name__} must define rate(seen, store).")

    def open(self, context: FitContext, is_wanted: Callable[[], bool]) -> Score:
        """Return what rates the samples of one fit: the score itself, unless it has to watch the module.

        Args:
            context: The fit.
            is_wanted: Whether the batch under way is measured.
        """
        return self

    def before_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], size: int) -> int:
        """Measure a batch before the step that trains; return how many samples were back-propagated for it.

        Args:
            step: The module's own ``training_step``.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            size: Number of samples of the batch.
        """
        return 0
