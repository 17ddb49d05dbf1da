"""Hold the findings about a step's loss: how each of its terms is read, in records that never change."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from lightning_dataselect.capture.loss.reductions import by_sample
from lightning_dataselect.capture.loss.terms import Key, Term

Divisor = Key | Literal["samples", "one over samples", "counts", "nonzero"]
"""The number of samples, one over it (of a mean that is multiplied with it), the number of elements that are not
ignored or not 0, or what is added up at a place of its own."""


@dataclass(frozen=True)
class Layout:
    """Describe how the samples lie in the elements of a term.

    Attributes:
        axis: The axis that they lie along.
        strided: True if the rows of one sample are strided along the first axis (see `reductions.by_sample`).
    """

    axis: int = 0
    strided: bool = False

    def turned(self, values: Any) -> Any:
        """Return values with the samples along their first axis; None as it is."""
        return values.movedim(self.axis, 0) if self.axis and values is not None else values

    def rows(self, elements: Tensor, size: int) -> Tensor | None:
        """Return one row a sample, (size, n), or None if the elements cannot lie so."""
        if not elements.numel():
            return elements.new_zeros(size, 0)
        if self.axis:
            is_there = elements.shape[self.axis : self.axis + 1] == (size,)
            return elements.movedim(self.axis, 0).reshape(size, -1) if is_there else None
        rows = elements.shape[0] if elements.dim() else 1
        return by_sample(elements, size, self.strided) if rows % size == 0 else None


@dataclass(frozen=True)
class TermSpec:
    """Hold the findings about one term of a step's loss.

    Attributes:
        enters: True: it is part of the loss; None: not so far; False: it is never looked at.
        layout: Where the samples lie in its elements.
        divisor: What it is divided by that is another number for a sample alone.
        readings: The divisors that fit what is known, the likeliest first, each with the product of the term's
            coefficient and the divisor, which stays the same from batch to batch for the right one; () if it was sure
            from the beginning.
        is_guess: True if the divisor is a number that merely has the value of one that is counted.
        divided_elementwise: True if the elements are divided before they are added up.
        divided_by_mean: True if it is the mean over the samples of a sum that divides.
        is_nonlinear: True if the loss is another function of it than a multiple.
        is_witnessed: True if single samples have shown how it is read.
        weighs_alike: True if it has had the same coefficient for single samples, though other rows, as mixed ones.
        picked_at: Where a mask picks the rows of its elements; None for nowhere.
        n_rows: How many elements a sample had when it was probed last.
        has_one_row: True if each sample had one row then, whatever lies along the other axes.
        n_classes: How many scores each sample had then, of a classification; 0 where it is none, or they vary.
        is_joined: True if single samples have shown that they are reduced first, and another axis after them.
        is_folded: True if it leaves a number of each output, whose coefficients may need all of them (see `folds`).
        is_foreign: True if none of the samples that are measured has a share in it.
        is_fixed: True if single samples have shown that it is the same whatever the samples, as of parameters alone.
        is_paired: True if single samples have shown that it has a row for each pair of samples.
        n_doubts: How often a step has gone beyond what its reading was found from (see `doubts.Doubts`).
        is_even: True if no sample has shown more elements that are 0 than another so far, where each has several.
        refusal: Why it cannot be read, in words; None if it can.
    """

    enters: bool | None = None
    layout: Layout = Layout()
    divisor: Divisor | None = None
    readings: tuple[tuple[Divisor | None, float], ...] = ()
    is_guess: bool = False
    divided_elementwise: bool = False
    divided_by_mean: bool = False
    is_nonlinear: bool = False
    is_witnessed: bool = False
    weighs_alike: bool = False
    picked_at: Key | None = None
    n_rows: int = 0
    has_one_row: bool = False
    n_classes: int = 0
    is_joined: bool = False
    is_folded: bool = False
    is_foreign: bool = False
    is_fixed: bool = False
    is_paired: bool = False
    n_doubts: int = 0
    is_even: bool = False
    refusal: str | None = None

    @property
    def divisors(self) -> tuple[Divisor | None, ...]:
        """Its possible divisors, as far as they are known."""
        return tuple(divisor for divisor, _ in self.readings) or (self.divisor,)

    @property
    def counts_elements(self) -> bool:
        """True if it may be divided by the number of its elements that are not ignored."""
        return "counts" in self.divisors

    def places(self) -> set[Key]:
        """Return the places where what it is, or may be, divided by is added up."""
        return {divisor for divisor in (self.divisor, *self.divisors) if isinstance(divisor, tuple)}


UNKNOWN = TermSpec()


@dataclass(frozen=True)
class StepSpec:
    """Hold the findings about all steps so far.

    Attributes:
        terms: The terms that probes have met.
        counts: Where the samples lie in what is added up without gradient.
        loops: The places where each sample has a term of its own, in turn.
        no_loops: The places where, as single samples have shown, none has.
        n_each: How often, as single samples have shown, a loop over the samples passes a place for each of them, if
            several times; each of these is then a place of its own (see `terms.key_of_call`).
        first_turns: Which call at the place of a loop is that of the first sample, where others come before it.
        no_groups: The places where, as single samples have shown, some of the samples weigh as each of them does alone.
        order: Turn in the step -> the place of the mean or sum there, as last probed.
        filters: The places where a mask leaves samples out before the model sees them.
        tables: The places where numbers take rows out of what has none for each sample, as out of weights of classes,
            though it may be as long as a batch.
        with_constant: The roots that hold a constant, by their turn.
        differentiates: True if the step takes derivatives of its own, so that it cannot do without a graph.
        leaves_torch: True if its loss may depend on numbers that the step takes out of torch.
        warned: The warnings given about parts of the loss that no sample has a share in.
        is_resumed: True if an earlier run has judged the step already.
        refusal: Why the step cannot be read, whichever terms its loss has this time, in words; None if it can.
        divisors: The places of the numbers that terms are divided by.
        has_folded: True if there are terms that leave a number of each output.
        has_foreign: True if there are terms in which none of the samples that are measured has a share.
    """

    terms: Mapping[Key, TermSpec] = field(default_factory=dict)
    counts: Mapping[Key, Layout] = field(default_factory=dict)
    loops: frozenset[Hashable] = frozenset()
    no_loops: frozenset[Hashable] = frozenset()
    n_each: Mapping[Hashable, int] = field(default_factory=dict)
    first_turns: Mapping[Hashable, int] = field(default_factory=dict)
    no_groups: frozenset[Hashable] = frozenset()
    order: Mapping[int, Hashable] = field(default_factory=dict)
    filters: frozenset[Hashable] = frozenset()
    tables: frozenset[Hashable] = frozenset()
    with_constant: frozenset[int] = frozenset()
    differentiates: bool = False
    leaves_torch: bool = False
    warned: frozenset[tuple[str, ...]] = frozenset()
    is_resumed: bool = False
    refusal: str | None = None
    divisors: frozenset[Key] = field(init=False)
    has_folded: bool = field(init=False)
    has_foreign: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_folded", any(term.is_folded for term in self.terms.values()))
        object.__setattr__(self, "has_foreign", any(term.is_foreign for term in self.terms.values()))
        object.__setattr__(self, "divisors", frozenset().union(*(term.places() for term in self.terms.values())))

    def with_left(self, left: Mapping[Key, Sequence[bool]]) -> StepSpec:
        """Return the same without the readings of terms that steps have ruled out.

        Args:
            left: Whether each reading of a term still stands.
        """
        terms = dict(self.terms)
        for key, stands in left.items():
            before = self.of(key)
            readings = tuple(reading for reading, may_be in zip(before.readings, stands, strict=True) if may_be)
            terms[key] = replace(before, readings=readings, divisor=readings[0][0])
        return replace(self, terms=terms)

    def with_all_seen(self) -> StepSpec:
        """Return the same after all samples have been seen: what has been alike in them stays so."""
        if not any(term.is_even for term in self.terms.values()):
            return self
        return replace(self, terms={key: replace(term, is_even=False) for key, term in self.terms.items()})

    def refusals(self, *, entering: bool = False) -> set[str]:
        """Return why the step, or a term of it, cannot be read.

        Args:
            entering: True for those terms alone that are part of the loss.
        """
        own = [term.refusal for term in self.terms.values() if term.enters or not entering]
        return {refusal for refusal in (self.refusal, *own) if refusal is not None}

    def refuses_more_than(self, known: StepSpec) -> bool:
        """Tell if there is a reason to refuse the step that there was not among other findings."""
        return not self.refusals() <= known.refusals()

    def leaves_open(self, refused: StepSpec) -> bool:
        """Tell if single samples have not shown how to read a term, either, that was refused among other findings."""
        keys = [key for key, term in refused.terms.items() if term.refusal is not None]
        return not keys or any(not self.of(key).is_witnessed for key in keys)

    def of(self, key: Key) -> TermSpec:
        """Return the findings about a term."""
        return self.terms.get(key, UNKNOWN)

    def owns(self, key: Key) -> bool:
        """Tell if a term is known to be one of the samples that are measured."""
        found = self.of(key)
        return key[0] in self.loops or (found.enters is True and not found.is_foreign)

    @property
    def own(self) -> frozenset[Key]:
        """The terms that are known to be those of the samples that are measured."""
        return frozenset(key for key in self.terms if self.owns(key))

    def picks_at(self, where: Key) -> bool:
        """Tell if single samples have shown that rows of theirs are picked at a place, however many it is of each."""
        return any(term.is_witnessed and term.picked_at == where for term in self.terms.values())

    def contradicts(self, before: StepSpec) -> bool:
        """Tell if a term is read in another way than before, which was not known to be possible."""
        for key, then in before.terms.items():
            now = self.of(key)
            if key[0] in self.loops - before.loops and then.enters:
                return True
            if then.enters and now.enters is False:
                return True
            if then.enters and now.enters and (now.layout != then.layout or now.divisor not in then.divisors):
                return True
            are_picked = then.picked_at is None and now.picked_at is not None
            if then.enters and now.enters and are_picked and now.n_doubts and not then.has_one_row:
                return True  # samples have had other numbers of rows, and were read as if all had as many
        return any(now != before.counts.get(key, now) for key, now in self.counts.items())

    def with_term(self, key: Key, **changes: Any) -> StepSpec:
        """Return the same with other findings about one term."""
        return replace(self, terms={**self.terms, key: replace(self.of(key), **changes)})

    def with_met(
        self, terms: Collection[Term], counts: Mapping[Key, Layout], order: Mapping[int, Hashable]
    ) -> StepSpec:
        """Return the same with all that a probe has met, of which nothing is known yet."""
        met = dict(self.terms)
        for term in terms:
            if self.of(term.key).enters is None:
                at_first = False if term.by_hand or term.from_parameters else None
                met[term.key] = replace(self.of(term.key), enters=at_first)
        return replace(self, terms=met, counts={**self.counts, **counts}, order={**self.order, **order})
