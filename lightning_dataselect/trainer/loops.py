"""The position and the settings of the fit loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerStatus

from lightning_dataselect.trainer.patching import Restore, missing, patch_attribute
from lightning_dataselect.trainer.weight_averaging import measures_norms


def come_first(trainer: pl.Trainer, callback: pl.Callback) -> None:
    """Move ``callback`` to the front of the Trainer's list, even while the list is being iterated."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if callback in callbacks:  # unless another callback has called this
        callbacks.insert(0, callbacks.pop(callbacks.index(callback)))


def time_fetches(trainer: pl.Trainer, add: Callable[[float], None]) -> Restore:
    """Call ``add`` with the seconds that the training loop waits for each batch.

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


def is_running(trainer: pl.Trainer) -> bool:
    """Return whether the Trainer is running a fit, or a pass over other data."""
    return bool(trainer.state.status == TrainerStatus.RUNNING)


def overfits(trainer: pl.Trainer) -> bool:
    """Return whether ``overfit_batches`` fixes which batches are trained on."""
    return bool(trainer.overfit_batches)  # type: ignore[attr-defined]


def sampler_ranks(trainer: pl.Trainer) -> tuple[int, int]:
    """Return the world size and rank for sharding samples: (1, 0) if the user turned sharding off."""
    if not getattr(getattr(trainer, "_accelerator_connector", None), "use_distributed_sampler", True):
        return 1, 0
    kwargs = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
    return int(kwargs["num_replicas"]), int(kwargs["rank"])


def limited_batches(trainer: pl.Trainer, n_batches: int) -> int:
    """Return how many of an epoch's ``n_batches`` remain under ``limit_train_batches``, at least one."""
    limit = trainer.limit_train_batches
    if isinstance(limit, int):
        return min(n_batches, limit)
    return max(1, int(n_batches * limit)) if limit > 0 else 0


def ends_accumulation(trainer: pl.Trainer) -> bool:
    """Return whether the current batch is the last of its epoch, after which gradients accumulate no further."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    last = batches.is_last_batch or batches.current.ready >= trainer.fit_loop.max_batches
    return last and not trainer.strategy.handles_gradient_accumulation


def optimizer_steps_now(trainer: pl.Trainer) -> bool:
    """Return whether the current batch ends in an optimizer step rather than in further accumulation."""
    loop = trainer.fit_loop.epoch_loop
    if not missing(loop, "_should_accumulate"):
        return not loop._should_accumulate()
    accumulated = loop.batch_progress.current.ready % trainer.accumulate_grad_batches == 0
    return accumulated or ends_accumulation(trainer)


def planned_accumulation(trainer: pl.Trainer) -> dict[int, int]:
    """Return ``accumulate_grad_batches`` by its first epoch, with a ``GradientAccumulationScheduler`` or without."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "get_accumulate_grad_batches"):  # lightning's or pytorch_lightning's
            return {epoch: callback.get_accumulate_grad_batches(epoch) for epoch in callback.epochs}
    return {0: trainer.accumulate_grad_batches}


def stops_early(trainer: pl.Trainer, n_epochs: int) -> bool:
    """Return whether ``should_stop`` ends the fit after ``n_epochs``, with ``min_epochs`` and ``min_steps`` met."""
    met_epochs, met_steps = n_epochs >= (trainer.min_epochs or 0), trainer.global_step >= (trainer.min_steps or 0)
    return trainer.should_stop and met_epochs and met_steps


def steps_reached(trainer: pl.Trainer) -> bool:
    """Return whether ``max_steps`` ends the fit now."""
    return trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps


def planned_epochs(trainer: pl.Trainer) -> int | None:
    """Return the number of epochs if nothing stops the fit, or None if only steps or time end it.

    Uses ``fit_loop.max_epochs``, which is -1 for an endless fit.
    """
    epochs = trainer.fit_loop.max_epochs
    return None if epochs is None or epochs < 0 or math.isinf(epochs) else int(epochs)


def training_epochs(trainer: pl.Trainer) -> int | None:
    """Return the number of `planned_epochs` that train, of a fit that has begun."""
    epochs = planned_epochs(trainer)
    return epochs - 1 if epochs and measures_norms(trainer, epochs - 1) else epochs


def trains_nothing(trainer: pl.Trainer) -> bool:
    """Return whether ``max_epochs`` or ``max_steps`` is 0, so that nothing is trained."""
    return 0 in (trainer.fit_loop.max_epochs, trainer.max_steps)


def resumes_within_epoch(trainer: pl.Trainer) -> bool:
    """Return whether the fit resumes from a checkpoint that was written before an epoch's last batch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return _is_within_epoch(trainer) and progress.current.completed > 0 and not progress.is_last_batch


def resumes_after_last_batch(trainer: pl.Trainer) -> bool:
    """Return whether it resumes from one written between an epoch's last batch and its end, after validation."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return _is_within_epoch(trainer) and progress.current.completed > 0 and progress.is_last_batch


def _is_within_epoch(trainer: pl.Trainer) -> bool:
    epochs = trainer.fit_loop.epoch_progress.current
    return trainer.fit_loop.restarting and epochs.ready > epochs.processed  # type: ignore[attr-defined]


def begin_ended_epoch(trainer: pl.Trainer) -> None:
    """Let the loop, before it runs, begin the next epoch if the checkpoint was written when one had ended.

    With ``max_steps`` set, Lightning resumes the ended epoch and trains a few more batches in it. A checkpoint saved
    with an epoch's last batch does not count that batch as completed, so a later checkpoint would resume one batch too
    early.
    """
    loop = trainer.fit_loop
    if loop.restarting and not _is_within_epoch(trainer):
        _set_epochs(trainer, begun=loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        batches: Any = loop.epoch_loop.batch_progress.total
        batches.completed = batches.processed
        for each in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
            each.on_iteration_done()


def go_on_within_epoch(trainer: pl.Trainer, epoch: int) -> None:
    """Let the loop, before it runs, continue ``epoch``, which the end of a fit had cut short.

    Lightning counts a cut epoch as done or, with ``max_steps`` set, the one after it as begun.
    """
    _set_epochs(trainer, begun=epoch + 1, done=epoch)
    trainer.fit_loop.restarting = True
    trainer.fit_loop.update_restart_stage()


def _set_epochs(trainer: pl.Trainer, begun: int, done: int | None = None) -> None:
    progress: Any = trainer.fit_loop.epoch_progress
    done = begun if done is None else done
    for name, value in {"ready": begun, "started": begun, "processed": done, "completed": done}.items():
        change = value - getattr(progress.current, name)
        for counts in (progress.current, progress.total):
            setattr(counts, name, getattr(counts, name) + change)


def epochs_processed(trainer: pl.Trainer) -> int:
    """Return the 0-based epoch that the fit is about to train; after a resume within an epoch, that epoch."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


def shows_progress(trainer: pl.Trainer) -> bool:
    """Return whether this rank shows a progress bar."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None
