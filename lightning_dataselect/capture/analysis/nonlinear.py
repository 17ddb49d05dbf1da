"""Find the terms that a loss is no multiple of, such as what stands under a root or in a quotient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.analysis.bounds import takes_size
from lightning_dataselect.capture.loss.graph import Anchor, derivatives, reached
from lightning_dataselect.capture.loss.refusals import QUOTIENT, SIZE
from lightning_dataselect.capture.loss.terms import Parts, Term
from lightning_dataselect.utils.errors import CaptureError

Anchors = Mapping[Node, Sequence[Anchor]]


def _are_nonlinear(loss: Tensor, parts: Parts, anchors: Anchors) -> list[bool]:
    """Tell of each term if the loss is no multiple of it, as of a root or a quotient."""
    slopes = derivatives(loss, [term.edge for term, _ in parts if term.edge is not None], again=True)
    data = {*anchors, *(term.node for term, _ in parts)}
    return [slope is not None and bool(reached(slope.grad_fn, data)) for slope in slopes]


def is_nonlinear_in(loss: Tensor, term: Term, parts: Parts, anchors: Anchors) -> bool:
    """Tell if a loss is no multiple of one of its terms, as of a root or a quotient."""
    return _are_nonlinear(loss, parts, anchors)[[other for other, _ in parts].index(term)]


def keep_linear(loss: Tensor, parts: Parts, anchors: Anchors) -> tuple[Parts, list[Term]]:
    """Leave out the terms that a loss is no multiple of, as of a root or a quotient; one alone may be kept as it is.

    Returns:
        The terms that are kept, and those of them that the loss is no multiple of all the same.
    """
    are_nonlinear = _are_nonlinear(loss, parts, anchors)
    if not any(are_nonlinear):
        return parts, []
    if all(are_nonlinear) and any(takes_size(loss, term, anchors) for term, _ in parts):
        raise CaptureError(SIZE)
    if len(parts) == 1 and bool((torch.as_tensor(parts[0][1]) > 0).all()):
        warnings.warn(
            f"The loss is a nonlinear function, such as a root or a logarithm, of {parts[0][0].name} over the whole"
            " batch; the per-sample losses are the ones inside it.",
            stacklevel=2,
        )
        return parts, [parts[0][0]]
    if all(are_nonlinear):
        raise CaptureError(QUOTIENT)
    return [part for part, leaves in zip(parts, are_nonlinear, strict=True) if not leaves], []
