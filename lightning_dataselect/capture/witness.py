"""What a step loses on single samples, held against how its loss on several of them is read.

Capture infers from a batch what a loss is divided by, which axis holds the samples and in which order they lie. All
of this may be so by chance of sizes and values. A batch of one leaves nothing to infer: `decide` takes what the same
terms were for single samples, and settles how they are to be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_dataselect.capture.reductions import Key, Term, by_sample, fold
from lightning_dataselect.capture.specs import Divisor, Facts

_CLOSE = 1e-3  # of the size of what is compared: kernels round otherwise for another number of samples


ORDER = (
    "The step puts the samples of a batch into another order, as by their lengths, so what one sample loses would be"
    " taken for another's. Put the outputs back into the order of the batch before the loss, as"
    " torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False) does."
)


COUNT = (
    "The loss is divided by a number that was counted in the batch outside of torch, or in a way that cannot be"
    " followed to its samples, so what each of them adds to that number is not known. Divide by a count that torch"
    " sums up over the batch, such as (labels != -100).sum()."
)


@dataclass(frozen=True)
class Shown:
    """What a step has shown of some samples.

    Attributes:
        size: the number of samples.
        loss: what the step returned, 0-dim.
        terms: those that the loss depends on, with their coefficients.
        numbers: what was added up without gradient, by its place.
        losses: (size,) what the algebra gives to each sample; None where it finds nothing.
        facts: what the algebra has found of the terms.
        sorts: whether the step has sorted something.
        reorders: whether what it sorted was in another order before.
    """

    size: int
    loss: Tensor
    terms: Mapping[Key, tuple[Term, Tensor]]
    numbers: Mapping[Key, Term] = field(default_factory=dict)
    losses: Tensor | None = None
    facts: Facts = field(default_factory=Facts)
    sorts: bool = False
    reorders: bool = False


@dataclass(frozen=True)
class _Layout:
    """How the rows of a term lie: along an axis of their own, as neighbours or strided along the first."""

    axis: int = 0
    strided: bool = False

    def rows(self, elements: Tensor, size: int) -> Tensor | None:
        """One row a sample, (size, n), or None if the elements cannot lie so."""
        if self.axis:
            return elements.movedim(self.axis, 0).reshape(size, -1) if elements.shape[self.axis] == size else None
        rows = elements.shape[0] if elements.dim() else 1
        return by_sample(elements, size, self.strided) if rows % size == 0 else None


def decide(whole: Shown, singles: Sequence[Shown], facts: Facts) -> None:
    """Settle how the terms of a step are read, by what they are for each of its samples alone.

    A term that is another one for a sample alone, as a model that normalises over the batch makes it, shows nothing,
    and is left to the algebra.

    Args:
        whole: of several samples.
        singles: of each of them alone, in order.
        facts: written on.
    """
    agrees = whole.losses is not None and _close(whole.losses, torch.stack([one.loss.float() for one in singles]))
    for key, (term, slope) in whole.terms.items():
        alone = [one.terms.get(key) for one in singles]
        if any(one is None for one in alone) or slope.numel() != 1 or key[0] in whole.facts.looped:
            continue
        own = [one for one in alone if one is not None]
        layouts = _layouts(term, whole, agrees)
        fitting = [layout for layout in layouts if _lies(layout, term, own, whole.size)]
        divided = [layout for layout in layouts if not fitting and _lies_divided(layout, term, own, whole.size)]
        if fitting or divided:
            _settle(key, term, slope, own, (fitting or divided)[0], whole, facts, inside=not fitting)
        elif any(_lies_permuted(layout, term, own, whole.size) for layout in layouts):
            facts.refused[key] = ORDER


def _settle(
    key: Key,
    term: Term,
    slope: Tensor,
    alone: Sequence[tuple[Term, Tensor]],
    layout: _Layout,
    whole: Shown,
    facts: Facts,
    *,
    inside: bool,
) -> None:
    """Choose what a term is divided by, whose rows lie as they should."""
    truth = torch.stack([by * _losses(one, layout, 1)[0] for one, by in alone])
    fitting = []
    for reading in _readings(key, term, slope, layout, whole, inside):
        if _close(reading.losses, truth):
            fitting.append(reading)
    if not fitting:
        slopes = torch.stack([by.float().reshape(()) for _, by in alone])
        adds_up = _close((1 / slopes).sum(), 1 / slope.float()) and not _close(slopes, slope.float().expand_as(slopes))
        if term.is_sum and (inside or adds_up):
            facts.refused[key] = COUNT
        return
    first = fitting[0]
    facts.trust(key, layout.axis, layout.strided, first.divisor, inside, whole.facts)
    facts.doubts.pop(key, None)
    other = next((other for other in fitting[1:] if other.is_other_than(first)), None)
    if other is None or inside or first.divisor is None or other.divisor is None:
        return
    if first.product is not None and other.product is not None:
        facts.doubts[key] = (first.divisor, first.product), (other.divisor, other.product)
        facts.follow(other.divisor, whole.facts)


@dataclass(frozen=True)
class _Reading:
    """What each sample would lose if a term were divided by something."""

    divisor: Divisor | None
    losses: Tensor
    product: float | None  # of the coefficient and the divisor: a round number, or 1, if that is it

    def is_other_than(self, first: _Reading) -> bool:
        """Whether this one may turn out to be right in a later batch, if ``first`` does not."""
        return not (isinstance(first.divisor, tuple) and isinstance(self.divisor, str))


def _readings(key: Key, term: Term, slope: Tensor, layout: _Layout, whole: Shown, inside: bool) -> list[_Reading]:
    """What a term may be divided by: first as the algebra has it, if it is sure; then where it leaves no factor."""
    size, found, by = whole.size, whole.facts, slope.float().reshape(())
    each = _losses(term, layout, size)
    ones = torch.ones(size, device=each.device)
    numbers = {place: _losses(count, _Layout(strided=count.strided), size) for place, count in whole.numbers.items()}
    given: list[tuple[Divisor, Tensor]] = []
    if term.is_sum:
        given.append(("samples", ones))
        if term.counts is not None and term.elements.numel() > size:
            given.append(("counts", _counted(term.counts, layout, size)))
    given += numbers.items()
    if term.is_sum and term.elements.numel() > size:
        given.append(("nonzero", _counted(term.elements, layout, size)))
    readings = [
        _Reading(divisor, by * each * share.sum() / torch.where(share == 0, ones, share), float(by * share.sum()))
        for divisor, share in given
    ]
    readings.sort(key=lambda reading: abs(abs(reading.product or 0) - 1) > _CLOSE)
    sure = found.divisors.get(key) if key not in found.guessed else None
    readings.sort(key=lambda reading: reading.divisor != sure)
    return readings if inside else [_Reading(None, by * each, None), *readings]


def _counted(values: Tensor, layout: _Layout, size: int) -> Tensor:
    rows = layout.rows(values != 0, size)
    assert rows is not None
    return rows.float().sum(1)


def _losses(term: Term, layout: _Layout, size: int) -> Tensor:
    """What each sample loses by a term that lies in a certain way, but for its coefficient."""
    rows, units = layout.rows(term.elements, size), term.units
    assert rows is not None
    if units is not None:
        units = layout.rows(units, size)
        units = units != 0 if units is not None and term.weighs_classes else units
    return fold(rows, units, size, is_sum=term.is_sum)


def _layouts(term: Term, whole: Shown, agrees: bool) -> list[_Layout]:
    """The ways in which a term's rows may lie: first as the algebra has it, if what it gives is right."""
    proposed = _Layout(strided=term.key in whole.facts.strided)
    flat = [_Layout(), _Layout(strided=True)]
    across = [_Layout(axis) for axis in range(1, term.elements.dim())]
    found = dict.fromkeys(([proposed] if agrees else []) + flat + across)
    return [layout for layout in found if layout.rows(term.elements, whole.size) is not None]


