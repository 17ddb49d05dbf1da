"""What the terms of a loss are divided by, so that a sample alone would be divided by its own share of that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.divisions import Division
from lightning_dataselect.capture.graph import derivatives, reached
from lightning_dataselect.capture.loops import turns_in
from lightning_dataselect.capture.terms import Facts, Key, Term


def note_divisors(
    term: Term,
    loss: Tensor,
    divisions: Sequence[Division],
    counts: Mapping[Key, Term],
    anchors: Collection[Node],
    batch_size: int,
    facts: Facts,
) -> bool:
    """Settle whether a term is divided by a number added up over the batch, or by the number of samples.

    Args:
        term: one that the loss is made of.
        loss: the step's loss.
        divisions: all of the step's.
        counts: the numbers added up over the batch.
        anchors: activations; what is divided before them is the model's own affair.
        batch_size: the number of samples.
        facts: written on.

    Returns:
        Whether it is divided at all.
    """
    own, stops, divided = {turn.node for turn in turns_in(term)}, set(anchors), False
    covered: dict[float | Key, set[Node]] = {}
    for division in divisions:
        node = division.edge.node
        met = own & reached(node, own | stops)
        after = bool(met) and node in reached(loss.grad_fn, {node, *stops})
        if not after and not _divides_elements(division, term, stops):
            continue
        divided = True
        for key in (*division.maybe, division.by):
            if not isinstance(key, float):
                _lay_like(term, counts[key], batch_size, facts)
        by = next((key for key in division.maybe if _is_counted(term, counts[key], batch_size)), division.by)
        if after:
            covered.setdefault(by, set()).update(met)
            if covered[by] != own:
                continue  # what divides some turns of a loop is their own affair, until it has divided all of them
        if not isinstance(by, float):
            facts.divisors[term.key] = by
            if by in division.maybe and isinstance(division.by, float) and term.is_sum:
                facts.guessed.add(term.key)
                _doubt(term, by, division.by, loss, counts, batch_size, facts)
        elif term.is_sum and counts_samples(by, term.elements.shape, batch_size):
            facts.divisors[term.key] = "samples"
        else:
            continue
        if not after:
            facts.inside.add(term.key)
    return divided


def _doubt(
    term: Term,
    number: Key,
    value: float,
    loss: Tensor,
    counts: Mapping[Key, Term],
    batch_size: int,
    facts: Facts,
) -> None:
    """Keep both readings of a Python number that is as large as one counted in the batch, and as the batch itself."""
    slope = derivatives(loss, [term.edge])[0] if term.edge is not None else None
    if slope is not None and counts_samples(value, term.elements.shape, batch_size):
        counted = float(slope * counts[number].weighted(None)), float(slope * batch_size)
        facts.doubts[term.key] = (number, counted[0]), ("samples", counted[1])


def _lay_like(term: Term, count: Term, batch_size: int, facts: Facts) -> None:
    """Let the rows that are counted lie as those of the term, which its gradients have shown, if there are as many."""
    rows, shape = term.elements.shape[:1], count.elements.shape
    if count.key in facts.across:
        return
    if shape[:1] == rows:
        count.strided = term.strided
        (facts.strided.add if term.strided else facts.strided.discard)(count.key)
    elif term.strided and shape[1:2] == (batch_size,) != shape[:1] and shape[:2].numel() == rows.numel():
        count.elements = count.elements.transpose(0, 1)
        facts.across.add(count.key)


def _is_counted(term: Term, count: Term, batch_size: int) -> bool:
    """Whether a Python number that divides a term is one that was counted in the batch, and not the same by chance.

    It is if every sample that loses something is counted, as its tokens are, unlike where hits are counted; but more
    than one a sample are no hits: those may be objects, of which an image may have none.
    """
    is_more = term.is_sum and bool(count.weighted(None) > batch_size)
    return is_more or not bool(((count.losses(batch_size) == 0) & (term.losses(batch_size) != 0)).any())


def _divides_elements(division: Division, term: Term, stops: set[Node]) -> bool:
    """Whether the elements are a multiple of the quotient, unlike those of a cross entropy of divided logits."""
    if division.edge.node not in reached(term.elements.grad_fn, {division.edge.node, *stops}):
        return False
    slope = derivatives(term.elements.sum(), [division.edge], again=True)[0]
    return slope is not None and not reached(slope.grad_fn, stops)


def counts_samples(number: float, elements: torch.Size, batch_size: int) -> bool:
    """Whether a number that losses are divided by grows with the batch: its size, or a multiple of it.

    Args:
        number: the divisor.
        elements: the shape of the losses, (batch_size * k, ...).
        batch_size: the number of samples.

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
