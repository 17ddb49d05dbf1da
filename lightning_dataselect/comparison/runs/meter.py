"""Measure the cost and the result of a run, in the same way for every method."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.data import extract_batch_size

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.comparison.runs.records import Point
from lightning_dataselect.trainer import Restore, time_fetches

BUSY_EVERY = 0.5


class Clock(NamedTuple):
    """A moment, or a span, in seconds.

    Attributes:
        wall: In wall-clock time.
        cpu: Of all threads of this process; what a loader's workers take is not in it.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Clock":
        """This moment, once the accelerator has done what it was given."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: "Clock") -> "Clock":
        """The span from `start` until this moment."""
        return Clock(self.wall - start.wall, self.cpu - start.cpu)


class Meter(pl.Callback):
    """Time training without validation, count samples, and follow one metric.

    Args:
        monitor: The metric that is read after every epoch.
        on_epoch: Called after every epoch with the number of epochs done and the metric's value.
        selector: Counts the samples that it sends backward; None if everything is trained on. It stands before the
            meter among the callbacks.

    Attributes:
        next_look: When, by `time.perf_counter`, the GPU is next asked whether it is busy.
    """

    def __init__(
        self, monitor: str, on_epoch: Callable[[int, float | None], None], selector: DataSelector | None = None
    ) -> None:
        self.monitor = monitor
        self.on_epoch = on_epoch
        self.selector = selector
        self.n_samples = 0
        self.epoch_samples: list[int] = []
        self.validation = self._aside = Clock(0.0, 0.0)
        self.waiting_seconds = 0.0
        self.curve: list[Point] = []
        self._busy: list[float] = []
        self.next_look = float("inf")
        self._started = self._validation_started = Clock.now()
        self._undo: Restore | None = None

    def start(self) -> None:
        """Called right before `Trainer.fit`, so that a method's own set-up counts as its cost."""
        self._started = Clock.now()

    def elapsed(self) -> Clock:
        """Time since `start`, without validation."""
        return Clock.now().since(self._started).since(self.validation).since(self._aside)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the clock stand still for what is no part of training."""
        start = Clock.now()
        try:
            yield
        finally:
            span = Clock.now().since(start)
            self._aside = Clock(self._aside.wall + span.wall, self._aside.cpu + span.cpu)

    @property
    def gpu_busy(self) -> float | None:
        """The share of the training time in which the GPU was at work, 0 to 1; None where it cannot be had."""
        return fmean(self._busy) if self._busy else None

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the training clock."""
        self._pause()

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the training clock."""
        self._go_on()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the training clock."""
        if not trainer.sanity_checking:
            self._pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the training clock."""
        if not trainer.sanity_checking:
            self._go_on()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to time how long the loop waits for batches, and to watch a GPU."""
        self._undo = time_fetches(trainer, self._waited)
        self.next_look = time.perf_counter() if pl_module.device.type == "cuda" else float("inf")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        """Count the batch's samples, and look now and then whether the GPU is busy."""
        self.n_samples += extract_batch_size(batch)
        if time.perf_counter() >= self.next_look:
            self._look_at_gpu(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch's samples and read the metric."""
        self.epoch_samples.append(self.n_samples - sum(self.epoch_samples))
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None:
            wall, cpu = self.elapsed()
            self.curve.append(Point(wall, float(value), cpu, self._n_backward()))
        self.on_epoch(trainer.current_epoch + 1, None if value is None else float(value))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the loop back as it was."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def _n_backward(self) -> int:
        if self.selector is None:
            return self.n_samples
        return sum(record["n_backward"] for record in self.selector.history)

    def _waited(self, seconds: float) -> None:
        self.waiting_seconds += seconds

    def _look_at_gpu(self, device: torch.device) -> None:
        try:
            # the driver's own count over its last second or less; it does not wait for the device
            self._busy.append(torch.cuda.utilization(device) / 100)
            self.next_look = time.perf_counter() + BUSY_EVERY
        except Exception:
            self.next_look = float("inf")  # the driver's library is missing, or has no such count

    def _pause(self) -> None:
        self._validation_started = Clock.now()

    def _go_on(self) -> None:
        span = Clock.now().since(self._validation_started)
        self.validation = Clock(self.validation.wall + span.wall, self.validation.cpu + span.cpu)
