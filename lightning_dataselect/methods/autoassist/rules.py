"""AutoAssist's rules: whom to accept, what counts as a high loss, how an Assistant steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST = 2  # BatchNorm cannot train on one sample


def acceptance(q: Tensor, base_prob: float, accuracy: float) -> Tensor:
    """Return the probability of training on each sample, ``b + (1 - b) q`` with ``b = max(base_prob, 1 - accuracy)``.

    Args:
        q: float32 (B,), the Assistant's probability that the loss is high; NaN counts as 1.
        base_prob: The probability of a sample that the Assistant takes for easy.
        accuracy: The Assistant's share of right calls of late, in [0, 1].

    Example:
        >>> acceptance(torch.tensor([0.0, 0.5, 1.0]), base_prob=0.25, accuracy=0.5)
        tensor([0.5000, 0.7500, 1.0000])
    """
    floor = max(base_prob, 1 - accuracy)
    return floor + (1 - floor) * q.nan_to_num(1.0)


def accepted(probabilities: Tensor, draws: Tensor) -> Tensor:
    """Draw the samples to train on, int64 (b,), ascending positions; at least two, if there are two.

    Args:
        probabilities: float32 (B,).
        draws: float32 (B,), uniform in [0, 1).

    Example:
        >>> accepted(torch.tensor([0.9, 0.1, 1.0]), torch.tensor([0.5, 0.5, 0.99]))
        tensor([0, 2])
        >>> accepted(torch.zeros(3), torch.tensor([0.5, 0.1, 0.4]))  # the nearest to being taken
        tensor([1, 2])
    """
    excess = probabilities - draws
    taken = (excess > 0).nonzero().squeeze(1)
    least = min(_LEAST, excess.numel())
    return taken if taken.numel() >= least else excess.topk(least).indices.sort().values


@dataclass
class RecentMean:
    """A running mean of the loss, ``s / n``, with ``n <- a n + (1 - a) B`` and ``s <- a s + (1 - a) sum l`` a batch.

    Example:
        >>> mean = RecentMean(memory=0.5)
        >>> mean.update(torch.tensor([1.0, 3.0]), epoch=0), mean.update(torch.tensor([5.0]), epoch=0)
        (2.0, 3.5)
    """

    memory: float
    count: float = 0.0
    total: float = 0.0

    def update(self, losses: Tensor, epoch: int) -> float:
        """Add ``losses`` to the mean, and return the limit between high losses and low ones."""
        self.count = self.memory * self.count + (1 - self.memory) * losses.numel()
        self.total = self.memory * self.total + (1 - self.memory) * float(losses.sum(dtype=torch.float64))
        return self.total / self.count


@dataclass
class LastEpochMean:
    """The mean loss of the epoch before, or in the first epoch of its batches so far.

    Example:
        >>> mean = LastEpochMean()
        >>> losses = torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([9.0])
        >>> [mean.update(loss, epoch) for loss, epoch in zip(losses, (0, 0, 1))]
        [2.0, 3.0, 3.0]
    """

    memory: float = 0.0
    epoch: int = -1
    count: int = 0
    total: float = 0.0
    last: float | None = None

    def update(self, losses: Tensor, epoch: int) -> float:
        """Add ``losses`` to the mean, and return the limit between high losses and low ones."""
        if epoch != self.epoch:
            self.last = self.total / self.count if self.count else self.last
            self.epoch, self.count, self.total = epoch, 0, 0.0
        self.count += losses.numel()
        self.total += float(losses.sum(dtype=torch.float64))
        return self.total / self.count if self.last is None else self.last


def gradient_step(parameters: Iterable[Tensor], gradients: Iterable[Tensor], rate: float, l2: float) -> None:
    """Take one step of gradient descent in place: ``w <- w - rate (g + l2 w)``.

    Example:
        >>> w = torch.tensor([1.0, 2.0])
        >>> gradient_step([w], [torch.tensor([0.5, 0.0])], rate=0.5, l2=0.5)
        >>> w
        tensor([0.5000, 1.5000])
    """
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(rate * (gradient + l2 * parameter))
