"""What of a loss is left out of the samples' losses: some of it with a warning, nearly all of it never."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.constants import given
from lightning_dataselect.capture.errors import CaptureError
from lightning_dataselect.capture.graph import reached
from lightning_dataselect.capture.shares import Parts, coefficients
from lightning_dataselect.capture.terms import Term

# A cross entropy is about a half of a loss to which a Dice loss is added, and a quarter once that is learnt: still
# worth telling samples apart by. What is less than this is an aside of the loss, and its main part is not understood.
_LEAST_SHARE = 0.1


def leave_out(reasons: Sequence[str], loss: Tensor, parts: Parts, terms: Sequence[Term], *, known: bool) -> None:
    """Warn of what is left out, or refuse to go on without it.

    Args:
        reasons: what was found that no sample has a share in, at least one.
        loss: the step's loss.
        parts: the terms that are kept, with their coefficients.
        terms: all that the step has computed.
        known: whether a step was taken on with these terms before, which may be small by now.

    Raises:
        CaptureError: those kept explain next to nothing of the loss.
    """
    share = explained(loss, parts, _of_parameters(loss, terms))
    kept = ", ".join(dict.fromkeys(term.name for term, _ in parts))
    said = f"{'. '.join(reasons)}. What is left of the loss, {kept}, makes {share:.0%} of it"
    if share < _LEAST_SHARE and not known:
        raise CaptureError(f"{said}, too little to tell its samples apart by.")
    warnings.warn(f"{said}; the per-sample loss is made of that.", stacklevel=2)


def explained(loss: Tensor, parts: Parts, constant: Parts) -> float:
    """The share of a loss's value that terms make up: what they give, against what the loss is without them.

    Sizes count, so that a negative term, or two that cancel each other, are not taken for nothing.

    Args:
        loss: 0-dim.
        parts: terms of it, with their coefficients.
        constant: others that are no matter of the samples, and taken away first.

    Returns:
        In [0, 1]; NaN where a value is not finite, or all are 0.

    Example:
        >>> from lightning_dataselect.capture.graph import edge_of
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
    """The terms of parameters alone, such as weight decay; of those within one another the outer."""
    own = [term for term in terms if term.from_parameters and term.edge is not None]
    outer = reached(loss.grad_fn, {term.node for term in own})
    return coefficients(loss, [term for term in own if term.node in outer])
