"""Where the fit loop gets its loader, and where it stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning_utilities.core.inheritance import get_all_subclasses
from torch.utils.data import BatchSampler, DataLoader

from lightning_dataselect.trainer.patching import Restore, missing, patch_attribute, refusal


def intercept_train_loader(trainer: pl.Trainer, transform: Callable[[Any], Any]) -> Restore:
    """Pass every train loader that the Trainer asks for through ``transform``, wherever it comes from.

    Uses ``fit_loop._data_source.dataloader``: one place for loaders given to ``fit``, by a datamodule or by the module.
    """
    if missing(trainer, path := "fit_loop._data_source.dataloader"):
        raise refusal("no selector can take hold of the train loader", path)
    source = trainer.fit_loop._data_source
    original = source.dataloader

    def dataloader() -> Any:
        try:
            return transform(original())
        except BaseException:
            _unwrap_loader_classes()
            raise

    source.dataloader = dataloader  # type: ignore[method-assign]

    def undo() -> None:
        source.__dict__.pop("dataloader", None)

    return undo


def _unwrap_loader_classes() -> None:
    """Give loaders their own constructors back: Lightning wraps them while it asks for one, for good if that fails."""
    for base in (DataLoader, BatchSampler):
        for cls in {base, *get_all_subclasses(base)}:
            for name in ("__init__", "__setattr__", "__delattr__"):
                if (old := f"__old{name}") in vars(cls):
                    setattr(cls, name, getattr(cls, old))
                    delattr(cls, old)


def forget_train_loader(trainer: pl.Trainer) -> None:
    """Let the Trainer ask anew for a train loader that it has already been asked for, as by a callback's ``setup``."""
    if trainer.train_dataloader is not None:
        trainer.fit_loop._combined_loader = None


def come_first(trainer: pl.Trainer, callback: pl.Callback) -> None:
    """Put ``callback`` first in the Trainer's list, from where it stands: also while the list is gone through."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if callback in callbacks:  # and not called by another one
        callbacks.insert(0, callbacks.pop(callbacks.index(callback)))


def time_fetches(trainer: pl.Trainer, add: Callable[[float], None]) -> Restore:
    """Call ``add`` with the seconds that the training loop has waited for each batch.

    Uses ``epoch_loop._on_before_fetch`` and ``_on_after_fetch``: the profiler times ``next`` of a loader.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    before, after = loop._on_before_fetch, loop._on_after_fetch
    started = 0.0

    def start() -> None:
        nonlocal started
        before()
        started = time.perf_counter()

    def stop() -> None:
        add(time.perf_counter() - started)
        after()

    undos = patch_attribute(loop, "_on_before_fetch", start), patch_attribute(loop, "_on_after_fetch", stop)

    def undo() -> None:
        for each in undos:
            each()

    return undo


def overfits(trainer: pl.Trainer) -> bool:
    """Whether ``overfit_batches`` fixes which batches are trained on."""
    return bool(trainer.overfit_batches)  # type: ignore[attr-defined]


def sampler_ranks(trainer: pl.Trainer) -> tuple[int, int]:
    """World size and rank that samples are sharded over: (1, 0) where the user turned sharding off."""
    if not getattr(getattr(trainer, "_accelerator_connector", None), "use_distributed_sampler", True):
        return 1, 0
    kwargs = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
    return int(kwargs["num_replicas"]), int(kwargs["rank"])


def limited_batches(trainer: pl.Trainer, n_batches: int) -> int:
    """How many of ``n_batches`` ``limit_train_batches`` leaves of an epoch, at least one."""
    limit = trainer.limit_train_batches
    if isinstance(limit, int):
        return min(n_batches, limit)
    return max(1, int(n_batches * limit)) if limit > 0 else 0


def optimizer_steps_now(trainer: pl.Trainer) -> bool:
    """Whether the batch under way ends in an optimizer step rather than in further accumulation."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    last = batches.is_last_batch or batches.current.ready >= trainer.fit_loop.max_batches
    accumulated = batches.current.ready % trainer.accumulate_grad_batches == 0
    return accumulated or (last and not trainer.strategy.handles_gradient_accumulation)


def planned_accumulation(trainer: pl.Trainer) -> dict[int, int]:
    """``accumulate_grad_batches`` by the epoch from which it holds, with a ``GradientAccumulationScheduler`` or not."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "get_accumulate_grad_batches"):  # of whichever package
            return {epoch: callback.get_accumulate_grad_batches(epoch) for epoch in callback.epochs}
    return {0: trainer.accumulate_grad_batches}


def stops_early(trainer: pl.Trainer, n_epochs: int) -> bool:
    """Whether ``trainer.should_stop`` ends the fit after ``n_epochs``: not before ``min_epochs`` and ``min_steps``."""
    met_epochs, met_steps = n_epochs >= (trainer.min_epochs or 0), trainer.global_step >= (trainer.min_steps or 0)
    return trainer.should_stop and met_epochs and met_steps


def planned_epochs(trainer: pl.Trainer) -> int | None:
    """Number of epochs the fit will take if nothing stops it, or None if only steps or time end it.

    Uses ``fit_loop.max_epochs``, which is -1 for an endless fit.
    """
    epochs = trainer.fit_loop.max_epochs
    return None if epochs is None or epochs < 0 or math.isinf(epochs) else int(epochs)


def resumes_within_epoch(trainer: pl.Trainer) -> bool:
    """Whether the fit goes on from a checkpoint that was written before an epoch's last batch."""
    loop = trainer.fit_loop
    progress = loop.epoch_loop.batch_progress
    return loop.restarting and progress.current.completed > 0 and not progress.is_last_batch


def resumes_after_last_batch(trainer: pl.Trainer) -> bool:
    """Whether the fit goes on from a checkpoint written between an epoch's last batch and its end: after validation."""
    loop = trainer.fit_loop
    epochs, progress = loop.epoch_progress.current, loop.epoch_loop.batch_progress
    begun = loop.restarting and epochs.ready > epochs.processed  # type: ignore[attr-defined]
    return begun and progress.current.completed > 0 and progress.is_last_batch


def epochs_processed(trainer: pl.Trainer) -> int:
    """The 0-based epoch that the fit is about to train, after a resume in the middle of an epoch that epoch."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


def shows_progress(trainer: pl.Trainer) -> bool:
    """Whether this rank has a progress bar."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None
