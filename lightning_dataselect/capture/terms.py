"""What a step's loss may be made of: the reductions over its batch, and what is known of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from lightning_dataselect.capture.fold import fold, reduce
from lightning_dataselect.capture.losses import Classes

Key = tuple[Hashable, int]  # where a term is computed, and the how-manieth time in this step
Divisor = Key | Literal["samples", "counts", "nonzero"]
"""The number of samples, of elements that are not ignored or not 0, or what is added up at a place of its own."""


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
        counts: of a sum, which elements are none of what the caller ignores; None where nothing is.
        takes_other: 0-dim bool, whether this step shows the second of two readings to be right (see `Facts.doubts`).
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
    counts: Tensor | None = None
    takes_other: Tensor | None = None
    edge: GradientEdge | None = None

    def detached(self) -> Term:
        """The same without a graph."""
        return replace(self, value=self.value.detach(), elements=self.elements.detach(), classes=None, edge=None)

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
        divisors: term -> what it is divided by that is another number for a sample alone (see `Divisor`).
        doubts: term -> two readings of its divisor that fit what is known, each with the product of the term's
            coefficient and the divisor, which stays the same from batch to batch for the right one.
        guessed: the terms whose divisor is a number that merely has the value of one that is counted.
        axes: term -> the axis that the samples lie along, if it is not the first.
        trusted: the terms of which single samples have shown how they are read.
        refused: term -> why it cannot be read.
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
    divisors: dict[Key, Divisor] = field(default_factory=dict)
    doubts: dict[Key, tuple[tuple[Divisor, float], tuple[Divisor, float]]] = field(default_factory=dict)
    guessed: set[Key] = field(default_factory=set)
    axes: dict[Key, int] = field(default_factory=dict)
    trusted: set[Key] = field(default_factory=set)
    refused: dict[Key, str] = field(default_factory=dict)
    inside: set[Key] = field(default_factory=set)
    across: set[Key] = field(default_factory=set)
    looped: set[Hashable] = field(default_factory=set)
    bent: set[Key] = field(default_factory=set)
    differentiates: bool = False
    shifted: set[int] = field(default_factory=set)
    order: dict[int, Hashable] = field(default_factory=dict)
    left_out: set[tuple[str, ...]] = field(default_factory=set)
    resumed: bool = False

    def places(self, key: Key) -> set[Key]:
        """A term, and what it is or may be divided by that is added up at a place of its own."""
        readings = [self.divisors.get(key), *(divisor for divisor, _ in self.doubts.get(key, ()))]
        return {key, *(divisor for divisor in readings if isinstance(divisor, tuple))}

    def numbers(self) -> set[Key]:
        """Where the numbers that terms are divided by are added up."""
        return {place for key in {*self.divisors, *self.doubts} for place in self.places(key) - {key}}

    def trust(self, key: Key, axis: int, strided: bool, divisor: Divisor | None, inside: bool, found: Facts) -> None:
        """Settle how a term is read, whose divisor is counted as ``found`` has it."""
        self.trusted.add(key)
        self.axes.pop(key, None)
        if axis:
            self.axes[key] = axis
        (self.strided.add if strided else self.strided.discard)(key)
        (self.inside.add if inside else self.inside.discard)(key)
        self.divisors.pop(key, None)
        if divisor is not None:
            self.divisors[key] = divisor
            self.follow(divisor, found)

    def follow(self, divisor: Divisor, found: Facts) -> None:
        """Let what a term is divided by lie as ``found`` has it."""
        if not isinstance(divisor, str):
            self.strided |= found.strided & {divisor}
            self.across |= found.across & {divisor}
