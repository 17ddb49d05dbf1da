"""Samples take turns: a pass trains on each of them once, but for those that it leaves out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.early_stop import NEVER
from lightning_dataselect.numerics.masks import marked
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.sampling import uniform_among


class Turns:
    """Go through the samples, pass by pass, as many at a time as an epoch trains on.

    Args:
        of_samples: float32 (N,), in how many passes each sample has had its turn, changed in place; ``NEVER`` for those
            that are held out.
        passes: Passes that were done before the one under way.

    Example:
        >>> turns = Turns(torch.tensor([1.0, 0.0, 1.0, 0.0]), passes=0)
        >>> turns.take(2, lambda passes, taken: torch.zeros(4, dtype=torch.bool), torch.Generator())
        tensor([False,  True, False,  True])
        >>> turns.of_samples
        tensor([1., 1., 1., 1.])
    """

    def __init__(self, of_samples: Tensor, passes: int) -> None:
        self.of_samples = of_samples
        self._passes = passes

    def take(self, k: int, begin_pass: Callable[[int, Tensor], Tensor], generator: torch.Generator) -> Tensor:
        """Take the next ``k`` samples at random, and begin another pass where those of this one are not enough.

        Args:
            k: At most N.
            begin_pass: Given the number of passes that are done, and which samples are taken already, bool (N,), the
                last of the pass before, returns which samples the pass leaves out, bool (N,).
            generator: Source of the random numbers.

        Returns:
            bool (N,).
        """
        taken = torch.zeros(len(self.of_samples), dtype=torch.bool)

        def take(line: Tensor) -> None:
            missing = k - int(taken.count_nonzero())
            drawn = uniform_among(line, min(missing, int(line.count_nonzero())), generator)
            taken.logical_or_(drawn)
            self._had_theirs(drawn)

        take(self._in_line())
        while int(taken.count_nonzero()) < k and not bool(self._in_line().any()):
            self._passes += 1
            self._had_theirs(begin_pass(self._passes, taken))
            take(self._in_line().logical_and_(~taken))
        if int(taken.count_nonzero()) < k:
            take((self.of_samples != NEVER).logical_and_(~taken))  # where so much is left out that an epoch is longer
        return taken

    def _in_line(self) -> Tensor:
        return marked(len(self.of_samples), lambda part: self.of_samples[part] <= self._passes)

    def _had_theirs(self, samples: Tensor) -> None:
        for part in parts(len(self.of_samples)):
            had = samples[part] * float(self._passes + 1)
            torch.maximum(self.of_samples[part], had, out=self.of_samples[part])
