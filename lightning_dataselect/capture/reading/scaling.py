"""Give each sample its share of a term, as the findings about it say."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.folds import Folded
from lightning_dataselect.capture.loss.reductions import by_sample, fold
from lightning_dataselect.capture.loss.specs import Divisor, TermSpec
from lightning_dataselect.capture.loss.terms import Loop, Parts, Scale, Term
from lightning_dataselect.capture.recording.record import Record

_MOST_DOUBTS = 3  # probes spent on a changing coefficient before it is taken for a random or a learned one


def scale(term: Term, slope: Scale, record: Record) -> Scale:
    """Return the factor of a term in the loss of a batch of one sample.

    A coefficient is the same for it. What the whole batch's sum was divided by is not: see `Divisor`. Where several
    divisors have fitted so far, this step's coefficient tells them apart, without a look at its value.
    """
    spec = record.spec.of(term.key)
    if spec.is_nonlinear:
        return 1.0
    if spec.is_even:
        record.doubts.rows(term.key, by_sample(term.elements, record.batch_size, term.strided))
    is_loop = isinstance(term, Loop)
    watches = (spec.is_witnessed or is_loop) and spec.n_doubts < _MOST_DOUBTS
    if watches and isinstance(term, Folded):
        record.doubts.direction(term.key, term.direction)
    if watches and spec.n_rows and spec.picked_at is None and not is_loop:
        shape, size = term.elements.shape, record.batch_size
        if shape and shape[0] != size and term.elements.numel() != spec.n_rows * size:
            record.doubts.note(term.key)
    if spec.divided_elementwise:
        return slope
    divisors, found = spec.divisors, [product for _, product in spec.readings]
    products = [slope if divisor is None else slope * total(term, divisor, record) for divisor in divisors]
    if watches and found:
        watched = [torch.as_tensor(product).mean() for product in products] if is_loop else products
        record.doubts.coefficient(term.key, found, watched)
    if not (watches or spec.is_witnessed or spec.weighs_alike) and (term.is_sum or record.spec.leaves_torch):
        record.doubts.change(term.key, products)
    if len(products) == 1:
        return products[0]
    term.choice = record.claims.choose(term.key, found, products, term.elements.device)
    chosen = torch.stack([torch.as_tensor(product, device=term.elements.device).float() for product in products])
    return chosen.reshape(-1).index_select(0, term.choice).squeeze(0)


def losses(term: Term, record: Record) -> Tensor:
    """Return what each sample loses by a term, but for its factor: (batch_size,) float32."""
    spec, own = record.spec.of(term.key), term.losses(record.batch_size)
    if term.choice is None:
        return own if spec.divisor is None else _divided(term, own, spec, spec.divisor, record)
    divisors = [divisor for divisor, _ in spec.readings]
    ways = [own if d is None else _divided(term, own, spec, d, record) for d in divisors]
    return torch.stack(ways).index_select(0, term.choice).squeeze(0)


def _divided(term: Term, own: Tensor, spec: TermSpec, divisor: Divisor, record: Record) -> Tensor:
    if spec.divided_elementwise:
        own = own * total(term, divisor, record)
    share = _shares(term, divisor, record)
    return own if share is None else torch.where(share == 0, own, own / share)


def _shares(term: Term, divisor: Divisor, record: Record) -> Tensor | None:
    """Return what each sample has in a divisor, (batch_size,); None for 1, or where it was not counted."""
    size = record.batch_size
    if divisor in ("samples", "one over samples"):
        return None
    if isinstance(divisor, str):
        counted = term.counts if divisor == "counts" else term.elements != 0
        return None if counted is None else fold(counted.float(), None, size, is_sum=True, strided=term.strided)
    number = record.counts.get(divisor)
    return None if number is None else number.losses(size)


def total(term: Term, divisor: Divisor | None, record: Record) -> Scale:
    """Return what a term is divided by, of the whole batch; 1 for nothing.

    Where it is 0, as the number of the objects in images without any, the step has divided by 1, if at all:
    ``max(1, n)``.
    """
    if divisor is None:
        return 1.0
    if divisor == "samples":
        return float(record.batch_size)
    if divisor == "one over samples":
        return 1.0 / record.batch_size
    if isinstance(divisor, str):
        share = _shares(term, divisor, record)
        total = None if share is None else share.sum()
    else:
        found = record.counts.get(divisor)
        total = None if found is None else found.weighted(None)
        if total is not None and record.spec.of(term.key).divided_by_mean:
            total = total / record.batch_size
    return 1.0 if total is None else torch.where(total == 0, 1, total)


def weigh(parts: Parts, record: Record) -> Tensor:
    """Add up what each sample loses by each term with its factor: (batch_size,) float32."""
    total: Tensor | None = None
    for term, factor in parts:
        each = losses(term, record)
        if isinstance(factor, Tensor) or factor != 1.0:
            each = each * factor
        total = each if total is None else total + each
    assert total is not None
    return total.float()
