"""The constant in a loss, as the 1 of one minus a mean similarity, which a sample alone has too."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.capture.graph import leads_only_to
from lightning_dataselect.capture.loops import turns_in, turns_of
from lightning_dataselect.capture.shares import Parts, Scale
from lightning_dataselect.capture.terms import Term

# Below this share of the loss it may be rounding.
_LEAST_SHARE = 1e-4


def given(term: Term, slope: Scale, weights: Tensor | None = None) -> Tensor:
    """What a term gives to the loss; its elements are asked, as its value may have been written to since.

    Args:
        term: one of the loss.
        slope: its coefficient, or, of a loop, that of each turn.
        weights: (batch_size,) float, the factors on the shares of the samples, if there are any.
    """
    slopes = torch.as_tensor(slope, dtype=torch.float32, device=term.elements.device).detach().reshape(-1)
    with torch.no_grad():
        turns = turns_of(term, torch.ones_like(slopes) if weights is None else weights)
        own = [turn.weighted(None if weights is None else its) for turn, its in turns]
        return torch.stack([value.float() for value in own]).mul(slopes).sum()


def rest(loss: Tensor, parts: Parts, weights: Tensor | None = None) -> Tensor:
    """What a loss is without its terms: 0-dim float32, without a graph.

    Args:
        loss: of one element.
        parts: its terms, with their coefficients.
        weights: see `given`.
    """
    return loss.detach().float().reshape(()) - sum(given(term, slope, weights) for term, slope in parts)


def has_constant(loss: Tensor, parts: Parts) -> bool:
    """Whether a loss is its terms and a constant: nothing else in it has a gradient, and it is not 0.

    Example:
        >>> from lightning_dataselect.capture.graph import edge_of
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
    return bool(size > max(_LEAST_SHARE, 8 * torch.finfo(loss.dtype).eps) * (size + sizes))
