"""Propose what a term may be divided by, and what single samples would lose then."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import Divisor, Layout
from lightning_dataselect.capture.loss.terms import Key, Term
from lightning_dataselect.capture.witness.sample_rows import CLOSE, are_close, sample_losses


@dataclass(frozen=True)
class Reading:
    """Hold what would follow if a term were divided by something.

    Attributes:
        divisor: The divisor; None for nothing.
        alone: (size,) the coefficient of each sample alone; or what it would lose, where elements are divided.
        shows: bool (size,) False for a sample that has nothing in the divisor and loses nothing.
        product: Of the coefficient and the divisor.
        by_mean: True if it is the mean over the samples of a sum that divides.
    """

    divisor: Divisor | None
    alone: Tensor
    shows: Tensor
    product: float
    by_mean: bool = False

    def of(self, positions: Tensor) -> Reading:
        """Return the same for some of the samples."""
        return replace(self, alone=self.alone[positions], shows=self.shows[positions])


def fits(reading: Reading, truth: Tensor) -> bool:
    """Tell if a reading gives each sample the coefficient, or the loss, that it has alone."""
    return are_close(reading.alone[reading.shows], truth[reading.shows])


def possible_readings(
    key: Key, term: Term, slope: Tensor, layout: Layout, whole: Shown, elementwise: bool
) -> list[Reading]:
    """Return what a term may be divided by: as the algebra has it, if it is sure; then where it leaves no factor."""
    size, found, by = whole.size, whole.spec.of(key), slope.float().reshape(())
    each = sample_losses(term, layout, size)
    ones = torch.ones(size, device=each.device)
    numbers = {
        place: sample_losses(count, Layout(strided=count.strided), size) for place, count in whole.numbers.items()
    }
    given: list[tuple[Divisor | None, Tensor | None]] = [] if elementwise else [(None, None)]
    if not (term.is_sum or elementwise):
        given.append(("one over samples", ones))
    if term.is_sum:
        given.append(("samples", ones))
        if term.counts is not None and (term.elements.numel() > size or term.picked_at is not None):
            given.append(("counts", _counted(term.counts, layout, size)))  # some of them maybe several times
    given += numbers.items() if term.is_sum or whole.divides else ()
    if term.is_sum and (term.elements.numel() > size or bool((term.elements == 0).any())):
        given.append(("nonzero", _counted(term.elements != 0, layout, size)))
    readings = []
    for divisor, share in given:
        counted = ones if share is None else share
        total = ones[0] if share is None else share.sum()
        total = whole.numbers[divisor].weighted(None).float() if isinstance(divisor, tuple) else total
        total = 1 / total if divisor == "one over samples" else total
        total = torch.where(total == 0, ones[0], total)  # a step divides by 1 where nothing is counted
        alone = by * total / torch.where(counted == 0, ones, counted)
        shows = (counted != 0) | (each.nan_to_num() != 0)
        readings.append(Reading(divisor, alone * each if elementwise else alone, shows, float(by * total)))
        if not term.is_sum and isinstance(divisor, tuple):  # what divides is made to be 1 on average
            last = readings[-1]
            readings.append(replace(last, alone=last.alone / size, product=last.product / size, by_mean=True))
    readings.sort(key=lambda reading: not _leaves_no_factor(reading, term.elements.shape))
    sure = None if found.is_guess else found.divisor
    readings.sort(key=lambda reading: sure is None or reading.divisor != sure)
    return readings


def _leaves_no_factor(reading: Reading, shape: torch.Size) -> bool:
    """Tell if a divisor is all that a term is multiplied with, or the number of rows of which each element counts."""
    widths = {1, *(shape[axes:].numel() for axes in range(1, len(shape)))} if reading.divisor == "counts" else {1}
    return any(abs(abs(reading.product) / width - 1) <= CLOSE for width in widths if width)


def _counted(values: Tensor, layout: Layout, size: int) -> Tensor:
    rows = layout.rows(values, size)
    assert rows is not None
    return rows.float().sum(1)
