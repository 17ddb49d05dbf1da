"""The plan of one epoch: which samples it trains on, in which order, with which weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import mask_of, positions
from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory


@dataclass(frozen=True)
class EpochPlan:
    """The samples that one epoch trains on.

    Attributes:
        epoch: 0-based epoch.
        indices: int64 (n,), the selected samples, sorted.
        weights: float32 (n,), the loss weight of each, or None.
        order: int64 (m,), the order in which the user's own sampler drew them, of all ranks; None before it has, or if
            the order follows from the seed.
        batch_sizes: int64 (b,), the sizes of the batches that the user's own batch sampler has made of ``order``, of
            all ranks in turn; None if every batch has the loader's ``batch_size``.
    """

    epoch: int
    indices: Tensor
    weights: Tensor | None = None
    order: Tensor | None = None
    batch_sizes: Tensor | None = None

    @classmethod
    def everything(cls, epoch: int, n: int, memory: InMemory = IN_MEMORY) -> EpochPlan:
        """Return the plan that trains on all of ``n`` samples.

        Example:
            >>> EpochPlan.everything(0, 3).indices
            tensor([0, 1, 2])
        """
        return cls(epoch, memory.arange(n))

    def weights_of(self, indices: Tensor) -> Tensor:
        """Return the loss weights of the samples ``indices``, int64 (B,), as float32 (B,); 1 for samples not selected.

        Example:
            >>> plan = EpochPlan(0, torch.tensor([1, 4]), weights=torch.tensor([2.0, 3.0]))
            >>> plan.weights_of(torch.tensor([4, 2, 1, 9]))
            tensor([3., 1., 2., 1.])
        """
        assert self.weights is not None
        places = torch.searchsorted(self.indices, indices).clamp(max=self.indices.numel() - 1)
        return torch.where(self.indices[places] == indices, self.weights[places], 1.0)

    def left_out(self, n: int) -> Tensor:
        """Return the samples of ``n`` that the epoch does not train on, int64 (m,), sorted.

        Example:
            >>> EpochPlan(0, torch.tensor([1, 2])).left_out(4)
            tensor([0, 3])
        """
        return positions(~mask_of(n, self.indices))

    def among_first(self, n: int) -> EpochPlan:
        """Return the plan without samples that a data set of ``n`` no longer has; itself if all are there.

        Example:
            >>> EpochPlan(0, torch.tensor([1, 4, 6]), weights=torch.tensor([2.0, 3.0, 1.0])).among_first(5).indices
            tensor([1, 4])
        """
        if self.order is not None or self.indices.numel() == 0 or int(self.indices[-1]) < n:
            return self
        there = int(torch.searchsorted(self.indices, n))
        return EpochPlan(self.epoch, self.indices[:there], None if self.weights is None else self.weights[:there])
