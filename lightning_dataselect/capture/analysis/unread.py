"""Refuse losses whose rows are not those of the samples, or not theirs alone."""

from __future__ import annotations

from torch import Tensor

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.loss.reductions import foldable
from lightning_dataselect.capture.loss.refusals import COMPARED, FILTERED, JUDGED, OWN_LOSS, PICKED, SHARED
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Parts, Term, called_again, passed_over, turns_in
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.utils.errors import CaptureError


def unlike_batch(term: Term, parts: Parts, probe: Probe, batch_size: int) -> str:
    """Say why the rows of a loss function are no multiple of the samples."""
    own = [other for other, _ in parts if other.key[0] == term.key[0]]
    if probe.filters(term.elements):
        return FILTERED
    if len(own) > 1 and all(other.elements.numel() == 1 for other in own):
        return passed_over(own, batch_size)
    if len(own) > 1:
        return called_again(term.name, len(own), batch_size)
    return (
        f"{term.name} gave losses of the shape {tuple(term.elements.shape)}, whose first axis is not a multiple"
        f" of the batch's {batch_size} samples. {OWN_LOSS}"
    )


def refuse_picked(loss: Tensor, parts: Parts, probe: Probe, batch_size: int, spec: StepSpec) -> None:
    """Refuse losses whose rows are picked, as many as there happen to be; not what a model or another mean picks."""
    outer = reached(loss.grad_fn, {*probe.anchors, *(term.node for term, _ in parts)})
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
        others = (other.node for other, _ in parts if other is not term)  # which have no rows of their own
        ends = {*probe.picked, *others}
        if any((probe.picked.get(node),) == shape[:1] for node in reached(term.elements.grad_fn, ends)):
            raise CaptureError(PICKED)


def refuse_across(parts: Parts, spec: StepSpec) -> None:
    """Refuse losses in which numbers of the whole batch take part, where single samples have not shown otherwise."""
    for turn, key in [(turn, term.key) for term, _ in parts for turn in turns_in(term)]:
        if not spec.of(key).is_witnessed and (turn.is_compared or turn.is_shared):
            raise CaptureError(COMPARED if turn.is_compared else SHARED)
