"""One run: a method, a seed, a number of epochs; which leaves nothing behind in the process."""

import gc
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.comparison.runs.identity import flat
from lightning_dataselect.comparison.runs.meter import Meter
from lightning_dataselect.comparison.runs.records import RunRecord
from lightning_dataselect.comparison.runs.samples import SampleLog
from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.methods.fewer_epochs import FewerEpochs
from lightning_dataselect.report.figures import bin_scores, trained_share
from lightning_dataselect.utils.errors import UserInputError


def run(
    task: Task,
    *,
    label: str,
    selector: DataSelector | None,
    seed: int,
    epochs: int,
    of_epochs: int,
    monitor: str,
    maximize: bool,
    root: Path,
    fingerprint: dict[str, str],
    on_epoch: Callable[[int, float | None], None],
    test: bool = False,
    samples: Path | None = None,
) -> RunRecord:
    """Train once and measure.

    Args:
        task: What is compared on.
        label: The method's name in the tables.
        selector: The method's callback, or None for a baseline on full data.
        seed: Of everything random in the run.
        epochs: Epochs of the run.
        of_epochs: The run's `max_epochs`; with more than `epochs` it is `FewerEpochs` that ends it.
        monitor: The metric that counts.
        maximize: Whether more of it is better.
        root: Where the run may write.
        fingerprint: Kept with the record.
        on_epoch: Called after every epoch with the epochs done and the metric's value.
        test: Whether to measure the trained module on the test set, once, after the last epoch.
        samples: Where to write what became of single samples, see `SampleLog`.

    Raises:
        UserInputError: If the metric was never logged, or is not finite at the end.
    """
    meter = Meter(monitor, on_epoch, selector)
    log = None if selector is None or samples is None else SampleLog(selector, meter)
    fewer = FewerEpochs(budget=epochs / of_epochs, seed=seed, log=False) if epochs < of_epochs else None
    callbacks: Sequence[pl.Callback] = [callback for callback in (fewer, selector, meter, log) if callback is not None]
    with isolated():
        trainer, model, data = task.build(seed=seed, epochs=of_epochs, callbacks=callbacks, root=root)
        meter.start()
        fit(trainer, model, data)
        elapsed = meter.elapsed()
        value = float(trainer.callback_metrics.get(monitor, math.nan))
        ended_by = _ended_by(trainer, epochs)
        device = trainer.strategy.root_device.type
        tested = _tested(trainer, model, data) if test else {}
        if log is not None and samples is not None:
            loaders = flat(trainer.train_dataloader)
            log.write(samples, model, getattr(loaders[0], "dataset", None) if loaders else None)
    if not math.isfinite(value):
        raise UserInputError(f"{monitor} is {value} after the last epoch.")
    values = [point.value for point in meter.curve] or [value]
    n_total, n_forward, n_backward = _samples(selector, meter)
    return RunRecord(
        method=label,
        seed=seed,
        epochs=epochs,
        epochs_done=max(1, len(meter.epoch_samples)),
        ended_by=ended_by,
        value=value,
        best=max(values) if maximize else min(values),
        tested=tested,
        seconds=elapsed.wall,
        cpu_seconds=elapsed.cpu,
        waiting_seconds=meter.waiting_seconds,
        gpu_busy=meter.gpu_busy,
        validation_seconds=meter.validation.wall,
        n_total=n_total,
        n_forward=n_forward,
        n_backward=n_backward,
        curve=meter.curve,
        kept=trained_share(selector.history) if selector else [],
        histogram=bin_scores(selector.scores) if selector else None,
        device=device,
        fingerprint=fingerprint,
        n_threads=torch.get_num_threads(),
    )


def _samples(selector: DataSelector | None, meter: Meter) -> tuple[int, int, int]:
    """Of one full epoch, sent forward, sent backward."""
    if selector is None:
        # an epoch that a time limit has cut is no measure of a full one
        return max(meter.epoch_samples, default=meter.n_samples), meter.n_samples, meter.n_samples
    history = selector.history
    if not history:
        raise UserInputError(f"{type(selector).__name__} did nothing: the config fixes the batches (overfit_batches).")
    return (
        max(int(epoch["n_full"]) for epoch in history),
        sum(int(epoch["n_forward"]) for epoch in history),
        sum(int(epoch["n_backward"]) for epoch in history),
    )


def _ended_by(trainer: pl.Trainer, epochs: int) -> str:
    """Return what has stopped a run before its last epoch was whole, or nothing."""
    if trainer.current_epoch >= epochs:
        return ""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 1.0) <= 0:
            return "its time limit"
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch == trainer.current_epoch - 1:
            return "EarlyStopping"
    has_budget = any(isinstance(c, DataSelector) and c.budget is not None for c in trainer.callbacks)  # type: ignore[attr-defined]
    return "" if has_budget else "trainer.should_stop"


def _tested(trainer: pl.Trainer, model: pl.LightningModule, data: Any) -> dict[str, float]:
    trainer.test(model, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def fit(trainer: pl.Trainer, model: pl.LightningModule, data: Any) -> None:
    """Train; Ctrl-C is raised as such, not as an exit.

    Args:
        trainer: Of the run.
        model: Of the run.
        data: A datamodule, a train loader, a pair of train and validation loaders, or None where the module has its
            own.
    """
    if data is None or hasattr(data, "train_dataloader"):
        loaders = {"datamodule": data}
    elif isinstance(data, tuple | list) and len(data) == 2:
        loaders = {"train_dataloaders": data[0], "val_dataloaders": data[1]}
    else:
        loaders = {"train_dataloaders": data}
    try:
        trainer.fit(model, **loaders)
    except SystemExit as ended:
        # Lightning turns Ctrl-C into an exit of the whole process.
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from ended
        raise


@contextmanager
def isolated() -> Iterator[None]:
    """Restore what a run changes in the process: random states, environment, signal handler."""
    environment = dict(os.environ)
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        with isolate_rng():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        gc.collect()
