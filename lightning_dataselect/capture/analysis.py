"""Which terms make a loss, and how: autograd is asked."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.divisors import note_divisors
from lightning_dataselect.capture.errors import CaptureError
from lightning_dataselect.capture.fold import foldable
from lightning_dataselect.capture.graph import derivatives, reached
from lightning_dataselect.capture.left_out import leave_out
from lightning_dataselect.capture.loops import Loop, are_turns, incomplete, loops_of
from lightning_dataselect.capture.mixing import Anchor, mixes
from lightning_dataselect.capture.shares import Parts, Scale, coefficients
from lightning_dataselect.capture.terms import Facts, Term

if TYPE_CHECKING:
    from lightning_dataselect.capture.probe import Probe

# In a smaller batch, targets that count up may be those of a few classes by chance.
_LEAST_PAIRS = 8

Anchors = Mapping[Node, Sequence[Anchor]]
_PICKED = (
    "The step picks rows out of the batch by a mask or an index, so which sample a row of losses belongs to is another"
    " in each batch. Use ignore_index or multiply the losses by the mask."
)


def analyze_loss(loss: Tensor, terms: Sequence[Term], probe: Probe, batch_size: int, facts: Facts) -> Parts:
    """Find the terms that a loss is soundly made of.

    Args:
        loss: the step's loss.
        terms: all that the probe has seen, with their graphs.
        probe: has watched the step.
        batch_size: the number of samples.
        facts: written on: what each term is.

    Returns:
        The terms that count, with their coefficients.

    Raises:
        CaptureError: none counts, those that do are next to nothing of the loss, or one of them cannot be given back to
            the samples.
    """
    if not loss.requires_grad:
        raise CaptureError("The step's loss has no gradient (requires_grad is False).")
    anchors = probe.anchors
    for term in terms:
        facts.verdicts.setdefault(term.key, False if term.by_hand or term.from_parameters else None)
    parts = coefficients(loss, [term for term in terms if not term.from_parameters])
    loops, parts = _split_loops(parts, probe, batch_size, facts)
    for term, _ in parts:
        if term.key in facts.refused:
            raise CaptureError(facts.refused[term.key])
    _refuse_picked(loss, [part for part in parts if part[0].key not in facts.trusted], probe, batch_size)
    parts = [(term, slope) for term, slope in parts if not term.by_hand or foldable(term.elements.shape, batch_size)]
    for term, _ in parts:
        if not foldable(term.elements.shape, batch_size):
            raise CaptureError(
                f"{term.name} gave losses of the shape {tuple(term.elements.shape)}, whose first axis is not a multiple"
                f" of the batch's {batch_size} samples."
            )
    turns = [turn for loop, _ in loops for turn in loop.turns]
    means_of_turns = [term for term, _ in parts if term.by_hand and reached(term.node, _nodes(turns))]
    kept = [(term, slope) for term, slope in parts if term not in means_of_turns and not _aggregates(term, parts)]
    inner = [term for term, _ in kept if _normalises(term, kept)]
    kept = [(term, slope) for term, slope in kept if term not in inner]
    normalisers = [term.value for term in inner]
    sound = [
        (term, slope)
        for term, slope in kept
        if term.key in facts.trusted or _belongs_to_samples(term, probe, batch_size, normalisers)
    ]
    if kept and not sound and not loops:
        raise CaptureError(
            "What a sample loses in this step depends on the other samples of its batch, as in a contrastive loss."
        )
    reasons = []
    if len(sound) < len(kept):
        reasons.append(f"{len(kept) - len(sound)} of {len(kept)} loss terms depend on several samples at once")
    sound += loops
    if not sound and reached(loss.grad_fn, probe.picked):
        raise CaptureError(_PICKED)
    if not sound:
        raise CaptureError(
            f"Nothing in the step gives a loss for each of the batch's {batch_size} samples "
            f"({len(terms)} reductions seen, {len(parts)} of them part of the loss)."
        )
    n_sound, sound = len(sound), _linear(loss, sound, anchors, facts)
    if len(sound) < n_sound:
        n_bent = n_sound - len(sound)
        reasons.append(f"{n_bent} of {n_sound} loss terms enter a quotient, a product or the like over the whole batch")
    if _reaches_besides(loss, anchors, _nodes([*turns, *(term for term, _ in kept)])):
        reasons.append(
            "A part of the loss depends on the batch by other ways than a mean or a sum over its samples, such as a"
            " standard deviation or a fused kernel"
        )
    if reasons and tuple(reasons) not in facts.left_out:
        known = facts.resumed or all(facts.verdicts.get(term.key) for term, _ in sound)
        leave_out(reasons, loss, sound, terms, known=known)
        facts.left_out.add(tuple(reasons))
    facts.verdicts.update((term.key, False) for term, _ in parts if not facts.verdicts[term.key])
    facts.verdicts.update((term.key, True) for term, _ in sound)
    for term, slope in sound:
        if term.key in facts.trusted:
            continue
        divided = note_divisors(term, loss, probe.divisions.made, probe.recorder.divisors, anchors, batch_size, facts)
        is_mean = not divided and len(sound) == 1 and bool((torch.as_tensor(slope) * batch_size - 1).abs().max() < 1e-4)
        if term.is_sum and (is_mean or any(not mean.is_sum for mean in means_of_turns if isinstance(term, Loop))):
            facts.divisors[term.key] = "samples"
        if term.strided:
            facts.strided.add(term.key)
    return sound


def _split_loops(parts: Parts, probe: Probe, batch_size: int, facts: Facts) -> tuple[list[tuple[Loop, Scale]], Parts]:
    """The terms that are computed for one sample after another, put together, and all others."""
    by_place: dict[Hashable, list[Term]] = {}
    for term, _ in parts:
        by_place.setdefault(term.key[0], []).append(term)
    facts.looped |= {place for place, own in by_place.items() if are_turns(own, probe.anchors, batch_size)}
    turns = [(term, slope) for term, slope in parts if term.key[0] in facts.looped]
    others = [(term, slope) for term, slope in parts if term.key[0] not in facts.looped]
    if words := incomplete(parts, facts, batch_size):
        raise CaptureError(words)
    return loops_of(turns, facts, batch_size), others


def _refuse_picked(loss: Tensor, parts: Parts, probe: Probe, batch_size: int) -> None:
    """Refuse losses whose rows are picked, as many as there happen to be; not what a model or another mean picks."""
    outer = reached(loss.grad_fn, {*probe.anchors, *_nodes(term for term, _ in parts)})
    for term, _ in parts:
        shape = term.elements.shape
        if term.by_hand and not foldable(shape, batch_size) and term.node not in outer:
            continue
        if any((probe.picked[node],) == shape[:1] for node in reached(term.elements.grad_fn, probe.picked)):
            raise CaptureError(_PICKED)


def _nodes(terms: Iterable[Term]) -> set[Node]:
    return {term.node for term in terms}


def _reaches_besides(loss: Tensor, anchors: Anchors, terms: set[Node]) -> bool:
    """Whether a loss depends on activations by other ways than its terms.

    What parameters are applied to after the terms, as learned weights are to a vector of them, is no activation.
    """
    ends = {*anchors, *terms}
    while met := reached(loss.grad_fn, ends) - terms:
        after = {node for node in met if reached(node, terms)}
        if after != met:
            return True
        ends -= after
    return False


def _belongs_to_samples(term: Term, probe: Probe, batch_size: int, normalisers: Sequence[Tensor]) -> bool:
    """Whether each row of a term's elements is one sample's own; settles how the rows lie."""
    if _compares_with_batch(term, batch_size):
        return False
    anchors = probe.anchors if reached(term.elements.grad_fn, probe.anchors) else probe.foreign
    mixed = mixes(term, anchors, batch_size, normalisers, probe.views)
    rows = term.elements.shape[0] if term.elements.dim() else 1
    if rows == batch_size or batch_size == 1:
        return not mixed
    if mixed:
        term.strided = not term.strided
        return not mixes(term, anchors, batch_size, normalisers, probe.views)
    if mixed is None and not term.strided and not probe.has_seen(batch_size, rows // batch_size):
        raise CaptureError(
            f"{term.name} gave losses of the shape {tuple(term.elements.shape)} for {batch_size} samples, and nothing"
            " shows which rows are whose, as where boxes or tokens are picked out of each sample."
        )
    return True


def _compares_with_batch(term: Term, batch_size: int) -> bool:
    """Whether the classes are the samples of the batch: no gradient shows it where one side of the pairs is frozen."""
    if term.classes is None or batch_size < _LEAST_PAIRS:
        return False
    logits, targets = term.classes
    own = torch.arange(batch_size, device=targets.device)
    return logits.shape == (batch_size, batch_size) and bool(torch.equal(targets, own.to(targets.dtype)))


def _aggregates(term: Term, parts: Parts) -> bool:
    """Whether a mean or sum is taken over the results of loss functions, no losses of samples."""
    others = _nodes(other for other, _ in parts if not other.by_hand)
    return term.by_hand and bool(reached(term.node, others))


def _normalises(term: Term, parts: Parts) -> bool:
    """Whether a mean or sum only serves to compute another one."""
    if not term.by_hand:
        return False
    return any(
        reached(other.elements.grad_fn, {term.node}) for other, _ in parts if other is not term and other.by_hand
    )


def _linear(loss: Tensor, parts: Parts, anchors: Anchors, facts: Facts) -> Parts:
    """Leave out the terms that a loss is no multiple of, as of a root or a quotient; one alone may be kept as it is."""
    slopes = derivatives(loss, [term.edge for term, _ in parts if term.edge is not None], again=True)
    data = {*anchors, *_nodes(term for term, _ in parts)}
    bent = [slope is not None and bool(reached(slope.grad_fn, data)) for slope in slopes]
    if not any(bent):
        return parts
    if len(parts) == 1 and bool((torch.as_tensor(parts[0][1]) > 0).all()):
        facts.bent.add(parts[0][0].key)
        warnings.warn(
            f"The loss is a root, a logarithm or the like of {parts[0][0].name}, taken over the whole batch; the"
            " per-sample losses are those that go into it.",
            stacklevel=2,
        )
        return parts
    if all(bent):
        raise CaptureError(
            "The loss is no weighted sum of means or sums over the batch, but a quotient, a product or the like of"
            " them, such as a Dice loss over the whole batch: no sample has a share of its own in it."
        )
    return [part for part, is_bent in zip(parts, bent, strict=True) if not is_bent]
