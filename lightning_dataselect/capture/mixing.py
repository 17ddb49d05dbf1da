"""Whether a term's losses are each one sample's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.fold import by_sample
from lightning_dataselect.capture.recorder import Term


def mixes(term: Term, anchors: Sequence[Tensor], batch_size: int, constants: Sequence[Tensor] = ()) -> bool:
    """Whether the loss of a sample depends on other samples, as a contrastive loss does.

    Args:
        term: a term whose elements have their graph.
        anchors: activations, latest first. The latest one that the term was made from, and that
            has as many rows as the batch or the term, is asked.
        batch_size: the number of samples.
        constants: numbers taken over the batch that only normalise; what goes by them is left out.

    Example:
        >>> h = torch.ones(3, 2, requires_grad=True)
        >>> pairs, own = (h @ h.T).exp(), h.square()
        >>> terms = [Term(("", 0), e.mean(), e, None, False) for e in (pairs, own)]
        >>> [mixes(term, [h], 3) for term in terms]
        [True, False]
    """
    rows = by_sample(term.elements, batch_size, term.strided)
    asked = sorted({0, batch_size // 2, batch_size - 1})  # one alone may happen to have no slope
    for anchor in anchors:
        if anchor.shape[0] not in (batch_size, term.elements.shape[0]):
            continue
        strided = term.strided and anchor.shape[0] != batch_size
        slopes = [_slope(rows[i].sum(), anchor, constants) for i in asked]
        found = [(i, slope) for i, slope in zip(asked, slopes, strict=True) if slope is not None]
        for i, slope in found:
            each = by_sample(slope, batch_size, strided).abs().amax(1)
            others = torch.cat([each[:i], each[i + 1 :]])
            if (others > 1e-4 * each[i]).any():
                return True
        if found:
            return False
    return False


def _slope(loss: Tensor, anchor: Tensor, constants: Sequence[Tensor]) -> Tensor | None:
    try:
        slope = _derivative(loss, anchor)
        for constant in constants:
            by_it = _derivative(loss, constant)
            if slope is not None and by_it is not None:
                through = _derivative(constant, anchor)
                slope = slope if through is None else slope - by_it * through
        return slope
    except RuntimeError:  # a reentrant checkpoint, say, that only backward() can pass
        return None


def _derivative(of: Tensor, by: Tensor) -> Tensor | None:
    return torch.autograd.grad(of, by, retain_graph=True, allow_unused=True)[0]
