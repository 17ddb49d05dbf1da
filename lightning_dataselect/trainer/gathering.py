"""Training on a batch that several of the loader's have filled, within Lightning's automatic optimization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_dataselect.trainer.loops import ends_accumulation
from lightning_dataselect.trainer.patching import Restore, missing, patch_attribute, refusal

_OPTIMIZATION = ("fit_loop.epoch_loop.automatic_optimization.run", "fit_loop.epoch_loop._should_accumulate")

Take = Callable[[Callable[[], object], Any, bool], Any]
"""Find the batch to train on, None for none yet.

It is given what runs the training step without gradients on the loader's batch, that batch, and whether gradients wait
for an optimizer step that is due, as the epoch ends.
"""


@dataclass
class StepProgress:
    """Remember what has become of the batches so far.

    Attributes:
        n_pending: Trained batches whose gradients wait for their optimizer step.
        stepped: Whether the loader's last batch ended in an optimizer step; None where Lightning knows that itself.
    """

    n_pending: int = 0
    stepped: bool | None = None


def train_on_gathered(trainer: pl.Trainer, gathers: Callable[[], bool], take: Take, progress: StepProgress) -> Restore:
    """Let one batch be trained on for several of the loader's.

    To Lightning the batches in between are such as accumulate gradients: they step no optimizer and no scheduler, and
    count for no ``global_step``. Those that are trained on are accumulated by ``accumulate_grad_batches``.

    Uses ``automatic_optimization.run``, which trains on a batch, and ``epoch_loop._should_accumulate``, by which
    Lightning tells which batches end in an optimizer step.

    Args:
        trainer: The Trainer of the fit to come.
        gathers: Whether the loader's batches are gathered from now; else they are trained on as they come.
        take: Finds what to train on.
        progress: Written on batch by batch.

    Returns:
        What takes all of it back.

    Raises:
        RuntimeError: If this lightning has no such places.
    """
    for path in _OPTIMIZATION:
        if missing(trainer, path):
            raise refusal("no batches can be gathered before they are trained on", path)
    loop = trainer.fit_loop.epoch_loop
    optimize, accumulates = loop.automatic_optimization.run, loop._should_accumulate

    def run(optimizer: Any, batch_idx: int, kwargs: Any) -> Any:
        progress.stepped = None
        if not gathers():
            progress.n_pending = 0
            return optimize(optimizer, batch_idx, kwargs)
        name, own = next(iter(kwargs.items()))

        def look() -> None:
            with torch.no_grad():  # under DDP no backward pass is awaited then
                trainer.strategy.training_step(*kwargs.values())

        every, ends, n_pending = trainer.accumulate_grad_batches, ends_accumulation(trainer), progress.n_pending
        batch = take(look, own, ends and n_pending > 0)
        if batch is None:
            progress.stepped = False
            return {}
        progress.stepped = ends or n_pending + 1 >= every
        progress.n_pending = 0 if progress.stepped else n_pending + 1
        # Lightning sets gradients to zero where the index is a multiple of accumulate_grad_batches
        first = batch_idx - batch_idx % every
        return optimize(optimizer, first + n_pending, type(kwargs)({**kwargs, name: batch}))

    def should_accumulate() -> bool:
        return accumulates() if progress.stepped is None else not progress.stepped

    undos = (
        patch_attribute(loop.automatic_optimization, "run", run),
        patch_attribute(loop, "_should_accumulate", should_accumulate),
    )

    def undo() -> None:
        for each in undos:
            each()

    return undo
