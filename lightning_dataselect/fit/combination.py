"""The length of an epoch with several train loaders, according to the mode of a ``CombinedLoader``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lightning_dataselect.utils.errors import UnsupportedLoaderError

CYCLES = "max_size_cycle"


@dataclass(frozen=True)
class Combination:
    """Compute how many batches an epoch has if samples are selected from one of several loaders.

    Attributes:
        mode: ``"max_size_cycle"``, ``"max_size"`` or ``"min_size"``; Lightning itself refuses any other.
        lengths_of_others: Returns the current number of batches of every other loader, by its position.
        least_of_others: Returns the same, as small as selection may make it; None if it selects from no other loader.

    Example:
        >>> [Combination(mode, lambda: {1: 7}).n_batches(5) for mode in ("max_size_cycle", "max_size", "min_size")]
        [7, 7, 5]
    """

    mode: str
    lengths_of_others: Callable[[], Mapping[int, float]]
    least_of_others: Callable[[], Mapping[int, float]] | None = None

    @property
    def repeats(self) -> bool:
        """True if a loader that is exhausted before the end of the epoch starts again."""
        return self.mode == CYCLES

    def n_batches(self, own: int) -> int:
        """Return the number of batches of an epoch if the loader itself has ``own``.

        Raises:
            UnsupportedLoaderError: If the number of another loader's batches is unknown.
        """
        others = self.lengths_of_others()
        for position, length in others.items():
            if math.isinf(length):
                raise UnsupportedLoaderError(
                    f"The train loader at position {position} has no length, so that of an epoch is not known before it"
                    " ends. Give its data set a __len__, or the Trainer limit_train_batches as a number of batches."
                )
        lengths = [own, *map(int, others.values())]
        return min(lengths) if self.mode == "min_size" else max(lengths)

    def is_shorter_than_others(self, own: int) -> bool:
        """Return whether the length of an epoch is that of another loader, however few batches this loader has."""
        others = (self.least_of_others or self.lengths_of_others)()
        return self.mode != "min_size" and own <= max(others.values(), default=0)
