"""Hold what a step loses on single samples against how its loss on several of them is read.

Capture infers from a batch what a loss is divided by, which axis holds the samples and in which order they lie. All
of this may be so by chance of sizes and values. A batch of one leaves nothing to infer: `decide` takes what the same
terms were for single samples, and settles how they are to be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_dataselect.capture.reductions import Key, Term, fold
from lightning_dataselect.capture.specs import Divisor, Layout, StepSpec

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
    """Hold what a step has shown of some samples.

    Attributes:
        size: The number of samples.
        loss: What the step returned, 0-dim.
        terms: Those that the loss depends on, with their coefficients.
        numbers: What was added up without gradient, by its place.
        losses: (size,) what the algebra gives to each sample; None where it finds nothing.
        spec: What the algebra has found of the terms.
        sorts: True if the step has sorted something.
        reorders: True if what it sorted was in another order before.
    """

    size: int
    loss: Tensor
    terms: Mapping[Key, tuple[Term, Tensor]]
    numbers: Mapping[Key, Term] = field(default_factory=dict)
    losses: Tensor | None = None
    spec: StepSpec = field(default_factory=StepSpec)
    sorts: bool = False
    reorders: bool = False


def decide(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Settle how the terms of a step are read, by what they are for each of its samples alone.

    A term that is another one for a sample alone, as a model that normalises over the batch makes it, shows nothing,
    and is left to the algebra.

    Args:
        whole: Of several samples.
        singles: Of each of them alone, in order.
        spec: The findings so far.

    Returns:
        The findings, with those of the witness.
    """
    agrees = whole.losses is not None and _close(whole.losses, torch.stack([one.loss.float() for one in singles]))
    for key, (term, slope) in whole.terms.items():
        alone = [one.terms.get(key) for one in singles]
        if any(one is None for one in alone) or slope.numel() != 1 or key[0] in whole.spec.loops:
            continue
        own = [one for one in alone if one is not None]
        layouts = _layouts(term, whole, agrees)
        fitting = [layout for layout in layouts if _lies(layout, term, own, whole.size)]
        divided = [layout for layout in layouts if not fitting and _lies_divided(layout, term, own, whole.size)]
        if fitting or divided:
            spec = _settled(spec, key, term, slope, own, (fitting or divided)[0], whole, elementwise=not fitting)
        elif any(_lies_permuted(layout, term, own, whole.size) for layout in layouts):
            spec = spec.with_term(key, refusal=ORDER)
    return spec


def _settled(
    spec: StepSpec,
    key: Key,
    term: Term,
    slope: Tensor,
    alone: Sequence[tuple[Term, Tensor]],
    layout: Layout,
    whole: Shown,
    *,
    elementwise: bool,
) -> StepSpec:
    """Choose what a term is divided by, whose rows lie as they should."""
    truth = torch.stack([by * _losses(one, layout, 1)[0] for one, by in alone])
    readings = _readings(key, term, slope, layout, whole, elementwise)
    fitting = [reading for reading in readings if _close(reading.losses, truth)]
    if not fitting:
        slopes = torch.stack([by.float().reshape(()) for _, by in alone])
        adds_up = _close((1 / slopes).sum(), 1 / slope.float()) and not _close(slopes, slope.float().expand_as(slopes))
        return spec.with_term(key, refusal=COUNT) if term.is_sum and (elementwise or adds_up) else spec
    first = fitting[0]
    other = next((other for other in fitting[1:] if other.is_other_than(first)), None)
    alternatives = None
    if other is not None and not elementwise and first.divisor is not None and other.divisor is not None:
        if first.product is not None and other.product is not None:
            alternatives = (first.divisor, first.product), (other.divisor, other.product)
    spec = spec.with_term(
        key,
        is_witnessed=True,
        layout=layout,
        divisor=first.divisor,
        divided_elementwise=elementwise,
        alternatives=alternatives,
    )
    counts = {place: whole.spec.counts[place] for place in spec.of(key).places() if place in whole.spec.counts}
    return replace(spec, counts={**spec.counts, **counts})


