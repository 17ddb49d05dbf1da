"""Count the losses that were NaN or infinite, without reading them in a step."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory

_MOST_PUT_ASIDE = 64  # batches: one operation for many is cheaper for a short step than one for each


class BadLosses:
    """Count samples whose last loss was not finite, or all such losses if samples have no index.

    Args:
        n: Number of samples; None to count losses, not samples, since the last :meth:`count`.
        memory: Where per-sample state is allocated.

    Example:
        >>> bad = BadLosses(3)
        >>> bad.add(torch.tensor([0, 1]), torch.tensor([torch.nan, torch.inf]))
        >>> bad.add(torch.tensor([0]), torch.tensor([0.5]))
        >>> bad.count()
        1
    """

    def __init__(self, n: int | None, memory: InMemory = IN_MEMORY) -> None:
        self._is_bad = None if n is None else memory.full((n + 1,), False, torch.bool)
        self._n_bad = torch.tensor(0)
        self._put_aside: list[tuple[Tensor, Tensor]] = []

    def add(self, indices: Tensor, losses: Tensor) -> None:
        """Add losses, float32 (B,), of the samples ``indices``, int64 (B,); neither tensor may change afterwards."""
        self._put_aside.append((indices, losses))
        if len(self._put_aside) == _MOST_PUT_ASIDE:
            self._look()

    def count(self, world_size: int = 1) -> int:
        """Return the number, on all ranks; all must call it together."""
        self._look()
        if self._is_bad is not None:
            counted = self._is_bad[:-1].count_nonzero()
        else:
            counted, self._n_bad = self._n_bad, torch.zeros_like(self._n_bad)
        if world_size > 1:
            dist.all_reduce(counted)
        return int(counted)

    def to(self, device: torch.device) -> None:
        """Move the counts to ``device``."""
        self._look()
        self._n_bad = self._n_bad.to(device)
        if self._is_bad is not None:
            self._is_bad = self._is_bad.to(device)

    def _look(self) -> None:
        if not self._put_aside:
            return
        indices, losses = map(torch.cat, zip(*self._put_aside, strict=True))
        self._put_aside = []
        if self._is_bad is None:
            self._n_bad += (~losses.isfinite()).sum()
        else:
            self._is_bad.index_copy_(0, indices, ~losses.isfinite())
