"""Find what the terms of a loss are divided by."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import derivatives, reached
from lightning_dataselect.capture.loss.refusals import COMPARED, COUNT
from lightning_dataselect.capture.loss.specs import Divisor, Layout, StepSpec, TermSpec
from lightning_dataselect.capture.loss.terms import (
    Key,
    Loop,
    Scale,
    Term,
    turns_in,
)
from lightning_dataselect.capture.probing.divisions import Division
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.capture.reading.scaling import total
from lightning_dataselect.capture.recording.record import Record
from lightning_dataselect.utils.errors import CaptureError


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
        elif division.by not in probe.recorder.counts:
            continue  # a term of the loss
        maybe = [key for key in division.maybe if key in probe.recorder.counts]
        for key in (*maybe, division.by):
            if not isinstance(key, float) and key not in laid:
                laid[key] = _laid_like(term, probe.recorder.counts[key], spec.counts.get(key, Layout()), batch_size)
        by = next((key for key in maybe if _is_counted(term, laid[key][0], batch_size)), division.by)
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


def _times_samples(term: Term, loss: Tensor, probe: Probe) -> set[Node]:
    """Return where a mean is multiplied by as many as there are samples, so that it may be a sum in truth."""
    own, stops = {turn.node for turn in turns_in(term)}, set(probe.anchors)
    met = reached(loss.grad_fn, {*probe.sizes.times, *own, *stops})
    if own & met:
        return set()
    return {node for node in met if node in probe.sizes.times and reached(node, {*own, *stops}) >= own}


def possible_divisors(
    own: TermSpec, term: Term, plain: Collection[float], counts: Mapping[Key, Term], batch_size: int
) -> list[Divisor | None]:
    """Return what may divide a term, the likeliest first, if that is a plain number or was not seen.

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
    has_several = term.elements.numel() > batch_size or term.picked_at is not None
    if term.is_sum and (has_several or bool((term.elements == 0).any())):
        shape = term.elements.shape
        counted = 0.0 if term.counts is None else float(term.counts.float().sum())
        # of picked rows each element counts, but a step divides by the number of the rows
        if has_several and any(counted / shape[axes:].numel() in plain for axes in range(1, len(shape) + 1)):
            found.insert(0 if term.picked_at is not None else len(found), "counts")
        if float((term.elements != 0).sum()) in plain:
            found.append("nonzero")
    found.append(None)
    if term.is_sum:
        found.append("samples")
    if term.is_sum or plain:
        values = plain or {1.0}
        found += [key for key, count in counts.items() if (float(count.value.detach()) or 1.0) in values]
    return list(dict.fromkeys(found))


def _laid_like(term: Term, count: Term, layout: Layout, batch_size: int) -> tuple[Term, Layout]:
    """Lay counted rows out like the term's, as its gradients have shown them, if there are as many."""
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


def with_divisor(
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
    if divisors == [None] and not term.is_sum and batch_size > 1 and (times := _times_samples(term, loss, probe)):
        # where it may also be a weight that was written down, a batch of another size tells
        is_sure = all(probe.sizes.times[node] for node in times)
        divisors = ["one over samples", None] if is_sure else [None, "one over samples"]
    if term.is_sum and not {*divisors} - {None, "samples"} and any(map(probe.divisions.is_count, plain)):
        if own.divisor is None and not any(counts_samples(n, term.elements.shape, batch_size) for n in plain):
            raise CaptureError(COUNT)
    if isinstance(own.divisor, tuple) and counts[own.divisor].is_compared:
        raise CaptureError(COMPARED)  # what a sample has in such a number depends on the others
    for key in divisors:
        if isinstance(key, tuple) and key not in laid:
            laid[key] = _laid_like(term, counts[key], spec.counts.get(key, Layout()), batch_size)
    counts |= {key: count for key, (count, _) in laid.items()}
    probe.recorder.counts.update(counts)
    own = replace(own, readings=_readings(divisors, spec.of(term.key), term, slope, probe.recorder))
    if own.readings:
        own = replace(own, divisor=own.readings[0][0])
    if term.strided:
        own = replace(own, layout=replace(own.layout, strided=True))
    found = {**spec.counts, **{key: layout for key, (_, layout) in laid.items()}}
    return replace(spec, terms={**spec.terms, term.key: own}, counts=found)


def _readings(
    divisors: Sequence[Divisor | None], before: TermSpec, term: Term, slope: Scale, record: Record
) -> tuple[tuple[Divisor | None, float], ...]:
    """Return several divisors with the product of each and the coefficient, but for those that steps have ruled out."""
    if before.readings:
        left = [divisor for divisor, _ in before.readings if divisor in divisors]
        divisors = left or divisors
    if isinstance(term, Loop):  # whose turns count alike is held against their number
        slopes, divisor = torch.as_tensor(slope).float(), divisors[0]
        is_even = bool(((slopes - slopes[0]).abs() <= 1e-3 * slopes[0].abs()).all())
        is_plain = divisor is None or divisor == "samples"
        return ((divisor, float(slopes[0] * total(term, divisor, record))),) if is_even and is_plain else ()
    if len(divisors) < 2 and not before.readings:
        return ()
    return tuple((divisor, float(slope * total(term, divisor, record))) for divisor in divisors)
