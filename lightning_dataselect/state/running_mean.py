"""A mean of numbers that come in batches on a device."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_PUT_ASIDE = 64  # batches: one operation for many costs a short step less than one for each


class RunningMean:
    """Average numbers that come in batches; nothing waits for the device before the mean is read.

    Example:
        >>> mean = RunningMean()
        >>> mean.add(torch.tensor([1.0, 2.0])), mean.add(torch.tensor([6.0]))
        (None, None)
        >>> mean.read(), mean.read()
        (tensor(3.), None)
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._n = 0

    def add(self, values: Tensor) -> None:
        """Take in ``values``, float32 (B,)."""
        self._sums.append(values.sum())
        self._n += values.numel()
        if len(self._sums) == _MOST_PUT_ASIDE:
            self._sums = [torch.stack(self._sums).sum()]

    def read(self) -> Tensor | None:
        """Return the mean of what was added since the last call, 0-dim; None if nothing was."""
        sums, n = self._sums, self._n
        self._sums, self._n = [], 0
        return torch.stack(sums).sum() / n if sums else None
