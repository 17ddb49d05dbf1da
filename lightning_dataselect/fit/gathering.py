"""Batches of constant size: gather chosen samples until they fill a batch, and only then train on them."""

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
from lightning_dataselect.utils.errors import InvalidArgumentError

_MOST_BATCHES = 2  # full batches that a rank keeps while it waits for the others
_FEWEST = 2  # samples for an epoch's last step, which cannot wait for more: BatchNorm cannot train on one


def check_gathers(method: str, score_every_n_batches: int, loader: str | int | None) -> None:
    """Refuse arguments that contradict batches of constant size.

    Args:
        method: Name of the class, for messages.
        score_every_n_batches: As the user has given it.
        loader: As the user has given it.

    Raises:
        InvalidArgumentError: If either of the two is given.

    Example:
        >>> check_gathers("SelectiveBackprop", 1, None)
    """
    if score_every_n_batches > 1:
        raise InvalidArgumentError(
            f"{method}(constant_batch_size=True, score_every_n_batches={score_every_n_batches}): batches that are not"
            " scored update the scores of the samples that are trained on, but gathered samples are trained on only in"
            " later batches. Leave one of the two out."
        )
    if loader is not None:
        raise InvalidArgumentError(
            f"{method}(constant_batch_size=True, loader={loader!r}): the samples of several batches would be combined"
            " with a single batch of the other loaders, and the other batches of those would be skipped. Leave"
            " constant_batch_size out, or train on one loader."
        )


class Gathering:
    """Keep the samples that were chosen but not trained on yet, from batch to batch and from fit to fit.

    The Trainer still counts the loader's batches, so lengths, limits, intervals and the position to resume at are those
    of a fit that gathers nothing. With several ranks, all of them train as soon as each has gathered a full batch.
    """

    def __init__(self) -> None:
        self.taken: BatchSamples | None = None
        """The gathered samples that are being trained on, identified only by their weights; None if there are none."""
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
        """Patch the Trainer's optimization for a fit.

        Args:
            trainer: The Trainer of the fit to come.
            layout: That of the batches, as far as it is known.
            gathers: Whether this epoch gathers; otherwise its batches are trained on as they come.
            is_whole: Whether the current batch is trained on as it is, although the epoch gathers.
            nobody: Returns the slot in the columns that belongs to no sample.

        Returns:
            A function that undoes it.
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
            chosen: The chosen samples, and their weights in the loss.
            n_offered: Samples of the batch that they were chosen from.
            batch_size: Samples of a full batch; None if only the loader's batches show that.
            layout: Of the batch.

        Returns:
            How many samples were discarded because the other ranks are too far behind.
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
        """Move the waiting samples to ``device``."""
        self._samples.to(device)

    def end_batch(self) -> None:
        """Release the samples that were trained on."""
        self.taken = None

    def state_dict(self) -> dict[str, Any]:
        """Return the waiting samples, in plain types as far as the loader's batches are made of these."""
        return {"stepped": self._progress.stepped, "samples": self._samples.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._progress.stepped = state["stepped"]
        self._samples.load_state_dict(state["samples"])

    def _count_ready(self, device: torch.device, *, at_once: bool) -> int:
        """Return how many samples to train on now, 0 for none yet; all ranks must call it together."""
        n, whole = len(self._samples), self._samples.whole
        ready = whole if n >= whole else n if at_once and n >= _FEWEST else 0
        if self._world_size > 1:
            fewest = torch.tensor(ready, device=device)
            dist.all_reduce(fewest, dist.ReduceOp.MIN)
            ready = ready if int(fewest) else 0
        return ready
