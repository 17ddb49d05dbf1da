"""Find the terms that a loss is no multiple of: under a root, in a quotient, or cut off at a bound."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import Anchor, derivatives, reached, walk
from lightning_dataselect.capture.loss.refusals import QUOTIENT, SIZE
from lightning_dataselect.capture.loss.terms import Parts, Term
from lightning_dataselect.utils.errors import CaptureError

Anchors = Mapping[Node, Sequence[Anchor]]

_NEXT_TO_0 = 1e-3

_BOUNDING = {
    f"{name}Backward{n}"
    for name in (
        "Amax",
        "Amin",
        "Clamp",
        "ClampMax",
        "ClampMin",
        "Hardtanh",
        "Max",
        "Maximum",
        "Min",
        "Minimum",
        "Relu",
    )
    for n in range(3)
}


def is_cut_off(loss: Tensor, term: Term, anchors: Collection[Node], limited: Collection[Node] = ()) -> bool:
    """Tell if what a term adds to a loss is cut off at a bound, whether or not the batch is beyond it.

    Args:
        loss: The step's loss.
        term: One that it is made of, with its graph.
        anchors: The activations, which are what is summed up and not what has come of that.
        limited: Where in the graph there is one of two numbers, by how the model's outputs compare with a bound.

    Example:
        >>> import torch
        >>> from lightning_dataselect.capture.loss.graph import edge_of
        >>> mean = torch.ones(3, requires_grad=True).mean()
        >>> term = Term(("", 0), mean, torch.ones(3), None, False, edge=edge_of(mean))
        >>> [is_cut_off(loss, term, ()) for loss in (mean.clamp(max=9), (mean - 1).relu() + mean, mean.clamp(min=1e-8))]
        [True, True, False]
    """
    after = nodes_after(term, loss, anchors)
    return any(node in limited or (node.name() in _BOUNDING and not _is_guard(node, term)) for node in after)


def takes_size(loss: Tensor, term: Term, anchors: Collection[Node]) -> bool:
    """Tell if a loss holds the size of what a term adds to it, as `abs` gives it."""
    return any(node.name() == "AbsBackward0" for node in nodes_after(term, loss, anchors))


def nodes_after(term: Term, loss: Tensor, anchors: Collection[Node]) -> Iterator[Node]:
    """Yield what has come of a term on the ways to the loss."""
    ends = {*anchors, term.node}
    yield from (node for node in walk(loss.grad_fn, ends) if node not in ends and reached(node, {term.node}))


def _is_guard(node: Any, term: Term) -> bool:
    """Tell if a bound next to 0 merely guards what comes after it, as a root."""
    least, most = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    if most is not None or not isinstance(least, float | int):
        return False
    return abs(least) <= _NEXT_TO_0 and node.next_functions[0][0] is term.node


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
