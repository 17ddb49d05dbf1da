"""The task that is compared on: whatever builds a trainer, a module and data afresh for every run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl


class Task(Protocol):
    """Requirements of a comparison on a task."""

    @property
    def epochs(self) -> int:
        """Epochs of a full run."""

    @property
    def set_aside(self) -> Sequence[str]:
        """Selectors that it trains with otherwise, as `--methods` takes them."""

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, Any]:
        """Return fresh trainer, module and data, after seeding every global random generator.

        Args:
            seed: Given to `seed_everything` before anything is made.
            epochs: Becomes `max_epochs`, so that a schedule fits to it.
            callbacks: Added to the task's own.
            root: Where the run may write, unless the task names a place.
            fast_dev_run: Batches of a rehearsal, or 0 for a true run.

        Raises:
            UserInputError: If the task does not fit together.
        """

    def origins(self) -> Iterable[Any]:
        """Return the classes and functions that it is made of, whose source a run depends on."""

    def described(self) -> dict[str, Any]:
        """Return its settings, as the report shows them and as a run depends on them."""


def with_epochs(task: Task, epochs: int) -> Task:
    """Return the task with another number of epochs of a full run."""
    return replace(task, epochs=epochs)  # type: ignore[type-var]
