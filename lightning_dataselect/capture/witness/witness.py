"""Compare the losses of single samples with how the loss of several of them is read.

Capture infers from a batch what a loss is divided by, which axis holds the samples and in which order they lie. All
of this may be so by chance of sizes and values. A batch of one leaves nothing to infer: `decide` takes what the same
terms were for single samples, and settles how they are to be read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.folds import Folded
from lightning_dataselect.capture.loss.refusals import (
    COMPARED,
    COUNT,
    CUT_OFF,
    DRAWN,
    GROUPS,
    JUDGED,
    ORDER,
    OTHER_WAY,
    ROWS,
    SCALE,
    SHARED,
    SIZE,
)
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import Layout, StepSpec
from lightning_dataselect.capture.loss.terms import Key, Term
from lightning_dataselect.capture.witness.in_turn import happens_once, with_loops
from lightning_dataselect.capture.witness.mixed import takes_again
from lightning_dataselect.capture.witness.readings import fits, possible_readings
from lightning_dataselect.capture.witness.sample_rows import (
    CLOSE,
    are_close,
    are_paired,
    are_ragged,
    are_same,
    are_weighed_anew,
    are_weighted,
    has_even_rows,
    is_scaled,
    lies,
    lies_divided,
    lies_permuted,
    possible_layouts,
    sample_losses,
)


def decide(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> tuple[StepSpec, bool]:
    """Settle how the terms of a step are read, by what they are for each of its samples alone.

    A term that is another one for a sample alone, as a model that normalises over the batch makes it, shows nothing,
    and is left to the algebra, whatever samples have shown before. A term that stays as it was with fewer of the
    samples is none of theirs: it is made of parameters and fixed tensors or, where a batch has others than the samples
    that are measured, it is those'.

    Args:
        whole: Of several samples.
        singles: Of each of them alone, in order.
        spec: The findings so far.

    Returns:
        The findings, with those of the witness; True if other samples could tell no more.
    """
    if not (whole.loss.isfinite() and any(one.loss.isfinite() for one in singles)):
        return spec, False
    agrees = whole.losses is not None and are_close(whole.losses, torch.stack([one.loss.float() for one in singles]))
    # samples with equal losses, as before a head that begins at 0 has learnt, may lie in any order
    is_alike = all(are_close(one.loss, singles[0].loss) for one in singles[1:])
    spec, is_settled = with_loops(whole, singles, spec, agrees), not is_alike
    everywhere = [key for key in whole.terms if all(key in one.terms for one in singles)]
    values = [torch.stack([one.terms[key][0].value.reshape(()) for one in singles]) for key in everywhere]
    for key, (term, slope) in whole.terms.items():
        alone = [one.terms.get(key) for one in singles]
        own = [one for one in alone if one is not None]
        if slope.numel() != 1 or key[0] in spec.loops:
            continue
        if len(own) < len(alone):
            if happens_once(key[0], [whole, *singles]):
                spec = _with_absent(spec, key, term, slope, alone, whole, values, agrees)
            continue
        if term.origin is not None and not term.origin.is_own:
            if term.origin.is_foreign or all(are_same(term.elements, one.elements) for one, _ in own):
                spec = spec.with_term(key, is_foreign=True)
                continue
        if not is_alike and key not in whole.of_folds and bool((term.elements != 0).any()):
            if all(are_same(term.elements, one.elements) for one, _ in own):
                spec = spec.with_term(key, is_fixed=True, enters=False)
                continue
        if takes_again(key, whole, singles):
            spec = spec.with_term(key, refusal=JUDGED if term.is_judged or whole.picks_by_outputs else DRAWN)
            continue
        if are_ragged(term, own):
            spec = spec.with_term(key, refusal=ROWS)
            continue
        if isinstance(term, Folded) and are_weighed_anew(term, own, whole.size):
            spec = spec.with_term(key, refusal=SCALE)
            continue
        if are_paired(term, own, whole.size):
            spec = spec.with_term(key, is_paired=True)
            continue
        layouts = possible_layouts(term, whole, agrees)
        fitting = [layout for layout in layouts if lies(layout, term, own, whole.size)]
        is_permuted = not fitting and any(lies_permuted(layout, term, own, whole.size) for layout in layouts)
        if is_permuted:
            spec = spec.with_term(key, refusal=JUDGED if whole.picks_by_outputs else ORDER)
            continue
        # samples of equal shares lie as they would without a division that the algebra has followed
        may_be_divided = not fitting or whole.spec.of(key).divided_elementwise
        divided = [layout for layout in layouts if may_be_divided and lies_divided(layout, term, own, whole.size)]
        if (fitting or divided) and bool((term.elements != 0).any()):  # which would lie in any way
            layout = (divided or fitting)[0]
            spec = _settled(spec, key, term, slope, own, layout, whole, values, elementwise=bool(divided))
            # where several divisors fit samples of equal shares, those of others may tell
            shares_vary = len({round(float(by), 6) for _, by in own}) > 1
            is_settled &= len(spec.of(key).readings) < 2 or shares_vary
        elif term.is_compared:
            spec = spec.with_term(key, refusal=COMPARED)
        elif bool(term.elements.any()) and any(is_scaled(layout, term, own, whole.size) for layout in layouts):
            spec = spec.with_term(key, refusal=SCALE)
        else:
            weighs_alike = all(are_close(by, slope) for _, by in own)
            spec = spec.with_term(key, is_witnessed=False, weighs_alike=weighs_alike)
    return spec, is_settled


def warn_of_own_constants(whole: Shown, singles: Sequence[Shown]) -> None:
    """Warn where what a loss is besides its terms depends on the samples, although it has no gradient.

    Args:
        whole: Of several samples.
        singles: Of each of them alone.
    """
    constants = [one.constant for one in singles]
    if whole.constant is None or any(constant is None for constant in constants):
        return
    alone = torch.stack([constant.reshape(()) for constant in constants if constant is not None])
    if not are_close(alone, alone[:1].expand_as(alone)):
        warnings.warn(
            "A part of the loss has no gradient and differs from sample to sample, such as a term that is subtracted"
            " after detach(). Each sample's loss includes it with its value for the whole batch.",
            stacklevel=3,
        )


def _with_absent(
    spec: StepSpec,
    key: Key,
    term: Term,
    slope: Tensor,
    alone: Sequence[tuple[Term, Tensor] | None],
    whole: Shown,
    values: Sequence[Tensor],
    agrees: bool,
) -> StepSpec:
    """Return the findings with those on a term that some samples do not have alone, and so lose nothing by it."""
    absent = [i for i, one in enumerate(alone) if one is None]
    rows = [(layout, layout.rows(term.elements, whole.size)) for layout in possible_layouts(term, whole, agrees)]
    layouts = [layout for layout, each in rows if each is not None and not bool(each[absent].any())]
    if not layouts:
        is_read = whole.spec.of(key).enters and not spec.of(key).is_witnessed
        return spec.with_term(key, refusal=OTHER_WAY.format(term.name)) if is_read else spec
    fitting = [layout for layout in layouts if lies(layout, term, alone, whole.size)]
    own = [one for one in alone if one is not None]
    if not (fitting and own):
        return spec
    settled = _settled(spec, key, term, slope, alone, fitting[0], whole, values, elementwise=False)
    found = settled.of(key)
    is_open = found.refusal is None and found.divisor is None and not term.is_sum
    shares = torch.stack([(by / slope).float().reshape(()) for _, by in own])
    if is_open and bool((shares.round() > 1).all()) and are_close(shares, shares.round()):
        return spec.with_term(key, refusal=GROUPS)
    return settled


def _settled(
    spec: StepSpec,
    key: Key,
    term: Term,
    slope: Tensor,
    alone: Sequence[tuple[Term, Tensor] | None],
    layout: Layout,
    whole: Shown,
    values: Sequence[Tensor],
    *,
    elementwise: bool,
) -> StepSpec:
    """Choose what a term is divided by, whose rows lie as they should; by what losses come to, each in ``values``."""
    present = torch.tensor([i for i, one in enumerate(alone) if one is not None], device=slope.device)
    own = [one for one in alone if one is not None]
    readings = [reading.of(present) for reading in possible_readings(key, term, slope, layout, whole, elementwise)]
    truth = torch.stack([by.float().reshape(()) for _, by in own])
    if elementwise:
        truth = torch.stack([by * sample_losses(one, layout, 1)[0] for one, by in own])
    # whatever a step does where nothing is lost, as where it divides by a count of 0, says nothing
    loses = sample_losses(term, layout, whole.size)[present].nan_to_num() != 0
    if bool(((truth == 0) != (slope.reshape(()) == 0))[loses].any()) and not elementwise:
        return spec.with_term(key, refusal=CUT_OFF)
    before = spec.of(key)
    is_known = before.is_witnessed and before.picked_at == term.picked_at
    known = [divisor for divisor, _ in before.readings] if is_known else []
    fitting = [reading for reading in readings if fits(reading, truth)]
    # none of those that were known may be right: a batch may show the first zeros by whose number others divide
    fitting = [reading for reading in fitting if reading.divisor in known] or fitting
    if not fitting and bool((truth.sign() != slope.float().sign())[loses].any()) and not elementwise:
        return spec.with_term(key, refusal=SIZE)
    if not fitting and not term.is_sum:
        if elementwise:
            is_counted = are_weighted(layout, term, own, whole.size)
        else:
            followed = [value[present] for value in values]
            is_balance = any(_follows(1 / truth, value) for value in followed)
            is_counted = not is_balance and _adds_up(1 / truth, loses, whole.size / slope.float())
            if are_close(truth.sum(), slope.float()) and not any(_follows(truth, value) for value in followed):
                return spec.with_term(key, refusal=SCALE)
        if is_counted and term.is_shared:
            return spec.with_term(key, refusal=SHARED)
        # else a factor that is made of the whole batch, such as a share that is drawn
        return spec.with_term(key, refusal=COUNT) if is_counted else spec
    if not fitting and term.is_shared:
        return spec.with_term(key, refusal=SHARED)
    if not fitting:
        adds_up = elementwise or _adds_up(1 / truth, loses, 1 / slope.float())
        return spec.with_term(key, refusal=COUNT if adds_up else SCALE)
    by_mean = next((reading.by_mean for reading in fitting if isinstance(reading.divisor, tuple)), False)
    fitting = [r for r in fitting if not isinstance(r.divisor, tuple) or r.by_mean == by_mean]
    spec = spec.with_term(
        key,
        is_witnessed=True,
        is_joined=term.is_joined,
        is_even=(before.is_even or not before.is_witnessed) and has_even_rows(term, layout, whole.size),
        layout=layout,
        picked_at=before.picked_at if term.picked_at is None else term.picked_at,
        divisor=fitting[0].divisor,
        divided_elementwise=elementwise,
        divided_by_mean=by_mean,
        readings=() if elementwise else tuple((reading.divisor, reading.product) for reading in fitting),
    )
    counts = {place: whole.spec.counts[place] for place in spec.of(key).places() if place in whole.spec.counts}
    return replace(spec, counts={**spec.counts, **counts})


def _adds_up(shares: Tensor, loses: Tensor, total: Tensor) -> bool:
    """Tell if what samples have in a divisor comes to what it is.

    Those that lose nothing may have no share, and where there is none, a step divides by 1.
    """
    totals = [shares.sum(), shares[loses].sum()]
    n_ones = int(((shares - 1).abs() <= CLOSE).sum())
    return any(are_close(own - n, total) for own in totals for n in range(n_ones + 1))


def _follows(number: Tensor, value: Tensor) -> bool:
    """Tell if a number is a multiple of a value, and a constant, as a running mean of losses that balances them is."""
    if are_close(number, number[:1].expand_as(number)):  # it follows anything, and so nothing
        return False
    line = torch.stack([torch.ones_like(value), value], 1).float()
    found = line @ (torch.linalg.pinv(line) @ number[:, None])
    return are_close(found, number)
