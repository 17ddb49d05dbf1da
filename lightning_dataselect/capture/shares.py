"""What each sample loses by the terms of a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.fold import fold
from lightning_dataselect.capture.graph import derivatives
from lightning_dataselect.capture.recorder import Recorder
from lightning_dataselect.capture.terms import Divisor, Term

_SAME = 1e-3  # of two products that are equal but for rounding

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

    A coefficient is the same for it. What the whole batch's sum was divided by is not: see `Divisor`.
    """
    facts = recorder.facts
    if term.key in facts.bent:
        return 1.0
    doubt = facts.doubts.get(term.key)
    if doubt is None:
        return _scaled(term, slope, facts.divisors.get(term.key), recorder)
    products = [slope * _total(term, divisor, recorder) for divisor, _ in doubt]
    fits = [((p - before).abs() <= _SAME * abs(before)) for p, (_, before) in zip(products, doubt, strict=True)]
    term.takes_other = fits[1] & ~fits[0]
    if term.key in facts.inside:
        return slope
    return torch.where(term.takes_other, products[1], products[0])


def _scaled(term: Term, slope: Scale, divisor: Divisor | None, recorder: Recorder) -> Scale:
    if divisor is None or term.key in recorder.facts.inside:
        return slope
    return slope * (float(recorder.batch_size) if divisor == "samples" else _total(term, divisor, recorder))


def losses(term: Term, recorder: Recorder) -> Tensor:
    """What each sample loses by a term, but for its factor: (batch_size,) float32."""
    facts = recorder.facts
    own = term.losses(recorder.batch_size)
    doubt = facts.doubts.get(term.key)
    if doubt is None or term.takes_other is None:
        return _divided(term, own, facts.divisors.get(term.key), recorder)
    first, second = (_divided(term, own, divisor, recorder) for divisor, _ in doubt)
    return torch.where(term.takes_other, second, first)


def _divided(term: Term, own: Tensor, divisor: Divisor | None, recorder: Recorder) -> Tensor:
    if divisor is None:
        return own
    if term.key in recorder.facts.inside:
        own = own * _total(term, divisor, recorder)
    share = shares(term, divisor, recorder)
    return own if share is None else torch.where(share == 0, own, own / share)


def shares(term: Term, divisor: Divisor, recorder: Recorder) -> Tensor | None:
    """What each sample has in what a term is divided by, (batch_size,); None for 1, or where it was not counted."""
    size = recorder.batch_size
    if divisor == "samples":
        return None
    if isinstance(divisor, str):
        counted = term.counts if divisor == "counts" else term.elements != 0
        return None if counted is None else fold(counted.float(), None, size, is_sum=True, strided=term.strided)
    number = recorder.divisors.get(divisor)
    return None if number is None else number.losses(size)


def _total(term: Term, divisor: Divisor, recorder: Recorder) -> Tensor:
    """What a term is divided by, of the whole batch.

    Where it is 0, as the number of the objects in images without any, the step has divided by 1, if at all:
    ``max(1, n)``.
    """
    if isinstance(divisor, str):
        share = shares(term, divisor, recorder)
        total = None if share is None else share.sum()
        otherwise = float(recorder.batch_size) if divisor == "samples" else 1.0
    else:
        found = recorder.divisors.get(divisor)
        total, otherwise = None if found is None else found.weighted(None), 1.0
    if total is None:
        return torch.full((), otherwise, device=term.elements.device)
    return torch.where(total == 0, 1, total)


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
