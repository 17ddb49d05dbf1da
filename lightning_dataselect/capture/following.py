"""Read the loss of a step that is not probed."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from lightning_dataselect.capture.analysis.remainder import rest
from lightning_dataselect.capture.changes import NOT_MEASURED
from lightning_dataselect.capture.inquiry import Inquiry
from lightning_dataselect.capture.loss.terms import Parts, coefficients, incomplete, loops_of
from lightning_dataselect.capture.reading.results import StepResult
from lightning_dataselect.capture.reading.scaling import scale


def follow(loss: Any, result: StepResult, inquiry: Inquiry) -> None:
    """Resolve a root of a step by what the probes have found.

    Args:
        loss: What the step returned, or back-propagates.
        result: Of the step; the root is added to it.
        inquiry: Holds what was found.
    """
    recorder = inquiry.recorder
    recorder.take_up_sole()
    if not isinstance(loss, Tensor):
        return
    n = len(result.roots)
    if recorder.compiled:
        # A compiled graph cannot be asked for what happens inside it.
        inquiry.is_compiled = True
        known, constant = (inquiry.scales[n], inquiry.constants[n]) if n < len(inquiry.scales) else ({}, None)
        result.add([(term, known[term.key]) for term in recorder.terms if term.key in known], loss, constant)
        return
    parts: Parts = []
    inquiry.is_one_term = False
    alone = [term for term in recorder.terms if term.edge is not None and term.edge.node is loss.grad_fn]
    if alone:
        parts = [(alone[0], 1.0)]
        inquiry.is_one_term = not recorder.spec.differentiates and alone[0].key in recorder.spec.terms
    elif loss.requires_grad:
        parts = coefficients(loss, recorder.terms)
    if loops := recorder.spec.loops:
        if words := incomplete(parts, loops, recorder.batch_size):
            warnings.warn(f"{NOT_MEASURED} {words}", stacklevel=2)
            result.partial = True
        others = [part for part in parts if part[0].key[0] not in loops]
        parts = [*others, *loops_of(parts, loops, recorder.batch_size)]
    constant = None
    if parts and n in recorder.spec.with_constant:
        constant = rest(loss, parts, None if recorder.keeps_value else recorder.weights)
    result.add([(term, scale(term, slope, recorder)) for term, slope in parts], loss, constant)
