"""What a run costs and reaches, measured alike for every method."""

import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.data import extract_batch_size


class Meter(pl.Callback):
    """Times training without validation, counts samples, and follows one metric.

    Args:
        monitor: The metric that is read after every epoch.
        on_epoch: Called after every epoch with the number of epochs done and the metric's value.
    """

    def __init__(self, monitor: str, on_epoch: Callable[[int, float | None], None]) -> None:
        self.monitor = monitor
        self.on_epoch = on_epoch
        self.n_samples = 0
        self.validation_seconds = 0.0
        self.curve: list[tuple[float, float]] = []
        self._started = self._validation_started = time.perf_counter()

    def start(self) -> None:
        """Called right before `Trainer.fit`, so that a method's own set-up counts as its cost."""
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Wall-clock since `start`, in seconds, without validation."""
        _wait_for_device()
        return time.perf_counter() - self._started - self.validation_seconds

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the training clock."""
        self._pause()

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on with the training clock."""
        self._go_on()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the training clock."""
        if not trainer.sanity_checking:
            self._pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on with the training clock."""
        if not trainer.sanity_checking:
            self._go_on()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        """Counts the batch's samples."""
        self.n_samples += extract_batch_size(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads the metric."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None:
            self.curve.append((self.seconds(), float(value)))
        self.on_epoch(trainer.current_epoch + 1, None if value is None else float(value))

    def _pause(self) -> None:
        _wait_for_device()
        self._validation_started = time.perf_counter()

    def _go_on(self) -> None:
        _wait_for_device()
        self.validation_seconds += time.perf_counter() - self._validation_started


def _wait_for_device() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
