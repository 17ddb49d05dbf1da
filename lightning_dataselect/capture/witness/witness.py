"""Compare the losses of single samples with how the loss of several of them is read.

Capture infers from a batch what a loss is divided by, which axis holds the samples and in which order they lie. All
of this may be so by chance of sizes and values. A batch of one leaves nothing to infer: `decide` takes what the same
terms were for single samples, and settles how they are to be read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
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
    ROWS,
    SCALE,
    SHARED,
    SIZE,
)
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import Layout, StepSpec
from lightning_dataselect.capture.loss.terms import Key, Term
from lightning_dataselect.capture.witness.mixed import takes_again
from lightning_dataselect.capture.witness.readings import fits, possible_readings
from lightning_dataselect.capture.witness.sample_rows import (
    CLOSE,
    are_close,
    are_ragged,
    are_same,
    are_weighed_anew,
    are_weighted,
    has_even_rows,
    lies,
    lies_divided,
    lies_permuted,
    possible_layouts,
    row_alone,
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
    spec, is_settled = _with_loops(whole, singles, spec, agrees), not is_alike
    everywhere = [key for key in whole.terms if all(key in one.terms for one in singles)]
    values = [torch.stack([one.terms[key][0].value.reshape(()) for one in singles]) for key in everywhere]
    for key, (term, slope) in whole.terms.items():
        alone = [one.terms.get(key) for one in singles]
        if any(one is None for one in alone) or slope.numel() != 1 or key[0] in spec.loops:
            continue
        own = [one for one in alone if one is not None]
        if term.origin is not None and not term.origin.is_own:
            if term.origin.is_foreign or all(are_same(term.elements, one.elements) for one, _ in own):
                spec = spec.with_term(key, is_foreign=True)
                continue
        if not is_alike and bool((term.elements != 0).any()):
            if all(are_same(term.elements, one.elements) for one, _ in own):
                spec = spec.with_term(key, is_fixed=True, enters=False)
                continue
        if takes_again(key, whole, singles):
            spec = spec.with_term(key, refusal=JUDGED if term.is_judged else DRAWN)
            continue
        if are_ragged(term, own):
            spec = spec.with_term(key, refusal=ROWS)
            continue
        if isinstance(term, Folded) and are_weighed_anew(term, own, whole.size):
            spec = spec.with_term(key, refusal=SCALE)
            continue
        layouts = possible_layouts(term, whole, agrees)
        fitting = [layout for layout in layouts if lies(layout, term, own, whole.size)]
        is_permuted = not fitting and any(lies_permuted(layout, term, own, whole.size) for layout in layouts)
        if is_permuted:
            spec = spec.with_term(key, refusal=ORDER)
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
        elif spec.of(key).is_witnessed:
            spec = spec.with_term(key, is_witnessed=False)
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
    alone = torch.stack([constant.reshape(-1) for constant in constants if constant is not None])
    if not are_close(alone, alone[:1].expand_as(alone)):
        warnings.warn(
            "A part of the loss has no gradient and differs from sample to sample, such as a term that is subtracted"
            " after detach(). Each sample's loss includes it with its value for the whole batch.",
            stacklevel=3,
        )


def refuse_mined(batch: Shown, positions: Sequence[int], singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Refuse the terms of which a batch leaves out what a sample alone would lose, as all but the hardest.

    Args:
        batch: Of all samples.
        positions: Of some of them in the batch.
        singles: Of each of these alone.
        spec: The findings so far.
    """
    for key, (term, _) in batch.terms.items():
        alone = [one.terms[key][0] for one in singles if key in one.terms]
        if not term.is_judged or len(alone) < len(singles):
            continue
        found = spec.of(key)
        layouts = [found.layout] if found.is_witnessed else possible_layouts(term, batch, agrees=False)
        if layouts and all(_leaves_out(layout, term, batch.size, positions, alone) for layout in layouts):
            spec = spec.with_term(key, refusal=JUDGED)
    return spec


def _leaves_out(layout: Layout, term: Term, size: int, positions: Sequence[int], alone: Sequence[Term]) -> bool:
    """Tell if a sample's losses are 0 in a batch where they are not alone, or the other way round."""
    rows = layout.rows(term.elements, size)
    has_zeros = rows is not None and bool((rows == 0).any())
    for position, one in zip(positions, alone, strict=True):
        row = None if rows is None else rows[position]
        own = None if row is None else row_alone(layout, term, one, row)
        if row is None or own is None or own.shape != row.shape:
            return False
        least = CLOSE * torch.maximum(own.abs().max(), row.abs().max())
        if bool(((own.abs() > least) & (row == 0)).any()):
            return True
        # where a batch leaves out none at all, samples alone are multiplied by 0 for another reason
        if has_zeros and bool(((row.abs() > least) & (own == 0)).any()):
            return True
    return False


