"""Hold what a step loses on single samples against how its loss on several of them is read.

Capture infers from a batch what a loss is divided by, which axis holds the samples and in which order they lie. All
of this may be so by chance of sizes and values. A batch of one leaves nothing to infer: `decide` takes what the same
terms were for single samples, and settles how they are to be read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_dataselect.capture.reductions import Key, Term, fold
from lightning_dataselect.capture.specs import Divisor, Layout, StepSpec
from lightning_dataselect.capture.ways_out import OWN_LOSS

_CLOSE = 1e-3  # of the size of what is compared: kernels round otherwise for another number of samples


_MUCH = 0.1  # as losses before any training, which are all about the same, rarely differ


ORDER = (
    "The step puts the samples of a batch into another order, as by their lengths, so what one sample loses would be"
    " taken for another's. Put the outputs back into the order of the batch before the loss, as"
    " torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False) does."
)


JUDGED = (
    "The step picks rows out of the batch by what the model's outputs decide, maybe those of other samples, as where"
    " the hardest of a batch are kept, and single samples have not shown otherwise. Return each sample's own loss under"
    " a key and give sample_loss='that key', or leave the choice of hard samples to SelectiveBackprop."
)


COUNT = (
    "The loss is divided by a number that was counted in the batch outside of torch, or in a way that cannot be"
    " followed to its samples, so what each of them adds to that number is not known. Divide by a count that torch"
    " sums up over the batch, such as (labels != -100).sum()."
)


SCALE = (
    "What the loss is divided by, or multiplied with, is another number for a sample alone than its share in that of"
    " several, as the length of the longest text, the root of a count, or a count and 1 is, so what each sample loses"
    " cannot be told from a batch of them. Divide by a count that torch sums up over the batch, such as"
    " (labels != -100).sum(), or by the number of samples."
)


GROUPS = (
    "The loss is a mean over groups of samples, as over the classes that are there, so how much a sample's loss counts"
    " depends on how many groups its batch holds. Weigh the samples' own losses and take the mean over them, or return"
    " each sample's own loss under a key and give sample_loss='that key'."
)


ROWS = (
    "The losses of all samples lie one after the other, as those of boxes, nodes or tokens do, some samples have more"
    f" of them than others, and nothing shows which rows are whose. {OWN_LOSS}"
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
        divides: True if the step has divided something that has a gradient.
        sorts: True if the step has sorted something, or taken rows by an index or a mask.
        reorders: True if that was in another order before.
    """

    size: int
    loss: Tensor
    terms: Mapping[Key, tuple[Term, Tensor]]
    numbers: Mapping[Key, Term] = field(default_factory=dict)
    losses: Tensor | None = None
    spec: StepSpec = field(default_factory=StepSpec)
    divides: bool = False
    sorts: bool = False
    reorders: bool = False


