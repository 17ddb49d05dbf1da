"""A few batches before anything is compared: does it run, what is logged, how long does a step take, what suits it?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl

from lightning_dataselect.comparison.runs import identity, threads
from lightning_dataselect.comparison.runs.run import fit, isolated
from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.methods import RandomPruning
from lightning_dataselect.utils.errors import UserInputError

N_BATCHES = 5
# The first steps of a process pay for what later ones find done.
_WARM_UP = 2
# What counts, where the user has not said: the first that the module logs.
_LIKELY = ("val_acc", "val_accuracy", "val/acc", "val/accuracy", "val_f1", "val_auroc", "val_loss", "val/loss")


@dataclass(frozen=True)
class Rehearsal:
    """Findings about a task from a few of its batches.

    Attributes:
        logged: Names of the metrics at the end of an epoch, sorted.
        fingerprint: Of code, data and versions; see `identity`.
        n_train: Samples of the training set, or 0 where that is unknown.
        n_batches: Batches of a full epoch of training, or 0 where that is unknown.
        n_val_batches: Likewise of validation.
        step_seconds: Wall-clock of a training step.
        val_seconds: Wall-clock of a validation step.
        knows_classes: Whether the steps show the logits of classes.
        device: What it trains on.
        n_threads: Threads that runs should compute with.
        on_threads: What to tell the user about that, if anything.
    """

    logged: Sequence[str]
    fingerprint: Mapping[str, str]
    n_train: int
    n_batches: int
    n_val_batches: int
    step_seconds: float
    val_seconds: float
    knows_classes: bool
    device: str
    n_threads: int
    on_threads: str

    @property
    def epoch_seconds(self) -> float:
        """An epoch of training on full data, and its validation."""
        return self.n_batches * self.step_seconds + self.n_val_batches * self.val_seconds

    def monitor(self, wanted: str | None) -> str:
        """Return the metric that counts.

        Args:
            wanted: The user's; None takes the first likely one that is logged.

        Raises:
            UserInputError: If it is not logged, or nothing is that could count.
        """
        logs = f"it logs {', '.join(self.logged) or 'nothing at all (see LightningModule.log)'}"
        if wanted is not None and wanted not in self.logged:
            raise UserInputError(f"The model logs no metric {wanted!r} to monitor; {logs}.")
        likely = [name for name in _LIKELY if name in self.logged]
        found = wanted or next(iter(likely + [name for name in self.logged if name.startswith("val")]), None)
        if found is None:
            raise UserInputError(
                f"Which metric counts? The model logs none that begins with val; {logs}. Name one as the monitor."
            )
        return found


class _Watch(pl.Callback):
    """Time steps, and look at the loaders while they are there."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.val_steps: list[float] = []
        self.data = ""
        self.n_train = self.n_batches = self.n_val_batches = 0
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loaders, and start the clock."""
        self.data = identity.data([trainer.train_dataloader, trainer.val_dataloaders])
        train, val = identity.flat(trainer.train_dataloader), identity.flat(trainer.val_dataloaders)
        self.n_batches = max(map(_length, train), default=0)
        self.n_val_batches = sum(map(_length, val))
        self.n_train = max((_length(getattr(loader, "dataset", None)) for loader in train), default=0)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        """Take the time since the last batch, the loader's included."""
        now = time.perf_counter()
        self.steps.append(now - self._started)
        self._started = now

    def on_validation_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.val_steps.append(time.perf_counter() - self._started)


def rehearse(task: Task, root: Path, *, test: bool = False) -> Rehearsal:
    """Train on a few batches of each stage: finds a task's faults before hours are spent.

    Also warms up what the first run of a process would pay for alone.

    Args:
        task: What is compared on.
        root: Where the run may write.
        test: Whether runs end with a look at the test set.

    Raises:
        UserInputError: If the task does not fit together.
    """
    watch = _Watch()
    with isolated():
        trainer, model, data = task.build(seed=0, epochs=1, callbacks=[watch], root=root, fast_dev_run=N_BATCHES)
        fit(trainer, model, data)
        logged = sorted(trainer.callback_metrics)
        if test:
            trainer.test(model, datamodule=data, verbose=False)
        device = trainer.strategy.root_device.type
    prints = {"data": watch.data, "versions": identity.versions(), **identity.code(task.origins())}
    watch_on_one = _Watch()

    def time_on_one() -> float:
        with isolated():
            fit(*task.build(seed=0, epochs=1, callbacks=[watch_on_one], root=root, fast_dev_run=N_BATCHES))
        return _typical(watch_on_one.steps)

    n_threads, on_threads = threads.choose(_typical(watch.steps), time_on_one, device=device)
    timed = watch_on_one if on_threads else watch
    with threads.using(n_threads):
        knows_classes = _knows_classes(task, root)
    return Rehearsal(
        logged=logged,
        fingerprint=prints,
        n_train=watch.n_train,
        n_batches=watch.n_batches,
        n_val_batches=watch.n_val_batches,
        step_seconds=_typical(timed.steps),
        val_seconds=_typical(timed.val_steps),
        knows_classes=knows_classes,
        device=device,
        n_threads=n_threads,
        on_threads=on_threads,
    )


def _knows_classes(task: Task, root: Path) -> bool:
    selector = RandomPruning(prune_ratio=0.0)
    try:
        with isolated():
            fit(*task.build(seed=0, epochs=1, callbacks=[selector], root=root, fast_dev_run=1))
    except Exception:
        return False  # each method's own run tells why
    return selector.store.knows_classes


def _length(sized: Any) -> int:
    try:
        return len(sized)
    except TypeError:
        return 0


def _typical(seconds: Sequence[float]) -> float:
    return median(seconds[_WARM_UP:] or seconds) if seconds else 0.0
