"""Tell if a loss is cut off at a bound once the samples' losses have been put together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.loss.terms import Term

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
    ends, seen, todo = {*anchors, term.node}, set[Node](), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        if reached(node, {term.node}):
            yield node
        todo += [before for before, _ in node.next_functions]


def _is_guard(node: Any, term: Term) -> bool:
    """Tell if a bound next to 0 merely guards what comes after it, as a root."""
    least, most = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    if most is not None or not isinstance(least, float | int):
        return False
    return abs(least) <= _NEXT_TO_0 and node.next_functions[0][0] is term.node
