"""The plan of one epoch: which samples it trains on, in which order, with which weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EpochPlan:
    """What one epoch trains on.

    Attributes:
        epoch: 0-based epoch.
        indices: int64 (n,), the selected samples, sorted.
        weights: float32 (n,), the loss weight of each, or None.
        order: int64 (m,), the order in which a sampler of the user's own drew them; None means that the order
            follows from the seed.
    """

    epoch: int
    indices: Tensor
    weights: Tensor | None = None
    order: Tensor | None = None
