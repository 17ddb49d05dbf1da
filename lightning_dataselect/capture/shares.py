"""What each sample loses by the terms of a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.graph import derivatives
from lightning_dataselect.capture.recorder import Recorder
from lightning_dataselect.capture.terms import Term

Scale = float | Tensor
Parts = list[tuple[Term, Scale]]


def coefficients(loss: Tensor, terms: Sequence[Term], *, again: bool = False) -> Parts:
    """The terms that a loss depends on, each with d loss / d term, which has a graph of its own if ``again``."""
    placed = [(term, term.edge) for term in terms if term.edge is not None]
    if not placed:
        return []
    slopes = derivatives(loss, [edge for _, edge in placed], again=again)
    return [(term, s) for (term, _), s in zip(placed, slopes, strict=True) if s is not None]


def scale(term: Term, slope: Scale, recorder: Recorder) -> Scale:
    """The factor of a term in the loss of a batch of one sample.

    A coefficient is the same for it. What the whole batch's sum was divided by is not: see `_divisor`.
    """
    facts = recorder.facts
    if term.key in facts.bent:
        return 1.0
    return slope if term.key in facts.inside else slope * _divisor(term, recorder)


def losses(term: Term, recorder: Recorder) -> Tensor:
    """What each sample loses by a term, but for its factor: (batch_size,) float32."""
    size, facts = recorder.batch_size, recorder.facts
    own = term.losses(size)
    if term.key in facts.inside:
        own = own * _divisor(term, recorder)
    divisor = _divisor_term(term, recorder)
    if divisor is None:
        return own
    share = divisor.losses(size)
    return torch.where(share == 0, own, own / share)


def _divisor(term: Term, recorder: Recorder) -> Scale:
    """What a term is divided by that is another number for a sample alone.

    That is the number of samples, or a number added up over them, by which `losses` then divides each sample's share.
    Where it is 0, as that of the objects in an image without any, the step has divided by 1, if at all: ``max(1, n)``.
    """
    divisor = _divisor_term(term, recorder)
    if divisor is not None:
        number = divisor.weighted(None)
        return torch.where(number == 0, 1, number)
    return float(recorder.batch_size) if term.key in recorder.facts.counted else 1.0


def _divisor_term(term: Term, recorder: Recorder) -> Term | None:
    key = recorder.facts.divisors.get(term.key)
    return None if key is None else recorder.divisors.get(key)


def weigh(parts: Parts, recorder: Recorder) -> Tensor:
    """Add up what each sample loses by each term with its factor: (batch_size,) float32."""
    total: Tensor | None = None
    for term, factor in parts:
        each = losses(term, recorder)
        if not (isinstance(factor, float) and factor == 1.0):
            each = each * factor
        total = each if total is None else total + each
    assert total is not None
    return total.float()
