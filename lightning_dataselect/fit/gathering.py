"""Batches of constant size: chosen samples are gathered until they fill one, and only then trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from lightning_dataselect.data.batch_layout import BatchLayout
from lightning_dataselect.data.gathered import GatheredSamples
from lightning_dataselect.state.selection import BatchSamples
from lightning_dataselect.trainer import Restore, StepProgress, train_on_gathered

_MOST_BATCHES = 2  # that a rank keeps waiting for the others
_FEWEST = 2  # to train on where an epoch's last step cannot wait for more: BatchNorm cannot train on one


class Gathering:
    """Keep what was chosen and not trained on yet, from batch to batch and from fit to fit.

    The loader's batches stay what the Trainer counts, so lengths, limits, intervals and the place to resume at are
    those of a fit that gathers nothing. With several ranks all train as soon as each has gathered a whole batch.
    """

    def __init__(self) -> None:
        self.taken: BatchSamples | None = None
        """The gathered samples that are trained on now, known by nothing but their weights; None where none are."""
        self._samples = GatheredSamples()
        self._progress = StepProgress()
        self._world_size = 1

    def open(
        self,
        trainer: pl.Trainer,
        layout: BatchLayout,
        *,
        gathers: Callable[[], bool],
        is_whole: Callable[[], bool],
        nobody: Callable[[], int],
    ) -> Restore:
        """Take hold of the Trainer's optimization for a fit.

        Args:
            trainer: The Trainer of the fit to come.
            layout: Of the batches, as far as it is known.
            gathers: Whether this epoch gathers; else its batches are trained on as they come.
            is_whole: Whether the batch under way is trained on as it is, though the epoch gathers.
            nobody: Returns the slot in the columns that stands for no sample.

        Returns:
            What takes it back.
        """
        self.taken = None
        self._progress = StepProgress()
        self._world_size = trainer.world_size

        def take(look: Callable[[], object], own: Any, is_due: bool) -> Any:
            if is_whole():
                return own
            look()
            device = trainer.strategy.root_device
            n = self._count_ready(device, at_once=is_due)
            if n == 0:
                return None
            batch, weights = self._samples.take(n, layout)
            self.taken = BatchSamples(torch.full((n,), nobody(), device=device), weights)
            return batch

        return train_on_gathered(trainer, gathers, take, self._progress)

    def add(self, batch: Any, chosen: BatchSamples, n_offered: int, batch_size: int | None, layout: BatchLayout) -> int:
        """Gather the chosen samples of a batch.

        Args:
            batch: Cut to them.
            chosen: Which they are, and their weights in the loss.
            n_offered: Samples of the batch that they were chosen from.
            batch_size: Samples of a whole batch; None where only the loader's batches show that.
            layout: Of the batch.

        Returns:
            How many others were given up, since the other ranks are too far behind.
        """
        samples = self._samples
        if batch_size is None or batch_size < n_offered:
            batch_size = max(samples.whole, n_offered)
        samples.whole = batch_size
        if len(chosen):
            samples.add(batch, chosen)
        surplus = len(samples) - _MOST_BATCHES * samples.whole if self._world_size > 1 else 0
        samples.drop(surplus, layout)
        return max(surplus, 0)

    def to(self, device: torch.device) -> None:
        """Move what waits to ``device``."""
        self._samples.to(device)

    def end_batch(self) -> None:
        """Let go of what was trained on."""
        self.taken = None

    def state_dict(self) -> dict[str, Any]:
        """Return what waits, in plain tensors, numbers, lists and dicts as far as the loader's batches are made so."""
        return {"stepped": self._progress.stepped, "samples": self._samples.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._progress.stepped = state["stepped"]
        self._samples.load_state_dict(state["samples"])

    def _count_ready(self, device: torch.device, *, at_once: bool) -> int:
        """Count the samples to train on now, 0 for none yet; all ranks must call it together."""
        n, whole = len(self._samples), self._samples.whole
        ready = whole if n >= whole else n if at_once and n >= _FEWEST else 0
        if self._world_size > 1:
            fewest = torch.tensor(ready, device=device)
            dist.all_reduce(fewest, dist.ReduceOp.MIN)
            ready = ready if int(fewest) else 0
        return ready
