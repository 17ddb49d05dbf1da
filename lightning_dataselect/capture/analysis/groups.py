"""Tell if a loss is a mean over groups of samples, such as the classes in a batch, as many as there happen to be."""

from __future__ import annotations

from collections.abc import Collection, Hashable

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.analysis.nonlinear import nodes_after
from lightning_dataselect.capture.loss.reductions import by_sample, foldable
from lightning_dataselect.capture.loss.terms import Parts, Term

_SAME = 1e-3  # of two shares that are equal but for rounding


def are_groups(loss: Tensor, parts: Parts, anchors: Collection[Node], divisors: Collection[float], size: int) -> bool:
    """Tell if terms of one place have samples of their own each, and the loss is the mean of them.

    A sample alone would be the only group of its batch.

    Args:
        loss: The step's loss.
        parts: The terms that it is made of, with their graphs.
        anchors: The activations.
        divisors: The numbers that something was divided by.
        size: The number of samples.

    Example:
        >>> from lightning_dataselect.capture.loss.graph import edge_of
        >>> losses = torch.ones(3, requires_grad=True) * 1
        >>> shares = [losses * torch.tensor(mask) for mask in ([1, 0, 0], [0, 1, 1])]
        >>> sums = [Term((("", "", 0, "sum"), i), s.sum(), s.detach(), None, True) for i, s in enumerate(shares)]
        >>> for term in sums:
        ...     term.edge = edge_of(term.value)
        >>> parts = [(sums[0], 0.5), (sums[1], 0.25)]
        >>> [are_groups((sums[0].value + sums[1].value / 2) / 2, parts, (), by, 3) for by in ({2.0}, {3.0})]
        [True, False]
    """
    places: dict[Hashable, Parts] = {}
    for term, slope in parts:
        places.setdefault(term.key[0], []).append((term, slope))
    return any(
        len(own) > 1
        and _are_of_others(own, size)
        and (float(len(own)) in divisors or _is_mean(loss, own[0][0], anchors))
        for own in places.values()
    )


def _are_of_others(parts: Parts, size: int) -> bool:
    """Tell if no sample has a share in two of some terms, and all terms weigh the same."""
    if not all(foldable(term.elements.shape, size) and torch.as_tensor(slope).numel() == 1 for term, slope in parts):
        return False
    rows = [by_sample(term.elements.detach(), size, term.strided) for term, _ in parts]
    has_share = torch.stack([(each != 0).any(1) for each in rows])
    counts = has_share.sum(1)
    if bool((has_share.sum(0) > 1).any()) or not counts.all():
        return False
    slopes = torch.stack([torch.as_tensor(slope).detach().float().reshape(()).cpu() for _, slope in parts])
    shares = torch.stack([n if term.is_sum else n / n for (term, _), n in zip(parts, counts.cpu(), strict=True)])
    weights = slopes * shares
    return bool(((weights - weights[0]).abs() <= _SAME * weights[0].abs()).all())


def _is_mean(loss: Tensor, term: Term, anchors: Collection[Node]) -> bool:
    return any(node.name() == "MeanBackward0" for node in nodes_after(term, loss, anchors))
