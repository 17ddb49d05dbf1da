"""Tell what a loss is besides its terms: a constant, or a part that no sample has a share in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.graph import leads_only_to, reached
from lightning_dataselect.capture.loss.refusals import NO_OWN_LOSS
from lightning_dataselect.capture.loss.terms import (
    Parts,
    Scale,
    Term,
    coefficients,
    turns_in,
    turns_of,
)
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
    """Return the loss without its terms: 0-dim float32, without a graph.

    Args:
        loss: Of one element.
        parts: Its terms, with their coefficients.
        weights: See `given`.
    """
    return loss.detach().float().reshape(()) - sum(given(term, slope, weights) for term, slope in parts)


def has_constant(loss: Tensor, parts: Parts) -> bool:
    """Tell if a loss is its terms and a constant: nothing else in it has a gradient, and it is not 0.

    Example:
        >>> from lightning_dataselect.capture.loss.graph import edge_of
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
    said = f"{'. '.join(reasons)}. What remains, {kept}, is {share:.0%} of the loss"
    if share < _LEAST_SHARE and not known:
        raise CaptureError(f"{said}, too little to tell the samples apart. {NO_OWN_LOSS}")
    warnings.warn(f"{said}; the per-sample losses are made of that alone.", stacklevel=2)


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
        >>> from lightning_dataselect.capture.loss.graph import edge_of
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