@dataclass(frozen=True)
class _Reading:
    """Hold what each sample would lose if a term were divided by something."""

    divisor: Divisor | None
    losses: Tensor
    product: float | None  # of the coefficient and the divisor: a round number, or 1, if that is it

    def is_other_than(self, first: _Reading) -> bool:
        """Tell if this one may turn out to be right in a later batch, if ``first`` does not."""
        return not (isinstance(first.divisor, tuple) and isinstance(self.divisor, str))


def _readings(key: Key, term: Term, slope: Tensor, layout: Layout, whole: Shown, elementwise: bool) -> list[_Reading]:
    """Return what a term may be divided by: as the algebra has it, if it is sure; then where it leaves no factor."""
    size, found, by = whole.size, whole.spec.of(key), slope.float().reshape(())
    each = _losses(term, layout, size)
    ones = torch.ones(size, device=each.device)
    numbers = {place: _losses(count, Layout(strided=count.strided), size) for place, count in whole.numbers.items()}
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
    sure = None if found.is_guess else found.divisor
    readings.sort(key=lambda reading: reading.divisor != sure)
    return readings if elementwise else [_Reading(None, by * each, None), *readings]


def _counted(values: Tensor, layout: Layout, size: int) -> Tensor:
    rows = layout.rows(values != 0, size)
    assert rows is not None
    return rows.float().sum(1)


def _losses(term: Term, layout: Layout, size: int) -> Tensor:
    """Return what each sample loses by a term that lies in a certain way, but for its coefficient."""
    rows, units = layout.rows(term.elements, size), term.units
    assert rows is not None
    if units is not None:
        units = layout.rows(units, size)
        units = units != 0 if units is not None and term.weighs_classes else units
    return fold(rows, units, size, is_sum=term.is_sum)


def _layouts(term: Term, whole: Shown, agrees: bool) -> list[Layout]:
    """Return the ways in which a term's rows may lie: first as the algebra has it, if what it gives is right."""
    proposed = Layout(strided=whole.spec.of(term.key).layout.strided)
    flat = [Layout(), Layout(strided=True)]
    across = [Layout(axis) for axis in range(1, term.elements.dim())]
    found = dict.fromkeys(([proposed] if agrees else []) + flat + across)
    return [layout for layout in found if layout.rows(term.elements, whole.size) is not None]


def _lies(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    rows = layout.rows(term.elements, size)
    singles = [layout.rows(one.elements, 1) for one, _ in alone]
    assert rows is not None
    return all(one is not None and _same(row, one[0]) for row, one in zip(rows, singles, strict=True))


def _lies_divided(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample's row is its own but for its share in a number by which all are divided."""
    rows = layout.rows(term.elements, size)
    singles = [layout.rows(one.elements, 1) for one, _ in alone]
    if rows is None or not term.is_sum or any(one is None or one[0].shape != rows[0].shape for one in singles):
        return False
    own = torch.cat([one for one in singles if one is not None]).float()
    shares = (rows.float() * own).sum(1) / (own * own).sum(1)
    return _close(rows.float(), shares[:, None] * own) and _close(shares.sum(), torch.ones_like(shares[0]))


def _lies_permuted(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample has a row of its own, but not each at its place."""
    rows = layout.rows(term.elements, size)
    singles = [layout.rows(one.elements, 1) for one, _ in alone]
    if rows is None or any(one is None for one in singles):
        return False
    places = [[j for j, row in enumerate(rows) if _same(row, one[0])] for one in singles if one is not None]
    return all(places) and any(len(set(order)) == size for order in itertools.product(*places))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and _close(a, b)


def _close(a: Tensor, b: Tensor) -> bool:
    """Tell if two tensors are equal but for rounding."""
    a, b = a.float().reshape(-1), b.float().reshape(-1)
    size = b.nan_to_num().abs().max() if b.numel() else b.sum()
    return torch.allclose(a, b, rtol=_CLOSE, atol=float(_CLOSE * size) * 0.1 + 1e-12, equal_nan=True)