def _lies(layout: _Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    rows = layout.rows(term.elements, size)
    singles = [layout.rows(one.elements, 1) for one, _ in alone]
    assert rows is not None
    return all(one is not None and _same(row, one[0]) for row, one in zip(rows, singles, strict=True))


def _lies_divided(layout: _Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Whether each sample's row is its own but for a share that it has in a number by which all are divided."""
    rows = layout.rows(term.elements, size)
    singles = [layout.rows(one.elements, 1) for one, _ in alone]
    if rows is None or not term.is_sum or any(one is None or one[0].shape != rows[0].shape for one in singles):
        return False
    own = torch.cat([one for one in singles if one is not None]).float()
    shares = (rows.float() * own).sum(1) / (own * own).sum(1)
    return _close(rows.float(), shares[:, None] * own) and _close(shares.sum(), torch.ones_like(shares[0]))


def _lies_permuted(layout: _Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Whether each sample has a row of its own, but not each at its place."""
    rows = layout.rows(term.elements, size)
    singles = [layout.rows(one.elements, 1) for one, _ in alone]
    if rows is None or any(one is None for one in singles):
        return False
    places = [[j for j, row in enumerate(rows) if _same(row, one[0])] for one in singles if one is not None]
    return all(places) and any(len(set(order)) == size for order in itertools.product(*places))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and _close(a, b)


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    a, b = a.float().reshape(-1), b.float().reshape(-1)
    size = b.nan_to_num().abs().max() if b.numel() else b.sum()
    return torch.allclose(a, b, rtol=_CLOSE, atol=float(_CLOSE * size) * 0.1 + 1e-12, equal_nan=True)
