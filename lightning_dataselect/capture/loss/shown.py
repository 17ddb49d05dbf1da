"""Hold what a step has shown of some samples, or of one alone."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key, Term

Answers: TypeAlias = Mapping[Hashable, Sequence[Any]]
"""All that a step has taken out of torch, by the places where it did, in order."""


@dataclass(frozen=True)
class Shown:
    """Hold what a step has shown of some samples.

    Attributes:
        size: The number of samples.
        loss: What the step returned, 0-dim.
        terms: Those that the loss depends on, with their coefficients.
        numbers: What was added up without gradient, by its place.
        losses: (size,) what the algebra gives to each sample; None where it finds nothing.
        constant: What the loss is besides its terms, if that has no gradient; None for nothing.
        spec: What the algebra has found of the terms.
        divides: True if the step has divided something that has a gradient.
        sorts: True if the step has sorted something, or taken rows by an index or a mask.
        reorders: True if that was in another order before.
        outputs: What the model gave to each term, if its activations were kept.
        slopes: The derivatives of the sum of each term's elements by these, if they were asked for.
        taken: How many rows of each sample a term has, where an index of the step has picked them.
        normalises: True if a layer has normalised the samples by their own statistics.
        picks_by_outputs: True if a mask that was computed from the model's outputs has picked rows.
        of_folds: The terms that are made of what was reduced over the samples before.
        passes: How often it has passed each place where it reduced something, whether the loss depends on that or not.
        calls: The names of the functions of torch that it has called, in order.
        asks_for_loss: True if it has taken a number of its loss out of torch, or asked how one compares.
        exits: What it has taken out of torch where that may decide, by the source, at each place.
        decisive: The places where that was its loss, or a question of a bound, and may decide by the source.
    """

    size: int
    loss: Tensor
    terms: Mapping[Key, tuple[Term, Tensor]]
    numbers: Mapping[Key, Term] = field(default_factory=dict)
    losses: Tensor | None = None
    constant: Tensor | None = None
    spec: StepSpec = field(default_factory=StepSpec)
    divides: bool = False
    sorts: bool = False
    reorders: bool = False
    outputs: Mapping[Key, Sequence[Tensor]] = field(default_factory=dict)
    slopes: Mapping[Key, Sequence[Tensor | None]] = field(default_factory=dict)
    taken: Mapping[Key, Tensor] = field(default_factory=dict)
    normalises: bool = False
    picks_by_outputs: bool = False
    of_folds: Collection[Key] = ()
    passes: Mapping[Hashable, int] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    asks_for_loss: bool = False
    exits: Answers = field(default_factory=dict)
    decisive: Collection[Hashable] = ()

    def differs_from(self, other: Shown) -> bool:
        """Tell if the step has computed something else than another one on the same samples."""
        if self.terms.keys() != other.terms.keys():
            return True
        return any(
            not torch.equal(term.elements, other.terms[key][0].elements) for key, (term, _) in self.terms.items()
        )

    @property
    def is_in_half(self) -> bool:
        """True if something that the loss is made of was computed in half precision, where equal losses look apart."""
        among = [self.loss, *(value for outputs in self.outputs.values() for value in outputs)]
        return any(value.is_floating_point() and value.dtype.itemsize < 4 for value in among)
