"""Hold means and sums over the samples that leave a number of each output, and what they are worth in a loss."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import derivatives, reached
from lightning_dataselect.capture.loss.reductions import Reduction
from lightning_dataselect.capture.loss.terms import Key, Parts, Scale, Term, coefficients


@dataclass(eq=False)
class Fold(Term):
    """Hold a mean or a sum over the samples, and maybe other axes, that leaves one.

    Attributes:
        value: (...), what the step got, with its graph.
        elements: (batch_size, ...), what was reduced over the samples.
        where: Its place, which is also that of another mean or sum of what is left.
        ending: The mean or the sum.
    """

    where: Hashable = None
    ending: Reduction = Reduction(False)

    def weighted(self, weights: Tensor | None) -> Tensor:
        """Return the value with each sample's share multiplied by its weight, with its graph."""
        size, rows, dtype = self.elements.shape[0], self.elements.flatten(1), self.elements.dtype
        wide = torch.float32 if dtype.itemsize < 4 else dtype
        rows = rows.to(wide) if weights is None else rows * weights.to(wide).unsqueeze(1)
        return (rows.sum(0) if self.is_sum else rows.sum(0) / size).to(dtype).view_as(self.value)

    def detached(self) -> Fold:
        """Return the same without a graph."""
        return replace(self, value=self.value.detach(), elements=self.elements.detach(), edge=None, made_from=None)

    def along(self, slope: Scale) -> tuple[Term, Scale]:
        """Return what it gives to the loss, of one number a sample, and the size of its coefficients.

        Example:
            >>> errors = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
            >>> fold = Fold((("", "", 0, "mean"), 0), errors.mean(0), errors, None, False)
            >>> term, size = fold.along(torch.tensor([1.0, -4.0]))
            >>> term.elements.tolist(), size.item()
            ([-1.75, -4.25], 4.0)
        """
        slopes = torch.as_tensor(slope, device=self.elements.device).flatten()
        size = slopes.abs().amax()
        direction = (slopes / torch.where(size == 0, 1, size)).detach()
        value, rows = self.value.flatten() * direction, self.elements.flatten(1) * direction
        folded = Folded(
            self.key,
            value.sum(),
            rows.sum(1),
            None,
            self.is_sum,
            is_judged=self.is_judged,
            is_ranked=self.is_ranked,
            is_compared=self.is_compared,
            is_shared=self.is_shared,
            origin=self.origin,
            edge=self.edge,
            made_from=self.made_from,
            fold=self,
            direction=direction,
        )
        return folded, size


@dataclass(eq=False, kw_only=True)
class Folded(Term):
    """Hold what a fold gives to a loss.

    Attributes:
        fold: The fold.
        direction: Its coefficients, the largest of which is 1 or -1.
    """

    fold: Fold
    direction: Tensor

    def detached(self) -> Folded:
        """Return the same without a graph."""
        return replace(
            self,
            value=self.value.detach(),
            elements=self.elements.detach(),
            edge=None,
            made_from=None,
            fold=self.fold.detached(),
        )


def over_samples(where: Hashable) -> Hashable:
    """Return what folds at a place are known by, which may reduce what they leave as well."""
    return (*where, "over samples") if isinstance(where, tuple) else where


def make_fold(key: Key, where: Hashable, ending: Reduction, given: Tensor, value: Tensor, axes: Sequence[int]) -> Fold:
    """Make a fold of what a mean or a sum was given.

    Args:
        key: Of the fold.
        where: Its place.
        ending: The mean or the sum.
        given: What was reduced, with the samples along the first axis.
        value: What has come of it.
        axes: Those that were reduced besides the first.
    """
    each = given
    if axes:
        each = given.sum(tuple(axes)) if ending.is_sum else given.mean(tuple(axes))
    return Fold(key, value, each, None, ending.is_sum, made_from=given.grad_fn, where=where, ending=ending)


def find_folds(
    loss: Tensor, folds: Iterable[Fold], anchors: Collection[Node], terms: Collection[Node] = ()
) -> tuple[Parts, bool]:
    """Find the folds that a loss is a weighted sum of.

    Args:
        loss: The step's loss.
        folds: Those of the step, with their graphs.
        anchors: The activations.
        terms: Those that the loss is made of, whose own folds are none of the loss's.

    Returns:
        The folds, each along its coefficients; True if the loss is something else of another one, as a quotient is.
    """
    placed = {fold.edge.node: fold for fold in folds if fold.edge is not None}
    known = {*terms, *placed}
    data = {*anchors, *known}
    # what parameters are applied to afterwards, as learned weights are, is no activation
    while after := {node for node in reached(loss.grad_fn, data) - known if reached(node, placed)}:
        data -= after
    outer = reached(loss.grad_fn, data)
    own = [fold for node, fold in placed.items() if node in outer]
    if not own:
        return [], False
    slopes = derivatives(loss, [fold.edge for fold in own if fold.edge is not None], again=True)
    linear = [
        fold for fold, slope in zip(own, slopes, strict=True) if slope is not None and not reached(slope.grad_fn, data)
    ]
    return coefficients(loss, linear), len(linear) < len(own)


def whole(term: Term) -> Term:
    """Return the fold that a term is a part of by its coefficients; a term that is none as it is."""
    return term.fold if isinstance(term, Folded) else term
