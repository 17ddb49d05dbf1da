"""The findings about a step's loss."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from lightning_dataselect.capture.reductions import Key

Divisor = Key | Literal["samples", "counts", "nonzero"]
"""The number of samples, of elements that are not ignored or not 0, or what is added up at a place of its own."""


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
