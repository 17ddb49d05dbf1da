"""The mean of numbers that come in batches on a device."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_PUT_ASIDE = 64  # batches: one operation for many is cheaper for a short step than one for each


class RunningMean:
    """Average numbers that come in batches, without waiting for the device before the mean is read.

    Example:
        >>> mean = RunningMean()
        >>> mean.add(torch.tensor([1.0, 2.0])), mean.add(torch.tensor([6.0]))
        (None, None)
        >>> mean.read(), mean.read()
        (tensor(3.), None)
    """

    def __init__(self) -> None:
        self._put_aside: list[Tensor] = []
        self._n = 0

    def add(self, values: Tensor) -> None:
        """Add ``values``, float32 (B,), which may not be changed afterwards."""
        self._put_aside.append(values)
        self._n += values.numel()
        if len(self._put_aside) == _MOST_PUT_ASIDE:
            self._put_aside = [torch.cat(self._put_aside).sum().unsqueeze(0)]

    def read(self) -> Tensor | None:
        """Return the mean of the values added since the last call, 0-dim; None if there are none."""
        values, n = self._put_aside, self._n
        self._put_aside, self._n = [], 0
        return torch.cat(values).sum() / n if values else None
