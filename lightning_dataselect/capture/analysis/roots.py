"""Take a loss that a step returns, or back-propagates, apart: its terms, what it holds besides, and weights on them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lightning_dataselect.capture.analysis.analysis import analyze_loss
from lightning_dataselect.capture.analysis.remainder import has_constant, rest
from lightning_dataselect.capture.loss.folds import whole
from lightning_dataselect.capture.loss.graph import derivatives
from lightning_dataselect.capture.loss.terms import Parts, turns_in, turns_of
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.capture.recording.record import Record


def find_terms(loss: Tensor, probe: Probe, record: Record) -> Parts:
    """Find the terms that the loss of a probed step is made of, and write down the findings.

    Raises:
        CaptureError: See `analyze_loss`.
    """
    met = record.spec.with_met(record.terms, record.layouts, record.order)
    record.spec = replace(
        met,
        differentiates=met.differentiates or probe.differentiates,
        leaves_torch=met.leaves_torch or probe.may_hold_numbers(loss),
    )
    parts, record.spec = analyze_loss(loss, record.terms, probe, record.batch_size, record.spec)
    return parts


def constant_in(loss: Tensor, parts: Parts, record: Record) -> Tensor | None:
    """Return the constant in a loss besides its terms, if a sample's loss holds it too, as in a mean; else None."""
    own = [(term, record.spec.of(term.key)) for term, _ in parts]
    is_mean = all(not term.is_sum or spec.divisor is not None for term, spec in own)
    if not parts or not is_mean or any(spec.is_nonlinear for _, spec in own):
        return None
    return rest(loss, parts) if has_constant(loss, parts) else None


def are_learned(loss: Tensor, parts: Parts) -> list[bool]:
    """Tell of each term if parameters, or other terms, have a share in its coefficient."""
    edges = [whole(turns_in(term)[0]).edge for term, _ in parts]
    slopes = derivatives(loss, [edge for edge in edges if edge is not None], again=True)
    return [slope is not None and slope.grad_fn is not None for slope in slopes]


def weighted(loss: Tensor, parts: Parts, weights: Tensor, record: Record) -> Tensor:
    """Return a loss with each sample's share in its terms multiplied by its weight.

    Args:
        loss: Of a probed step, with its graph.
        parts: Its terms; empty where the loss cannot be read, which then stays as it is.
        weights: (batch_size,) float.
        record: Of the step.
    """
    if not parts:
        return loss
    # with the graph of the coefficients, which may be learned
    own = {whole(turn): its for term, _ in parts for turn, its in turns_of(term, weights)}
    slopes = derivatives(loss, [turn.edge for turn in own if turn.edge is not None], again=True)
    for (term, its), slope in zip(own.items(), slopes, strict=True):
        if slope is not None:
            change = (slope * (term.weighted(its) - term.weighted(None))).sum()
            loss = loss + (change - change.detach() if record.keeps_value else change)
    return loss
