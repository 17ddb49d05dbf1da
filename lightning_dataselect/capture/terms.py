"""What a step's loss may be made of: the reductions over its batch, and what is known of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from lightning_dataselect.capture.fold import fold, reduce
from lightning_dataselect.capture.losses import Classes

Key = tuple[Hashable, int]  # where a term is computed, and the how-manieth time in this step


@dataclass(eq=False)
class Source:
    """An unreduced classification loss: logits and targets, and the losses with their graph."""

    classes: Classes
    losses: Tensor


@dataclass(eq=False)
class Term:
    """One reduction over the batch.

    Attributes:
        key: what the same term of the next step is recognised by.
        value: 0-dim, what the step got, with its graph.
        elements: (batch_size * k, ...) what was reduced, without a graph but for a probe.
        units: what a mean divides by the sum of, or None (see `fold.reduce`).
        is_sum: a sum, no mean.
        strided: how the rows lie (see `fold.by_sample`).
        classes: logits and targets, of a classification loss; else None.
        weighs_classes: ``units`` are the weights of classes, which count in what a sample loses.
        from_parameters: it is made of parameters alone, so no sample has a share in it.
        edge: where ``value`` was in the graph when it was made; None without gradient, and in compiled code.
    """

    key: Key
    value: Tensor
    elements: Tensor
    units: Tensor | None
    is_sum: bool
    strided: bool = False
    classes: Classes | None = None
    weighs_classes: bool = False
    from_parameters: bool = False
    edge: GradientEdge | None = None

    @property
    def by_hand(self) -> bool:
        """Whether this is a mean or a sum, no loss function of torch's."""
        return not isinstance(self.key[0], str)

    @property
    def node(self) -> Node:
        """The node of the graph that made it."""
        assert self.edge is not None
        return self.edge.node

    @property
    def name(self) -> str:
        """What computes it."""
        where: Any = self.key[0]
        return f"{where[3]}() in line {where[2]} of {where[0]}" if self.by_hand else str(where)

    def losses(self, batch_size: int) -> Tensor:
        """What each sample loses by this term: (batch_size,) float32."""
        counted = self.units
        if counted is not None and self.weighs_classes:
            counted = counted != 0
        return fold(self.elements, counted, batch_size, is_sum=self.is_sum, strided=self.strided)

    def weighted(self, weights: Tensor | None) -> Tensor:
        """The value with each sample's share multiplied by its weight, with its graph."""
        return reduce(self.elements, self.units, is_sum=self.is_sum, weights=weights, strided=self.strided)


@dataclass
class Facts:
    """What probes have found out about the terms of a step's loss.

    Attributes:
        verdicts: term -> True, part of the loss; None, not so far; False, never to be looked at.
        strided: the terms whose rows lie strided (see `fold.by_sample`).
        counted: the sums that are divided by the number of samples.
        divisors: term -> the sum or mean over the batch that it is divided by.
        inside: the terms of which either is done to the elements, before they are added up.
        across: the numbers that are counted along the second axis for each sample.
        looped: the places where each sample has a term of its own, in turn.
        bent: the terms that a loss is another function of than a multiple.
        differentiates: whether the step takes derivatives of its own, so that it cannot do without a graph.
        shifted: the roots of a step that hold a constant, by their turn; kept where a later probe shows fewer roots.
        order: turn in the step -> the place of the mean or sum there, as last probed.
        left_out: what was said of parts of the loss that no sample has a share in.
        resumed: whether an earlier run has judged the step already.
    """

    verdicts: dict[Key, bool | None] = field(default_factory=dict)
    strided: set[Key] = field(default_factory=set)
    counted: set[Key] = field(default_factory=set)
    divisors: dict[Key, Key] = field(default_factory=dict)
    inside: set[Key] = field(default_factory=set)
    across: set[Key] = field(default_factory=set)
    looped: set[Hashable] = field(default_factory=set)
    bent: set[Key] = field(default_factory=set)
    differentiates: bool = False
    shifted: set[int] = field(default_factory=set)
    order: dict[int, Hashable] = field(default_factory=dict)
    left_out: set[tuple[str, ...]] = field(default_factory=set)
    resumed: bool = False
