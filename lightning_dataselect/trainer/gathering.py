"""Train on a batch gathered from several of the loader's, within Lightning's automatic optimization."""

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
"""Return the batch to train on, or None if there is none yet.

Its arguments are a function that runs the training step on the loader's batch without gradients, that batch, and
whether gradients are waiting for an optimizer step that is due because the epoch ends.
"""


@dataclass
class StepProgress:
    """Remember what happened to the batches so far.

    Attributes:
        n_pending: Trained batches whose gradients are waiting for an optimizer step.
        stepped: Whether the loader's last batch ended in an optimizer step; None if Lightning knows that itself.
    """

    n_pending: int = 0
    stepped: bool | None = None


def train_on_gathered(trainer: pl.Trainer, gathers: Callable[[], bool], take: Take, progress: StepProgress) -> Restore:
    """Train on one batch for several of the loader's.

    To Lightning, the batches in between look like gradient accumulation: they step no optimizer and no scheduler, and
    do not count in ``global_step``. ``accumulate_grad_batches`` then counts the batches that are trained on.

    Uses ``automatic_optimization.run``, which trains on a batch, and ``epoch_loop._should_accumulate``, which tells
    Lightning which batches end in an optimizer step.

    Args:
        trainer: The Trainer of the fit to come.
        gathers: Whether the samples of the loader's batches are gathered now; otherwise its batches are trained on as
            they come.
        take: Returns the batch to train on.
        progress: Updated after each batch.

    Returns:
        A function that undoes all of this.

    Raises:
        RuntimeError: If this version of lightning lacks one of these names.
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
            with torch.no_grad():  # DDP then expects no backward pass
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
