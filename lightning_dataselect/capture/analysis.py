"""Find the terms that make a loss, and what they are divided by, from its autograd graph."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.divisions import Division
from lightning_dataselect.capture.graph import Anchor, derivatives, edge_of, leads_only_to, reached
from lightning_dataselect.capture.independence import are_turns, find_rows, refuse_unseen
from lightning_dataselect.capture.probe import Probe
from lightning_dataselect.capture.reductions import (
    Key,
    Loop,
    Parts,
    Scale,
    Term,
    coefficients,
    foldable,
    incomplete,
    loops_of,
    turns_in,
    turns_of,
)
from lightning_dataselect.capture.specs import Divisor, Layout, StepSpec, TermSpec
from lightning_dataselect.capture.ways_out import EITHER, NO_OWN_LOSS, OWN_LOSS
from lightning_dataselect.capture.witness import JUDGED
from lightning_dataselect.utils.errors import CaptureError

# Below this share of the loss it may be rounding.
_LEAST_CONSTANT = 1e-4


def given(term: Term, slope: Scale, weights: Tensor | None = None) -> Tensor:
    """Return what a term gives to the loss, from its elements: its value may have been written to since.

    Args:
        term: One of the loss.
        slope: Its coefficient, or, of a loop, that of each turn.
        weights: (batch_size,) float, the factors on the shares of the samples, if there are any.
    """
    slopes = torch.as_tensor(slope, dtype=torch.float32, device=term.elements.device).detach().reshape(-1)
    with torch.no_grad():
        turns = turns_of(term, torch.ones_like(slopes) if weights is None else weights)
        own = [turn.weighted(None if weights is None else its) for turn, its in turns]
        return torch.stack([value.float() for value in own]).mul(slopes).sum()


def rest(loss: Tensor, parts: Parts, weights: Tensor | None = None) -> Tensor:
    """Return what a loss is without its terms: 0-dim float32, without a graph.

    Args:
        loss: Of one element.
        parts: Its terms, with their coefficients.
        weights: See `given`.
    """
    return loss.detach().float().reshape(()) - sum(given(term, slope, weights) for term, slope in parts)


def has_constant(loss: Tensor, parts: Parts) -> bool:
    """Tell if a loss is its terms and a constant: nothing else in it has a gradient, and it is not 0.

    Example:
        >>> from lightning_dataselect.capture.graph import edge_of
        >>> x, p = torch.tensor([0.5, 1.0], requires_grad=True), torch.tensor(2.0, requires_grad=True)
        >>> mean = x.mean()
        >>> parts = [(Term(("", 0), mean, x, None, False, edge=edge_of(mean)), -1.0)]
        >>> has_constant(2 - mean, parts), has_constant(p.square() - mean, parts), has_constant(-mean, parts)
        (True, False, False)
        >>> rest(2 - mean, parts)
        tensor(2.)
    """
    if not leads_only_to(loss.grad_fn, {turn.node for term, _ in parts for turn in turns_in(term)}):
        return False
    sizes = torch.stack([given(term, slope).abs() for term, slope in parts]).sum()
    size = rest(loss, parts).abs()
    return bool(size > max(_LEAST_CONSTANT, 8 * torch.finfo(loss.dtype).eps) * (size + sizes))


# A cross entropy is about a half of a loss to which a Dice loss is added, and a quarter once that is learnt: still
# worth telling samples apart by. What is less than this is an aside of the loss, and its main part is not understood.
_LEAST_SHARE = 0.1


def leave_out(
    reasons: Sequence[str], loss: Tensor, parts: Parts, terms: Sequence[Term], foreign: Parts, *, known: bool
) -> None:
    """Warn of what is left out, or refuse to go on without it.

    Args:
        reasons: What was found that no sample has a share in, at least one.
        loss: The step's loss.
        parts: The terms that are kept, with their coefficients.
        terms: All that the step has computed.
        foreign: The terms in which none of the samples that are measured has a share, with their coefficients.
        known: True if a step was taken on with these terms before, which may be small by now.

    Raises:
        CaptureError: those kept explain next to nothing of the loss.
    """
    share = explained(loss, parts, [*_of_parameters(loss, terms), *foreign])
    kept = ", ".join(dict.fromkeys(term.name for term, _ in parts))
    said = f"{'. '.join(reasons)}. What is left of the loss, {kept}, makes {share:.0%} of it"
    if share < _LEAST_SHARE and not known:
        raise CaptureError(f"{said}, too little to tell its samples apart by. {NO_OWN_LOSS}")
    warnings.warn(f"{said}; the per-sample loss is made of that.", stacklevel=2)


def explained(loss: Tensor, parts: Parts, constant: Parts) -> float:
    """Return the share of a loss's value that terms make up: what they give, against what the loss is without them.

    Sizes count, so that a negative term, or two that cancel each other, are not taken for nothing.

    Args:
        loss: 0-dim.
        parts: Terms of it, with their coefficients.
        constant: Others that are no matter of the samples, and taken away first.

    Returns:
        In [0, 1]; NaN where a value is not finite, or all are 0.

    Example:
        >>> from lightning_dataselect.capture.graph import edge_of
        >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> term = Term(("", 0), x.mean(), x, None, False)
        >>> explained(0.5 * x.mean() + 3, [(term, 0.5)], [])
        0.25
    """
    own = [given(term, slope) for term, slope in parts]
    rest = loss.detach().float() - sum(own) - sum(given(term, slope) for term, slope in constant)
    size = torch.stack(own).abs().sum()
    return float(size / (size + rest.abs()))


def _of_parameters(loss: Tensor, terms: Sequence[Term]) -> Parts:
    """Return the terms of parameters alone, such as weight decay; of those within one another the outer."""
    own = [term for term in terms if term.from_parameters and term.edge is not None]
    outer = reached(loss.grad_fn, {term.node for term in own})
    return coefficients(loss, [term for term in own if term.node in outer])


def find_divisor(
    term: Term, loss: Tensor, probe: Probe, batch_size: int, spec: StepSpec
) -> tuple[TermSpec, dict[Key, tuple[Term, Layout]], set[float]]:
    """Find out if a term is divided by a number added up over the batch, or by the number of samples.

    Args:
        term: One that the loss is made of.
        loss: The step's loss.
        probe: Has watched the step. What is divided before its anchors, the activations, is the model's own affair.
        batch_size: The number of samples.
        spec: The findings so far.

    Returns:
        The findings about the term; the numbers that may divide it, laid like its rows, with their layouts; the plain
        numbers by which it is divided, from which nothing shows where they come from.
    """
    found, laid, plain = spec.of(term.key), dict[Key, tuple[Term, Layout]](), set[float]()
    own, stops = {turn.node for turn in turns_in(term)}, set(probe.anchors)
    covered: dict[float | Key, set[Node]] = {}
    for division in probe.divisions.made:
        node = division.edge.node
        met = own & reached(node, own | stops)
        after = bool(met) and node in reached(loss.grad_fn, {node, *stops})
        if not after and not _divides_elements(division, term, stops):
            continue
        if isinstance(division.by, float):
            plain.add(division.by)
        for key in (*division.maybe, division.by):
            if not isinstance(key, float) and key not in laid:
                laid[key] = _laid_like(term, probe.recorder.counts[key], spec.counts.get(key, Layout()), batch_size)
        by = next((key for key in division.maybe if _is_counted(term, laid[key][0], batch_size)), division.by)
        if after:
            covered.setdefault(by, set()).update(met)
            if covered[by] != own:
                continue  # what divides some turns of a loop is their own affair, until it has divided all of them
        if not isinstance(by, float):
            is_guess = isinstance(division.by, float)
            if is_guess and after and not term.is_sum:
                continue
            found = replace(found, divisor=by, is_guess=is_guess)
        elif term.is_sum and counts_samples(by, term.elements.shape, batch_size):
            found = replace(found, divisor="samples", is_guess=True)
        else:
            continue
        if not after:
            found = replace(found, divided_elementwise=True)
    return found, laid, plain


def possible_divisors(
    own: TermSpec, term: Term, plain: Collection[float], counts: Mapping[Key, Term], batch_size: int
) -> list[Divisor | None]:
    """Return what may divide a term, the likeliest first, where that is a plain number, or nothing that was seen.

    A plain number may be a constant, the number of the samples, or that of anything that is added up over the batch
    and comes to it. A count of nothing comes to 1, by which a step divides in its place.

    Args:
        own: The findings about the term.
        term: One that the loss is made of.
        plain: The plain numbers by which it is divided.
        counts: What is added up over the batch.
        batch_size: The number of samples.

    Returns:
        One divisor if it is sure.
    """
    if own.divided_elementwise or (isinstance(own.divisor, tuple) and not own.is_guess):
        return [own.divisor]
    found: list[Divisor | None] = [own.divisor] if own.divisor is not None else []
    if term.is_sum and term.elements.numel() > batch_size:
        shape = term.elements.shape
        counted = 0.0 if term.counts is None else float(term.counts.float().sum())
        # of picked rows each element counts, but a step divides by the number of the rows
        if any(counted / shape[axes:].numel() in plain for axes in range(1, len(shape) + 1)):
            found.insert(0 if term.picked_at is not None else len(found), "counts")
        if float((term.elements != 0).sum()) in plain:
            found.append("nonzero")
    found.append(None)
    if term.is_sum:
        found.append("samples")
    if term.is_sum or plain:
        values = plain or {1.0}
        found += [key for key, count in counts.items() if _as_divisor(count.value) in values]
    return list(dict.fromkeys(found))


def _as_divisor(number: Tensor) -> float:
    return float(number.detach()) or 1.0


def _laid_like(term: Term, count: Term, layout: Layout, batch_size: int) -> tuple[Term, Layout]:
    """Lay rows that are counted as those of the term, which its gradients have shown, if there are as many."""
    rows, shape = term.elements.shape[:1], count.elements.shape
    if layout.axis:
        return count, layout
    if shape[:1] == rows:
        return replace(count, strided=term.strided), Layout(strided=term.strided)
    if term.strided and shape[1:2] == (batch_size,) != shape[:1] and shape[:2].numel() == rows.numel():
        return replace(count, elements=count.elements.transpose(0, 1)), Layout(axis=1)
    return count, layout


def _is_counted(term: Term, count: Term, batch_size: int) -> bool:
    """Tell if a Python number that divides a term was counted in the batch, and is not the same by chance.

    It is if every sample that loses something is counted, as its tokens are, unlike where hits are counted; but more
    than one a sample are no hits: those may be objects, of which an image may have none.
    """
    is_more = term.is_sum and bool(count.weighted(None) > batch_size)
    return is_more or not bool(((count.losses(batch_size) == 0) & (term.losses(batch_size) != 0)).any())


def _divides_elements(division: Division, term: Term, stops: set[Node]) -> bool:
    """Tell if the elements are a multiple of the quotient, unlike those of a cross entropy of divided logits."""
    if division.edge.node not in reached(term.elements.grad_fn, {division.edge.node, *stops}):
        return False
    slope = derivatives(term.elements.sum(), [division.edge], again=True)[0]
    return slope is not None and not reached(slope.grad_fn, stops)


def counts_samples(number: float, elements: torch.Size, batch_size: int) -> bool:
    """Tell if a number that losses are divided by grows with the batch: its size, or a multiple of it.

    Args:
        number: The divisor.
        elements: The shape of the losses, (batch_size * k, ...).
        batch_size: The number of samples.

    Example:
        >>> shape = torch.Size([8, 32])
        >>> [counts_samples(n, shape, 8) for n in (8, 8 * 32, 2 * 8, 32, 1000)]
        [True, True, True, False, False]
    """
    rows = elements[0] if elements else 1
    if number in (batch_size, rows):
        return True
    of_a_sample = {1}
    for size in (rows // batch_size, *elements[1:]):
        of_a_sample |= {size * product for product in of_a_sample}
    return number not in of_a_sample and any(number in (n * batch_size, 2 * n * batch_size) for n in of_a_sample)


Anchors = Mapping[Node, Sequence[Anchor]]


_PICKED = (
    "The step picks rows out of the batch by a mask or an index, so which sample a row of losses belongs to is another"
    " in each batch. Use ignore_index or multiply the losses by the mask. Rows of pairs of samples, as of a contrastive"
    f" loss, are no sample's own: {NO_OWN_LOSS}"
)


_FOLDED = (
    "The step takes the mean or the sum over its samples first, and puts the loss together from what is left of each"
    " output, so no reduction holds what each sample adds. Put it together sample by sample, and reduce over the"
    " samples last: (errors * weights).sum(1).mean() in place of (errors.mean(0) * weights).sum()."
)


def analyze_loss(
    loss: Tensor, terms: Sequence[Term], probe: Probe, batch_size: int, spec: StepSpec
) -> tuple[Parts, StepSpec]:
    """Find the terms that a loss is soundly made of.

    Args:
        loss: The step's loss.
        terms: All that the probe has seen, with their graphs.
        probe: Has watched the step.
        batch_size: The number of samples.
        spec: The findings so far, which have met the terms.

    Returns:
        The terms that count, with their coefficients; the findings about them.

    Raises:
        CaptureError: If none counts, if those that do are next to nothing of the loss, or if one of them cannot be
            given back to the samples.
    """
    if not loss.requires_grad:
        raise CaptureError(
            "The step's loss has no gradient (requires_grad is False): return it as it was computed, without detach(),"
            " item() or torch.no_grad()."
        )
    anchors = probe.anchors
    own = [term for term in terms if not (term.from_parameters or spec.of(term.key).is_fixed)]
    fixed = coefficients(loss, [term for term in terms if spec.of(term.key).is_fixed])
    parts = coefficients(loss, own)
    parts, foreign, spec = _without_foreign(parts, spec)
    if foreign and not parts:
        return [], spec
    for term, _ in parts:
        if (refusal := spec.of(term.key).refusal) is not None:
            # what another sample adds to a quotient of sums is no matter of how they are divided
            raise CaptureError(refusal if len(parts) == 1 or not all(_bent(loss, parts, anchors)) else _QUOTIENT)
    spec = replace(spec, loops=spec.loops | (_find_loops(parts, probe, batch_size) - spec.no_loops))
    if words := incomplete(parts, spec.loops, batch_size):
        raise CaptureError(words)
    loops = loops_of(parts, spec.loops, batch_size)
    parts = [(term, slope) for term, slope in parts if term.key[0] not in spec.loops]
    _refuse_picked(loss, parts, probe, batch_size, spec)
    parts = [(term, slope) for term, slope in parts if not term.by_hand or foldable(term.elements.shape, batch_size)]
    for term, _ in parts:
        if not foldable(term.elements.shape, batch_size):
            raise CaptureError(
                f"{term.name} gave losses of the shape {tuple(term.elements.shape)}, whose first axis is not a multiple"
                f" of the batch's {batch_size} samples. {OWN_LOSS}"
            )
    turns = [turn for loop, _ in loops for turn in loop.turns]
    means_of_turns = [term for term, _ in parts if term.by_hand and reached(term.node, _nodes(turns))]
    kept = [(term, slope) for term, slope in parts if term not in means_of_turns and not _aggregates(term, parts)]
    inner = [term for term, _ in kept if _normalises(term, kept)]
    kept = [(term, slope) for term, slope in kept if term not in inner]
    normalisers = [term.value for term in inner]
    sound: Parts = []
    for term, slope in kept:
        if spec.of(term.key).is_witnessed:
            refuse_unseen(term, probe, batch_size)
        else:
            strided = find_rows(term, probe, batch_size, normalisers)
            if strided is None:
                continue
            before = spec.of(term.key)
            term.strided = before.layout.strided if probe.has_equal_axes and before.enters else strided
        if term.picked_at != spec.of(term.key).picked_at:  # what fitted its rows before says nothing of these
            spec = spec.with_term(term.key, picked_at=term.picked_at, readings=())
        sound.append((term, slope))
    if kept and not sound and not loops:
        raise CaptureError(
            "What a sample loses in this step depends on the other samples of its batch, as in a contrastive loss."
            f" {NO_OWN_LOSS}"
        )
    reasons = []
    if len(sound) < len(kept):
        reasons.append(f"{len(kept) - len(sound)} of {len(kept)} loss terms depend on several samples at once")
    sound += loops
    if not sound and reached(loss.grad_fn, probe.picked):
        raise CaptureError(_PICKED)
    if not sound and _is_folded(loss, probe):
        raise CaptureError(_FOLDED)
    if not sound:
        raise CaptureError(
            f"Nothing in the step gives a loss for each of the batch's {batch_size} samples "
            f"({len(terms)} reductions seen, {len(parts)} of them part of the loss). {EITHER}"
        )
    n_sound, (sound, nonlinear) = len(sound), _linear(loss, sound, anchors)
    if len(sound) < n_sound:
        n_left = n_sound - len(sound)
        reasons.append(f"{n_left} of {n_sound} loss terms enter a quotient, a product or the like over the whole batch")
    if _reaches_besides(loss, anchors, _nodes([*turns, *(term for term, _ in [*kept, *foreign, *fixed])])):
        reasons.append(
            "A part of the loss depends on the batch by other ways than a mean or a sum over its samples, such as a"
            " standard deviation or a fused kernel"
        )
    if reasons and tuple(reasons) not in spec.warned:
        known = spec.is_resumed or all(spec.of(term.key).enters for term, _ in sound)
        leave_out(reasons, loss, sound, terms, [*foreign, *fixed], known=known)
        spec = replace(spec, warned=spec.warned | {tuple(reasons)})
    found = dict(spec.terms)
    found |= {term.key: replace(spec.of(term.key), enters=spec.of(term.key).enters or False) for term, _ in parts}
    found |= {term.key: replace(spec.of(term.key), enters=True) for term, _ in sound}
    for term in nonlinear:
        found[term.key] = replace(found[term.key], is_nonlinear=True)
    spec = replace(spec, terms=found)
    for term, slope in sound:
        if not spec.of(term.key).is_witnessed:
            is_only = len(sound) == 1
            of_means = isinstance(term, Loop) and any(not mean.is_sum for mean in means_of_turns)
            spec = _with_divisor(spec, term, slope, loss, probe, batch_size, is_only=is_only, of_means=of_means)
    return sound, spec


def _without_foreign(parts: Parts, spec: StepSpec) -> tuple[Parts, Parts, StepSpec]:
    """Take away the terms in which none of the samples has a share that are measured.

    Returns:
        The other terms, those that were taken away, and the findings, with what was found of them.

    Raises:
        CaptureError: If nobody knows of a term whose samples have a share in it.
    """
    own: Parts = []
    foreign: Parts = []
    for term, slope in parts:
        found = spec.of(term.key)
        if term.origin is None or term.origin.is_own:
            own.append((term, slope))
        elif found.is_foreign or term.origin.is_foreign:
            foreign.append((term, slope))
            spec = spec.with_term(term.key, enters=found.enters or False, is_foreign=True)
        elif found.is_witnessed:
            own.append((term, slope))
        else:
            raise CaptureError(
                f"{term.name} is made of samples of several train loaders at once, and the step on fewer samples of the"
                " named one has not shown which of its losses are theirs. Compute the loss of that loader's samples"
                " from its own batch, in a call of the model for each loader."
            )
    return own, foreign, spec


def _with_divisor(
    spec: StepSpec,
    term: Term,
    slope: Scale,
    loss: Tensor,
    probe: Probe,
    batch_size: int,
    *,
    is_only: bool,
    of_means: bool,
) -> StepSpec:
    """Return the findings with what a term is divided by, and where the samples lie in that."""
    own, laid, plain = find_divisor(term, loss, probe, batch_size, spec)
    counts = {**probe.recorder.counts, **{key: count for key, (count, _) in laid.items()}}
    is_divided = own.divisor is not None or bool(plain)
    is_mean = not is_divided and is_only and bool((torch.as_tensor(slope) * batch_size - 1).abs().max() < 1e-4)
    if term.is_sum and (is_mean or of_means):
        own = replace(own, divisor="samples", is_guess=True)
    divisors = possible_divisors(own, term, plain, counts, batch_size)
    for key in divisors:
        if isinstance(key, tuple) and key not in laid:
            laid[key] = _laid_like(term, counts[key], spec.counts.get(key, Layout()), batch_size)
    counts |= {key: count for key, (count, _) in laid.items()}
    probe.recorder.counts.update(counts)
    own = replace(own, readings=_readings(divisors, spec.of(term.key), term, slope, counts, batch_size))
    if own.readings:
        own = replace(own, divisor=own.readings[0][0])
    if term.strided:
        own = replace(own, layout=replace(own.layout, strided=True))
    found = {**spec.counts, **{key: layout for key, (_, layout) in laid.items()}}
    return replace(spec, terms={**spec.terms, term.key: own}, counts=found)


def _readings(
    divisors: Sequence[Divisor | None],
    before: TermSpec,
    term: Term,
    slope: Scale,
    counts: Mapping[Key, Term],
    batch_size: int,
) -> tuple[tuple[Divisor | None, float], ...]:
    """Return several divisors with the product of each and the coefficient, but for those that steps have ruled out."""
    if before.readings:
        left = [divisor for divisor, _ in before.readings if divisor in divisors]
        divisors = left or divisors
    totals: dict[Divisor | None, float] = {None: 1.0, "samples": float(batch_size)}
    if isinstance(term, Loop):  # whose turns count alike is held against their number
        slopes, divisor = torch.as_tensor(slope).float(), divisors[0]
        is_even = bool(((slopes - slopes[0]).abs() <= 1e-3 * slopes[0].abs()).all())
        return ((divisor, float(slopes[0]) * totals[divisor]),) if is_even and divisor in totals else ()
    if len(divisors) < 2 and not before.readings:
        return ()
    totals |= {key: _as_divisor(counts[key].value) for key in divisors if isinstance(key, tuple)}
    if "counts" in divisors and term.counts is not None:
        totals["counts"] = float(term.counts.float().sum()) or 1.0
    if "nonzero" in divisors:
        totals["nonzero"] = float((term.elements != 0).sum()) or 1.0
    return tuple((divisor, float(slope) * totals[divisor]) for divisor in divisors)


def _find_loops(parts: Parts, probe: Probe, batch_size: int) -> set[Hashable]:
    """Find the places where one term is computed for one sample after another."""
    by_place: dict[Hashable, list[Term]] = {}
    for term, _ in parts:
        by_place.setdefault(term.key[0], []).append(term)
    return {place for place, own in by_place.items() if are_turns(own, probe.anchors, batch_size)}


def _refuse_picked(loss: Tensor, parts: Parts, probe: Probe, batch_size: int, spec: StepSpec) -> None:
    """Refuse losses whose rows are picked, as many as there happen to be; not what a model or another mean picks."""
    outer = reached(loss.grad_fn, {*probe.anchors, *_nodes(term for term, _ in parts)})
    for term, _ in parts:
        shape = term.elements.shape
        if spec.of(term.key).is_witnessed:
            continue
        if term.picked_at is not None:
            if term.picked_at in probe.doubtful:
                raise CaptureError(JUDGED)
            continue
        if term.is_ranked:
            raise CaptureError(JUDGED)
        if term.by_hand and not foldable(shape, batch_size) and term.node not in outer:
            continue
        ends = {*probe.picked, *_nodes(other for other, _ in parts if other is not term)}  # whose rows are no own ones
        if any((probe.picked.get(node),) == shape[:1] for node in reached(term.elements.grad_fn, ends)):
            raise CaptureError(_PICKED)


def _nodes(terms: Iterable[Term]) -> set[Node]:
    return {term.node for term in terms}


def _reaches_besides(loss: Tensor, anchors: Anchors, terms: set[Node]) -> bool:
    """Tell if a loss depends on activations by other ways than its terms.

    What parameters are applied to after the terms, as learned weights are to a vector of them, is no activation.
    """
    ends = {*anchors, *terms}
    while met := reached(loss.grad_fn, ends) - terms:
        after = {node for node in met if reached(node, terms)}
        if after != met:
            return True
        ends -= after
    return False


def _aggregates(term: Term, parts: Parts) -> bool:
    """Tell if a mean or sum is taken over the results of loss functions, and not over samples' losses."""
    others = _nodes(other for other, _ in parts if not other.by_hand)
    return term.by_hand and bool(reached(term.node, others))


