"""Whether a term's losses are each one sample's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from lightning_dataselect.capture.fold import by_sample
from lightning_dataselect.capture.graph import Input, derivatives, reached
from lightning_dataselect.capture.recorder import Term


@dataclass(frozen=True)
class Anchor:
    """An activation to tell samples apart by: where it is in the graph, and its shape."""

    edge: GradientEdge
    shape: torch.Size


def mixes(
    term: Term, anchors: Mapping[Node, Sequence[Anchor]], batch_size: int, constants: Sequence[Tensor] = ()
) -> bool | None:
    """Whether the loss of a sample depends on other samples, as a contrastive loss does.

    Args:
        term: a term whose elements have their graph.
        anchors: activations, by their places in the graph. The latest ones that the term was made from are asked, if
            they have as many rows as the batch or the term.
        batch_size: the number of samples.
        constants: numbers taken over the batch that only normalise; what goes by them is left out.

    Returns:
        None if no activation with a row a sample can tell.

    Example:
        >>> from lightning_dataselect.capture.graph import edge_of
        >>> h = torch.ones(3, 2, requires_grad=True) + 1
        >>> pairs, own = (h @ h.T).exp(), h.square()
        >>> terms = [Term(("", 0), e.mean(), e, None, False) for e in (pairs, own)]
        >>> [mixes(term, {h.grad_fn: [Anchor(edge_of(h), h.shape)]}, 3) for term in terms]
        [True, False]
    """
    rows = by_sample(term.elements, batch_size, term.strided)
    asked = sorted({0, batch_size // 2, batch_size - 1})  # one alone may happen to have no slope
    found: bool | None = None
    for anchor in chain(*(anchors[node] for node in reached(term.elements.grad_fn, anchors))):
        if anchor.shape[:1] not in ((batch_size,), term.elements.shape[:1]):
            continue
        strided = term.strided and anchor.shape[0] != batch_size
        for i in asked:
            each = _steepest(rows[i].sum(), anchor.edge, constants, batch_size, strided)
            if each is None:
                continue
            others = torch.cat([each[:i], each[i + 1 :]])
            if (others > 1e-4 * each[i]).any():
                return True
            found = False if anchor.shape[0] == batch_size else found
    return found


def _steepest(
    loss: Tensor, anchor: Input, constants: Sequence[Tensor], batch_size: int, strided: bool
) -> Tensor | None:
    """The greatest slope of a loss by any number of each sample: (batch_size,)."""
    try:
        slope = derivatives(loss, [anchor])[0]
        for constant in constants:
            by_it = derivatives(loss, [constant])[0]
            if slope is not None and by_it is not None:
                through = derivatives(constant, [anchor])[0]
                slope = slope if through is None else slope - by_it * through
    except RuntimeError:  # a reentrant checkpoint, say, that only backward() can pass
        return None
    # a norm, since abs() would hold a second tensor of that size
    return None if slope is None else torch.linalg.vector_norm(by_sample(slope, batch_size, strided), torch.inf, 1)
