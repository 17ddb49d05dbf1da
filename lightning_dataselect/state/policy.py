"""The decisions that make a method, apart from the Trainer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore


class Method:
    """What a selection method decides; each decision has a default but :meth:`select`.

    Attributes:
        prune_ratio: share of the samples that is dropped.
        warmup_epochs: epochs from the first one on that train on everything.
        anneal: share of the epochs at the end that train on everything.
        every_n_epochs: epochs between two selections.
        max_epochs: epochs of the fit under way, or None if only steps or time end it.
    """

    prune_ratio: float
    warmup_epochs: int
    anneal: float
    every_n_epochs: int
    max_epochs: int | None

    needs_losses: ClassVar[bool] = True
    """Whether the method cannot go on where no per-sample loss can be captured."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Arguments of `DataSelector` that mean nothing for the method, and are refused."""
    rescores: bool = False
    """Whether :meth:`samples_to_rescore` ever asks for a pass."""

    @property
    def first_epoch(self) -> int:
        """The 0-based epoch that the method began with: above 0 in a fit that goes on from a checkpoint without it."""
        return 0

    @property
    def needs_extra_forward(self) -> bool:
        """Whether training steps are run without training, as one that optimizes manually cannot be."""
        return self.rescores

    @property
    def ranks_by_loss(self) -> bool:
        """Whether the score is the last loss, as it is by default: one column then does for both."""
        return type(self).observe is Method.observe

    def columns(self) -> dict[str, float]:
        """Further N-sized float32 columns that the method keeps, by name, with their initial values."""
        return {}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Update the score columns after a batch; the default ranks by the last loss.

        Args:
            seen: what the batch has shown.
            store: the columns; ``store["loss"]`` is already written. Nothing here may wait for the device.
        """
        store["score"].index_copy_(0, seen.indices, seen.losses)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Choose the samples of an epoch.

        Called at the end of the epoch before, on every rank with the same arguments.

        Args:
            epoch: the 0-based epoch to come.
            scores: float32 (N,), on the CPU; NaN = never measured.
            generator: CPU generator seeded for this epoch.

        Returns:
            The samples to train on and, for a method that reweighs, the weight of each in the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select(epoch, scores, generator) -> Selection.")

    def trains_on_everything(self, epoch: int) -> bool:
        """Whether ``epoch`` takes all samples without asking :meth:`select`."""
        return self.prune_ratio == 0 or self.in_warmup(epoch) or self.in_annealing(epoch)

    def in_warmup(self, epoch: int) -> bool:
        """Whether ``epoch`` is one of the first ``warmup_epochs`` since :attr:`first_epoch`."""
        return epoch < self.first_epoch + self.warmup_epochs

    def in_annealing(self, epoch: int) -> bool:
        """Whether ``epoch`` is in the last ``anneal`` share of the epochs, if their number is known."""
        # rounded, because (1 - 0.3) * 10 is not 7 in floating point
        return self.max_epochs is not None and epoch >= round((1 - self.anneal) * self.max_epochs, 9)

    def selects_anew(self, epoch: int) -> bool:
        """Whether the samples of ``epoch`` are chosen anew, or are those of the epoch before."""
        since_warmup = epoch - self.first_epoch - self.warmup_epochs
        return not self.trains_on_everything(epoch) and since_warmup % self.every_n_epochs == 0

    def samples_to_rescore(self, epoch: int) -> Tensor | None:
        """Which samples to measure by a pass without gradients before those of ``epoch`` are chosen.

        Asked only where ``epoch`` :meth:`selects_anew`, of a method that sets ``rescores``.

        Args:
            epoch: the 0-based epoch to come.

        Returns:
            int64 (m,), dataset indices, or None for no pass. They reach :meth:`observe` as those of a batch do.
        """
        return None

    def lr_factor(self, epoch: int) -> float:
        """What the learning rate of every optimizer step of ``epoch`` is multiplied by."""
        return 1.0

    def wrap_dataloader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """What the Trainer iterates in place of the prepared train loader.

        Args:
            loader: yields the batches of the plan.

        Returns:
            A loader of as many batches, in the same order; a method may change what they hold.
        """
        return loader