def _normalises(term: Term, parts: Parts) -> bool:
    """Tell if a mean or sum only serves to compute another one."""
    if not term.by_hand:
        return False
    return any(
        reached(other.elements.grad_fn, {term.node}) for other, _ in parts if other is not term and other.by_hand
    )


_QUOTIENT = (
    "The loss is no weighted sum of means or sums over the batch, but a quotient, a product or the like of them, such"
    f" as a Dice loss over the whole batch: no sample has a share of its own in it. {NO_OWN_LOSS}"
)


def _is_folded(loss: Tensor, probe: Probe) -> bool:
    """Tell if a loss is a weighted sum of what the mean or the sum over the samples has left."""
    edges = [edge for fold in probe.recorder.folds.values() if (edge := edge_of(fold.value)) is not None]
    data = {*probe.anchors, *(edge.node for edge in edges)}
    slopes = derivatives(loss, edges, again=True) if edges else []
    return any(slope is not None and not reached(slope.grad_fn, data) for slope in slopes)


def _bent(loss: Tensor, parts: Parts, anchors: Anchors) -> list[bool]:
    """Tell of each term if the loss is no multiple of it, as of a root or a quotient."""
    slopes = derivatives(loss, [term.edge for term, _ in parts if term.edge is not None], again=True)
    data = {*anchors, *_nodes(term for term, _ in parts)}
    return [slope is not None and bool(reached(slope.grad_fn, data)) for slope in slopes]


def _linear(loss: Tensor, parts: Parts, anchors: Anchors) -> tuple[Parts, list[Term]]:
    """Leave out the terms that a loss is no multiple of, as of a root or a quotient; one alone may be kept as it is.

    Returns:
        The terms that are kept, and those of them that the loss is no multiple of all the same.
    """
    bent = _bent(loss, parts, anchors)
    if not any(bent):
        return parts, []
    if len(parts) == 1 and bool((torch.as_tensor(parts[0][1]) > 0).all()):
        warnings.warn(
            f"The loss is a root, a logarithm or the like of {parts[0][0].name}, taken over the whole batch; the"
            " per-sample losses are those that go into it.",
            stacklevel=2,
        )
        return parts, [parts[0][0]]
    if all(bent):
        raise CaptureError(_QUOTIENT)
    return [part for part, is_bent in zip(parts, bent, strict=True) if not is_bent], []
