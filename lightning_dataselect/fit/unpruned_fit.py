"""The position in the unpruned fit, for schedules that keep step with the training although epochs are shorter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class UnprunedFit:
    """Describe the fit as it would be with nothing pruned, which schedules are kept in step with.

    Attributes:
        full_batches: Batches of an epoch.
        max_epochs: Number of epochs.
        accumulate: ``accumulate_grad_batches`` by the epoch from which it holds; the first epoch is 0.
        max_steps: Optimizer steps that end the fit, or -1.

    Example:
        >>> fit = UnprunedFit(full_batches=8, max_epochs=2)
        >>> position = fit.position(epoch=1, batches_done=1, n_batches=2, steps=9)  # half of the second epoch
        >>> position, fit.calls(position, frequency=4)
        (12, 3)
    """

    full_batches: int
    max_epochs: int
    accumulate: Mapping[int, int] = field(default_factory=lambda: {0: 1})
    max_steps: int = -1

    @classmethod
    def of_plan(
        cls, full_batches: int, max_epochs: int | None, accumulate: Mapping[int, int], max_steps: int
    ) -> UnprunedFit:
        """Describe a fit by the Trainer's settings; see the attributes.

        Args:
            full_batches: Batches of an epoch.
            max_epochs: Number of epochs; None if only ``max_steps`` end the fit.
            accumulate: ``accumulate_grad_batches`` by the epoch from which it holds.
            max_steps: Optimizer steps that end the fit, or -1.
        """
        # a step takes a batch at least, and an epoch a step
        return cls(full_batches, max_steps if max_epochs is None else max_epochs, accumulate, max_steps)

    def position(self, epoch: int, batches_done: int, n_batches: int, steps: int) -> int:
        """Find the batch of the unpruned fit that corresponds to a position in the pruned one.

        After batch b of an epoch's n, that is batch ``b F // n`` of the F that it would have. If ``max_steps`` comes
        before the last epoch, both fits end at that step, and whichever position is nearer to it counts.

        Args:
            epoch: 0-based epoch.
            batches_done: Batches of it that are done.
            n_batches: Number of batches in it.
            steps: Optimizer steps done in the whole fit.
        """
        whole = self.max_epochs * self.full_batches
        by_batches = epoch * self.full_batches + batches_done * self.full_batches // n_batches
        end = self.n_batches
        if self.max_steps == -1:
            return min(by_batches, end)
        return min(max(by_batches * end // whole, self._batches_of(steps)), end)

    @property
    def n_batches(self) -> int:
        """The number of batches after which the fit ends."""
        whole = self.max_epochs * self.full_batches
        return whole if self.max_steps == -1 else min(whole, self._batches_of(self.max_steps))

    def at(self, share: float) -> int:
        """Find the batch at which the first ``share`` of the fit ends.

        Example:
            >>> UnprunedFit(full_batches=8, max_epochs=2).at(0.55)
            8
        """
        # rounded, because shares are seldom exact in floating point
        return math.floor(round(share * self.n_batches, 6))

    def calls(self, position: int, frequency: int = 1) -> int:
        """Count how often Lightning has stepped a step-wise scheduler after ``position`` batches of the unpruned fit.

        It does so after an optimizer step, if the number of batches in the epoch so far is a multiple of ``frequency``;
        the optimizer steps every ``accumulate`` batches and after an epoch's last one.
        """
        full, called = self.full_batches, 0
        for first, n_epochs, accumulate in self._spans():
            epochs, batches = divmod(min(max(position - first * full, 0), n_epochs * full), full)
            between = math.lcm(accumulate, frequency)
            at_short_end = full % accumulate != 0 and full % frequency == 0
            called += epochs * (full // between + int(at_short_end)) + batches // between
        return called

    def _batches_of(self, steps: int) -> int:
        batches = 0
        for _, n_epochs, accumulate in self._spans():
            epochs, within = divmod(steps, math.ceil(self.full_batches / accumulate))
            if epochs < n_epochs:
                return batches + epochs * self.full_batches + within * accumulate
            steps -= n_epochs * math.ceil(self.full_batches / accumulate)
            batches += n_epochs * self.full_batches
        return batches

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first epoch, the number of epochs and the accumulation of each span with constant accumulation."""
        firsts = sorted(first for first in self.accumulate if first < self.max_epochs)
        for first, end in zip(firsts, [*firsts[1:], self.max_epochs], strict=True):
            yield first, end - first, self.accumulate[first]