def _with_loops(whole: Shown, singles: Sequence[Shown], spec: StepSpec, agrees: bool) -> StepSpec:
    """Return the findings with the places where each sample has a term of its own, and those where none has.

    A place that is passed as often as there are samples is a loop over them, and one that is passed as often for one
    sample as for several is none, whatever their number.

    Args:
        whole: Of several samples.
        singles: Of each of them alone.
        spec: The findings so far.
        agrees: True if the algebra gives to each sample what it loses alone.
    """
    places = Counter(key[0] for key in whole.terms)
    of_singles = [Counter(key[0] for key in one.terms) for one in singles]
    others = {place for place, n in places.items() if all(one[place] == n for one in of_singles)}
    loops = set()
    for place, n in places.items():
        if n == 1 or any(one[place] != 1 for one in of_singles):
            continue
        slopes, truth = _slopes_at(place, [whole]), _slopes_at(place, singles)
        turns = torch.stack([term.value for key, (term, _) in whole.terms.items() if key[0] == place]).flatten()
        own = torch.stack([term.value for one in singles for key, (term, _) in one.terms.items() if key[0] == place])
        own = own.flatten()
        is_in_turn = n == whole.size and are_close(turns, own)
        if any(term.picked_at is not None for key, (term, _) in whole.terms.items() if key[0] == place):
            # groups of one sample each are met in their own order, so that one of two orders of the samples tells
            is_mean = is_in_turn and are_close(slopes * whole.size, truth)
            if not (is_mean or are_close(slopes, truth[:1].expand_as(slopes))):
                spec = _refused(spec, place, whole, GROUPS)
            else:
                spec = replace(spec, no_groups=spec.no_groups | {place})
            continue
        if n != whole.size:
            continue
        loops.add(place)
        if not is_in_turn and are_close(turns.sort().values, own.sort().values):
            spec = _refused(spec, place, whole, ORDER)
        elif is_in_turn and not agrees:
            if not (are_close(slopes, truth) or are_close(slopes * whole.size, truth)):
                adds_up = are_close((1 / truth).sum() * slopes, torch.ones_like(slopes))
                spec = _refused(spec, place, whole, COUNT if adds_up else SCALE)
    return replace(spec, loops=(spec.loops | loops) - others, no_loops=(spec.no_loops | others) - loops)


def _slopes_at(place: Hashable, shown: Sequence[Shown]) -> Tensor:
    """Return the coefficients of the terms at a place, in their order."""
    met = [slope for one in shown for key, (_, slope) in one.terms.items() if key[0] == place]
    return torch.cat([slope.float().reshape(-1) for slope in met])


def _refused(spec: StepSpec, place: Hashable, whole: Shown, refusal: str) -> StepSpec:
    for key in whole.terms:
        spec = spec.with_term(key, refusal=refusal) if key[0] == place else spec
    return spec


def _settled(
    spec: StepSpec,
    key: Key,
    term: Term,
    slope: Tensor,
    alone: Sequence[tuple[Term, Tensor]],
    layout: Layout,
    whole: Shown,
    values: Sequence[Tensor],
    *,
    elementwise: bool,
) -> StepSpec:
    """Choose what a term is divided by, whose rows lie as they should; by what losses come to, each in ``values``."""
    readings = possible_readings(key, term, slope, layout, whole, elementwise)
    truth = torch.stack([by.float().reshape(()) for _, by in alone])
    if elementwise:
        truth = torch.stack([by * sample_losses(one, layout, 1)[0] for one, by in alone])
    if bool(((truth == 0) != (slope.reshape(()) == 0)).any()) and not elementwise:
        return spec.with_term(key, refusal=CUT_OFF)
    before = spec.of(key)
    is_known = before.is_witnessed and before.picked_at == term.picked_at
    known = [divisor for divisor, _ in before.readings] if is_known else []
    fitting = [
        reading for reading in readings if fits(reading, truth) and reading.divisor in (known or [reading.divisor])
    ]
    if not fitting and bool((truth.sign() != slope.float().sign()).any()) and not elementwise:
        return spec.with_term(key, refusal=SIZE)
    if not fitting and not term.is_sum:
        if elementwise:
            is_counted = are_weighted(layout, term, alone, whole.size)
        else:
            is_balance = any(_follows(1 / truth, value) for value in values)
            is_counted = not is_balance and are_close((1 / truth).mean(), 1 / slope.float())
            if are_close(truth.sum(), slope.float()) and not any(_follows(truth, value) for value in values):
                return spec.with_term(key, refusal=SCALE)
        if is_counted and term.is_shared:
            return spec.with_term(key, refusal=SHARED)
        # else a factor that is made of the whole batch, such as a share that is drawn
        return spec.with_term(key, refusal=COUNT) if is_counted else spec
    if not fitting and term.is_shared:
        return spec.with_term(key, refusal=SHARED)
    if not fitting:
        adds_up = elementwise or are_close((1 / truth).sum(), 1 / slope.float())
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


def _follows(number: Tensor, value: Tensor) -> bool:
    """Tell if a number is a multiple of a value, and a constant, as a running mean of losses that balances them is."""
    line = torch.stack([torch.ones_like(value), value], 1).float()
    found = line @ (torch.linalg.pinv(line) @ number[:, None])
    return are_close(found, number)