def decide(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> tuple[StepSpec, bool]:
    """Settle how the terms of a step are read, by what they are for each of its samples alone.

    A term that is another one for a sample alone, as a model that normalises over the batch makes it, shows nothing,
    and is left to the algebra. A term that stays as it was with fewer of the samples is none of theirs: it is made of
    parameters and fixed tensors or, where a batch has others than the samples that are measured, it is those'.

    Args:
        whole: Of several samples.
        singles: Of each of them alone, in order.
        spec: The findings so far.

    Returns:
        The findings, with those of the witness; True if other samples could tell no more.
    """
    if not (whole.loss.isfinite() and any(one.loss.isfinite() for one in singles)):
        return spec, False
    agrees = whole.losses is not None and _close(whole.losses, torch.stack([one.loss.float() for one in singles]))
    # samples that all lose the same, as before a head that begins at 0 has learnt, may lie in any order
    is_alike = all(_close(one.loss, singles[0].loss) for one in singles[1:])
    spec, is_settled = _with_loops(whole, singles, spec, agrees), not is_alike
    everywhere = [key for key in whole.terms if all(key in one.terms for one in singles)]
    values = [torch.stack([one.terms[key][0].value.reshape(()) for one in singles]) for key in everywhere]
    for key, (term, slope) in whole.terms.items():
        alone = [one.terms.get(key) for one in singles]
        if any(one is None for one in alone) or slope.numel() != 1 or key[0] in spec.loops:
            continue
        own = [one for one in alone if one is not None]
        if term.origin is not None and not term.origin.is_own:
            if term.origin.is_foreign or all(_same(term.elements, one.elements) for one, _ in own):
                spec = spec.with_term(key, is_foreign=True)
                continue
        if not is_alike and bool((term.elements != 0).any()):
            if all(_same(term.elements, one.elements) for one, _ in own):
                spec = spec.with_term(key, is_fixed=True, enters=False)
                continue
        if _are_ragged(term, own):
            spec = spec.with_term(key, refusal=ROWS)
            continue
        layouts = _layouts(term, whole, agrees)
        fitting = [layout for layout in layouts if _lies(layout, term, own, whole.size)]
        is_permuted = not fitting and any(_lies_permuted(layout, term, own, whole.size) for layout in layouts)
        if is_permuted:
            spec = spec.with_term(key, refusal=ORDER)
            continue
        # samples of equal shares lie as they would without a division that the algebra has followed
        may_be_divided = not fitting or whole.spec.of(key).divided_elementwise
        divided = [layout for layout in layouts if may_be_divided and _lies_divided(layout, term, own, whole.size)]
        if fitting or divided:
            layout = (divided or fitting)[0]
            spec = _settled(spec, key, term, slope, own, layout, whole, values, elementwise=bool(divided))
            # where several divisors fit samples of equal shares, those of others may tell
            shares_vary = len({round(float(by), 6) for _, by in own}) > 1
            is_settled &= len(spec.of(key).readings) < 2 or shares_vary
    return spec, is_settled


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
        layouts = [found.layout] if found.is_witnessed else _layouts(term, batch, agrees=False)
        if layouts and all(_leaves_out(layout, term, batch.size, positions, alone) for layout in layouts):
            spec = spec.with_term(key, refusal=JUDGED)
    return spec


def _leaves_out(layout: Layout, term: Term, size: int, positions: Sequence[int], alone: Sequence[Term]) -> bool:
    """Tell if a sample's losses are 0 in a batch where they are not alone, or the other way round."""
    rows = layout.rows(term.elements, size)
    for position, one in zip(positions, alone, strict=True):
        row = None if rows is None else rows[position]
        own = None if row is None else _row_alone(layout, term, one, row)
        if row is None or own is None or own.shape != row.shape:
            return False
        least = _CLOSE * torch.maximum(own.abs().max(), row.abs().max())
        if bool((((own.abs() > least) & (row == 0)) | ((row.abs() > least) & (own == 0))).any()):
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
        if any(term.picked_at is not None for key, (term, _) in whole.terms.items() if key[0] == place):
            if not _close(slopes, truth[:1].expand_as(slopes)):
                spec = _refused(spec, place, whole, GROUPS)
            continue
        if n != whole.size:
            continue
        loops.add(place)
        turns = torch.stack([term.value for key, (term, _) in whole.terms.items() if key[0] == place]).flatten()
        own = torch.stack([term.value for one in singles for key, (term, _) in one.terms.items() if key[0] == place])
        own = own.flatten()
        if not _close(turns, own) and _close(turns.sort().values, own.sort().values):
            spec = _refused(spec, place, whole, ORDER)
        elif _close(turns, own) and not agrees:
            if not (_close(slopes, truth) or _close(slopes * whole.size, truth)):
                adds_up = _close((1 / truth).sum() * slopes, torch.ones_like(slopes))
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
    readings = _readings(key, term, slope, layout, whole, elementwise)
    truth = torch.stack([by.float().reshape(()) for _, by in alone])
    if elementwise:
        truth = torch.stack([by * _losses(one, layout, 1)[0] for one, by in alone])
    before = spec.of(key)
    is_known = before.is_witnessed and before.picked_at == term.picked_at
    known = [divisor for divisor, _ in before.readings] if is_known else []
    fitting = [
        reading for reading in readings if _fits(reading, truth) and reading.divisor in (known or [reading.divisor])
    ]
    if not fitting and not term.is_sum:
        if elementwise:
            is_counted = _are_weighted(layout, term, alone, whole.size)
        else:
            is_balance = any(_follows(1 / truth, value) for value in values)
            is_counted = not is_balance and _close((1 / truth).mean(), 1 / slope.float())
            if _close(truth.sum(), slope.float()) and not any(_follows(truth, value) for value in values):
                return spec.with_term(key, refusal=SCALE)
        # else a factor that is made of the whole batch, such as a share that is drawn
        return spec.with_term(key, refusal=COUNT) if is_counted else spec
    if not fitting:
        adds_up = elementwise or _close((1 / truth).sum(), 1 / slope.float())
        return spec.with_term(key, refusal=COUNT if adds_up else SCALE)
    by_mean = next((reading.by_mean for reading in fitting if isinstance(reading.divisor, tuple)), False)
    fitting = [r for r in fitting if not isinstance(r.divisor, tuple) or r.by_mean == by_mean]
    spec = spec.with_term(
        key,
        is_witnessed=True,
        is_joined=term.is_joined,
        is_even=(before.is_even or not before.is_witnessed) and _is_even(term, layout, whole.size),
        layout=layout,
        divisor=fitting[0].divisor,
        divided_elementwise=elementwise,
        divided_by_mean=by_mean,
        readings=() if elementwise else tuple((reading.divisor, reading.product) for reading in fitting),
    )
    counts = {place: whole.spec.counts[place] for place in spec.of(key).places() if place in whole.spec.counts}
    return replace(spec, counts={**spec.counts, **counts})


def _is_even(term: Term, layout: Layout, size: int) -> bool:
    """Tell if all samples have several elements by hand, of which as many are 0."""
    rows = layout.rows(term.elements, size)
    if rows is None or rows.shape[1] < 2 or not term.by_hand or term.picked_at is not None:
        return False
    counts = rows.count_nonzero(1)
    return bool((counts == counts[0]).all())


def _follows(number: Tensor, value: Tensor) -> bool:
    """Tell if a number is a multiple of a value, and a constant, as a running mean of losses that balances them is."""
    line = torch.stack([torch.ones_like(value), value.float()], 1)
    found = line @ (torch.linalg.pinv(line) @ number[:, None])
    return _close(found, number)


@dataclass(frozen=True)
class _Reading:
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


def _fits(reading: _Reading, truth: Tensor) -> bool:
    return _close(reading.alone[reading.shows], truth[reading.shows])


def _readings(key: Key, term: Term, slope: Tensor, layout: Layout, whole: Shown, elementwise: bool) -> list[_Reading]:
    """Return what a term may be divided by: as the algebra has it, if it is sure; then where it leaves no factor."""
    size, found, by = whole.size, whole.spec.of(key), slope.float().reshape(())
    each = _losses(term, layout, size)
    ones = torch.ones(size, device=each.device)
    numbers = {place: _losses(count, Layout(strided=count.strided), size) for place, count in whole.numbers.items()}
    given: list[tuple[Divisor | None, Tensor | None]] = [] if elementwise else [(None, None)]
    if not (term.is_sum or elementwise):
        given.append(("one over samples", ones))
    if term.is_sum:
        given.append(("samples", ones))
        if term.counts is not None and term.elements.numel() > size:
            given.append(("counts", _counted(term.counts, layout, size)))  # some of them maybe several times
    given += numbers.items() if term.is_sum or whole.divides else ()
    if term.is_sum and term.elements.numel() > size:
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
        readings.append(_Reading(divisor, alone * each if elementwise else alone, shows, float(by * total)))
        if not term.is_sum and isinstance(divisor, tuple):  # what divides is made to be 1 on average
            last = readings[-1]
            readings.append(replace(last, alone=last.alone / size, product=last.product / size, by_mean=True))
    readings.sort(key=lambda reading: not _leaves_no_factor(reading, term.elements.shape))
    sure = None if found.is_guess else found.divisor
    readings.sort(key=lambda reading: sure is None or reading.divisor != sure)
    return readings


def _leaves_no_factor(reading: _Reading, shape: torch.Size) -> bool:
    """Tell if a divisor is all that a term is multiplied with, or the number of rows of which each element counts."""
    widths = {1, *(shape[axes:].numel() for axes in range(1, len(shape)))} if reading.divisor == "counts" else {1}
    return any(abs(abs(reading.product) / width - 1) <= _CLOSE for width in widths if width)


def _counted(values: Tensor, layout: Layout, size: int) -> Tensor:
    rows = layout.rows(values, size)
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


def _row_alone(layout: Layout, term: Term, one: Term, row: Tensor) -> Tensor | None:
    """Return the row of a sample alone, to be compared with its row among others; None if it cannot lie so.

    Of picked rows, as of boxes, a sample alone has as many as it has, and 0 follows where others have more. A single
    row is none that was picked, and lies where the others have left room for it.
    """
    rows = layout.rows(one.elements, 1)
    missing = 0 if rows is None else row.numel() - rows.numel()
    if rows is None or term.picked_at is None or missing <= 0:
        return None if rows is None else rows[0]
    if one.picked_at is None and rows.numel() and row.numel() % rows.numel() == 0:
        places = row.reshape(-1, rows.numel())
        place = int((places != 0).any(1).int().argmax())
        return torch.zeros_like(places).index_fill(0, torch.tensor(place, device=row.device), 1).mul(rows).flatten()
    return torch.nn.functional.pad(rows[0], (0, missing))


def _lies(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    rows = layout.rows(term.elements, size)
    assert rows is not None
    singles = [_row_alone(layout, term, one, row) for (one, _), row in zip(alone, rows, strict=True)]
    return all(one is not None and _same(row, one) for row, one in zip(rows, singles, strict=True))


def _are_ragged(term: Term, alone: Sequence[tuple[Term, Tensor]]) -> bool:
    """Tell if a term has the rows of all samples, but more of some than of others, and no mask says whose they are."""
    n_rows = [one.elements.shape[:1].numel() for one, _ in alone]
    return term.picked_at is None and len({*n_rows}) > 1 and sum(n_rows) == term.elements.shape[:1].numel()


def _lies_divided(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample's row is its own but for its share in a number by which all are divided.

    A sample that loses nothing, as one of which all is masked, shows no share.
    """
    rows = layout.rows(term.elements, size)
    if rows is None:
        return False
    singles = [_row_alone(layout, term, one, row) for (one, _), row in zip(alone, rows, strict=True)]
    own = torch.stack([one.float() for one in singles if one is not None and one.shape == rows[0].shape] or [rows[0]])
    if len(own) < size:
        return False
    shows = (own != 0).any(1) & own.isfinite().all(1)
    if not shows.any() or bool((rows[~shows].nan_to_num() != 0).any()):
        return False
    rows, own = rows[shows].float(), own[shows]
    shares = (rows * own).sum(1) / (own * own).sum(1)
    total = shares.sum() / (1 if term.is_sum else size)
    adds_up = _close(total, torch.ones_like(total)) or (not shows.all() and bool(total < 1 + _CLOSE))
    return adds_up and _close(rows, shares[:, None] * own)


def _are_weighted(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if rows that lie so but for a share that is 1 on average do so for sure.

    Of rows of one number any would, and numbers that are all about the same have a share of about 1 on average.
    """
    rows = layout.rows(term.elements, size)
    assert rows is not None
    if rows.shape[1] > 1:
        return True
    shares = rows[:, 0].float() / torch.stack([_losses(one, layout, 1)[0] for one, _ in alone])
    return bool(((shares - 1).abs().max() > _MUCH) & ((shares.mean() - 1).abs() < 0.1 * _CLOSE))


def _lies_permuted(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample has a row of its own, but not each at its place."""
    rows = layout.rows(term.elements, size)
    if rows is None:
        return False
    singles = [_row_alone(layout, term, one, rows[0]) for one, _ in alone]
    if any(one is None for one in singles):
        return False
    places = [[j for j, row in enumerate(rows) if _same(row, one)] for one in singles if one is not None]
    return all(places) and any(len(set(order)) == size for order in itertools.product(*places))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and _close(a, b)


def _close(a: Tensor, b: Tensor) -> bool:
    """Tell if two tensors are equal but for rounding."""
    a, b = a.float().reshape(-1), b.float().reshape(-1)
    size = b.nan_to_num().abs().max() if b.numel() else b.sum()
    return torch.allclose(a, b, rtol=_CLOSE, atol=float(_CLOSE * size) * 0.1 + 1e-12, equal_nan=True)
