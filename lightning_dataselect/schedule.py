"""Learning-rate schedules that keep time with the training although epochs have become shorter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


def full_epoch_calls(n_batches: int, full_batches: int, accumulate: int, frequency: int) -> int:
    """How often an unpruned epoch has stepped a step-wise scheduler after its first ``n_batches`` batches.

    Lightning steps it after an optimizer step, where the number of batches is a multiple of ``frequency``; the
    optimizer steps every ``accumulate`` batches and after the last one.

    Args:
        n_batches: batches done, 0 to ``full_batches``.
        full_batches: batches of the unpruned epoch.
        accumulate: ``accumulate_grad_batches``.
        frequency: the scheduler's ``frequency``.

    Example:
        >>> [full_epoch_calls(b, full_batches=5, accumulate=2, frequency=1) for b in range(6)]
        [0, 0, 1, 1, 2, 3]
    """
    calls = n_batches // math.lcm(accumulate, frequency)
    at_short_end = n_batches == full_batches and full_batches % accumulate != 0
    return calls + int(at_short_end and full_batches % frequency == 0)


@dataclass(frozen=True)
class EpochLength:
    """How long the present epoch is, and how long it would be with nothing pruned.

    Attributes:
        n_batches: batches of this epoch.
        full_batches: batches of an unpruned epoch.
        accumulate: ``accumulate_grad_batches``.
        share: the share of the unpruned epochs that ``max_steps`` would have let happen.
    """

    n_batches: int
    full_batches: int
    accumulate: int = 1
    share: Fraction = Fraction(1)


@dataclass
class StretchedSchedule:
    """Counts the calls of one step-wise scheduler and says how many are missing.

    After batch b of the n that a pruned epoch has, the scheduler has been stepped as often as a full epoch of F batches
    steps it by batch floor(b F / n). It ends where it would have ended, whatever was pruned, and is never stepped past
    its end; an epoch with nothing pruned is left exactly as it is.

    Attributes:
        epochs_done: calls that the epochs before this one are worth.
        made: calls made so far, Lightning's own included.

    Example:
        >>> schedule = StretchedSchedule()
        >>> schedule.missing(batches_done=1, length=EpochLength(n_batches=2, full_batches=8))
        4
    """

    epochs_done: int = 0
    made: int = 0

    def missing(self, batches_done: int, length: EpochLength, frequency: int = 1) -> int:
        """How many calls are missing after ``batches_done`` batches of the present epoch."""
        at_full_length = batches_done * length.full_batches // length.n_batches
        due = self.epochs_done + full_epoch_calls(at_full_length, length.full_batches, length.accumulate, frequency)
        return max(int(due * length.share) - self.made, 0)

    def end_epoch(self, length: EpochLength, frequency: int = 1) -> None:
        """Count the epoch that has ended."""
        full = length.full_batches
        self.epochs_done += full_epoch_calls(full, full, length.accumulate, frequency)


def allowed_share(full_batches: int, accumulate: int, max_epochs: int, max_steps: int) -> Fraction:
    """The share of ``max_epochs`` unpruned epochs that ``max_steps`` optimizer steps allow, at most 1.

    Example:
        >>> allowed_share(full_batches=10, accumulate=2, max_epochs=4, max_steps=15)
        Fraction(3, 4)
    """
    if max_steps == -1:
        return Fraction(1)
    return min(Fraction(1), Fraction(max_steps, max_epochs * math.ceil(full_batches / accumulate)))


def missing_calls(
    schedules: Sequence[StretchedSchedule],
    frequencies: Sequence[int | None],
    length: EpochLength,
    batches_done: int,
    stepped: bool,
) -> list[int]:
    """Count what Lightning did after a batch, and say how many calls each scheduler is short of.

    Args:
        schedules: one a scheduler; their counts are brought up to date.
        frequencies: its ``frequency`` in steps, or None for a scheduler that goes by epochs or metrics.
        length: the length of the epoch.
        batches_done: batches done of it.
        stepped: whether the optimizer stepped after the last of them.
    """
    calls = []
    for schedule, frequency in zip(schedules, frequencies, strict=True):
        if frequency is None:
            calls.append(0)
            continue
        schedule.made += int(stepped and batches_done % frequency == 0)
        calls.append(schedule.missing(batches_done, length, frequency))
        schedule.made += calls[-1]
    return calls
