"""Hold the terms of a loss: one reduction over the batch each, or one for each sample in turn."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from lightning_dataselect.capture.loss.graph import derivatives
from lightning_dataselect.capture.loss.loss_functions import Classes
from lightning_dataselect.capture.loss.origin import Origin
from lightning_dataselect.capture.loss.reductions import fold, reduce
from lightning_dataselect.capture.loss.refusals import OWN_LOSS
from lightning_dataselect.utils.errors import CaptureError

Key = tuple[Hashable, int]  # where a term is computed, and for the how many-th time in this step


def name_of(key: Key) -> str:
    """Return the function or the line that computes a term.

    Example:
        >>> name_of(("cross_entropy", 0)), name_of((("step.py", "step", 7, "mean"), 1))
        ('cross_entropy', 'mean() in line 7 of step.py')
    """
    where: Any = key[0]
    return where if isinstance(where, str) else f"{where[3]}() in line {where[2]} of {where[0]}"


def key_of_call(where: Hashable, call: int, n_each: int) -> Key:
    """Return the key of a call at a place that has several calls for each sample, one sample after the other.

    Example:
        >>> key_of_call("l1_loss", 5, n_each=2), key_of_call(("step.py", "step", 7, "mean"), 2, n_each=2)
        (('l1_loss (2 of 2)', 2), (('step.py', 'step', 7, 'mean', 1), 1))
    """
    turn, which = divmod(call, n_each)
    return (f"{where} ({which + 1} of {n_each})" if isinstance(where, str) else (*_site(where), which + 1)), turn


def site_of(key: Key) -> Hashable:
    """Return the line of code of a term that is computed by hand, whichever of its calls for a sample it is."""
    return key[0] if isinstance(key[0], str) else _site(key[0])


def _site(where: Any) -> tuple[Any, ...]:
    return tuple(where[:4])


@dataclass(eq=False)
class Source:
    """An unreduced classification loss: logits and targets, and the losses with their graph."""

    classes: Classes
    losses: Tensor


@dataclass(eq=False)
class Term:
    """One reduction over the batch.

    Attributes:
        key: Identifies the same term in the next step.
        value: 0-dim, what the step got, with its graph.
        elements: (batch_size * k, ...) what was reduced, without a graph but for a probe.
        units: What a mean divides by the sum of, or None (see `reductions.reduce`).
        is_sum: A sum, no mean.
        strided: How the rows lie (see `reductions.by_sample`).
        classes: Logits and targets, of a classification loss; else None.
        weighs_classes: ``units`` are the weights of classes, which count in what a sample loses.
        from_parameters: It is computed from parameters alone, so no sample has a share in it.
        counts: For a sum, which elements the caller does not ignore; None if none are ignored.
        choice: int64 (1,), the turn of the reading that all steps so far have left standing (see `specs.TermSpec`).
        picked_at: Where a mask has picked the rows that were reduced, which lie here as before; None for nowhere.
        is_judged: Of a probe, True if what the model's outputs decide, as a mask of the hardest, has changed the rows.
        is_ranked: Likewise, True if it was their order, or how they compare with a number of the whole batch.
        is_compared: In a probe, True if outputs are compared with numbers of the whole batch (see `across`).
        is_shared: Likewise, True if what multiplies the rows was divided among the samples of the batch.
        is_joined: The samples were reduced first, and another axis after them.
        origin: Of a probe, what it was made from; None where all samples of the batch are measured.
        edge: Where ``value`` was in the graph when it was made; None without gradient, and in compiled code.
        made_from: Where in the graph it was made from; likewise.
        targets: What a loss function has compared the model's outputs with; None where that is not known.
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
    choice: Tensor | None = None
    picked_at: Key | None = None
    is_judged: bool = False
    is_ranked: bool = False
    is_compared: bool = False
    is_shared: bool = False
    is_joined: bool = False
    origin: Origin | None = None
    edge: GradientEdge | None = None
    made_from: Node | None = None
    targets: Tensor | None = None

    def detached(self) -> Term:
        """Return the same without a graph."""
        value, elements = self.value.detach(), self.elements.detach()
        return replace(self, value=value, elements=elements, classes=None, edge=None, made_from=None, targets=None)

    @property
    def by_hand(self) -> bool:
        """True if this is a mean or a sum, and no loss function."""
        return not isinstance(self.key[0], str)

    @property
    def node(self) -> Node:
        """The node of the graph that made it."""
        assert self.edge is not None
        return self.edge.node

    @property
    def name(self) -> str:
        """The function or the line that computes it."""
        return name_of(self.key)

    def losses(self, batch_size: int) -> Tensor:
        """Return each sample's loss by this term: (batch_size,) float32."""
        counted = self.units
        if counted is not None and self.weighs_classes:
            counted = counted != 0
        return fold(self.elements, counted, batch_size, is_sum=self.is_sum, strided=self.strided)

    def along(self, slope: Scale) -> tuple[Term, Scale]:
        """Return it with its coefficient, as one number of each sample and one for all of them."""
        return self, slope

    def weighted(self, weights: Tensor | None) -> Tensor:
        """Return the value with each sample's share multiplied by its weight, with its graph."""
        return reduce(self.elements, self.units, is_sum=self.is_sum, weights=weights, strided=self.strided)


Scale = float | Tensor
Parts = list[tuple[Term, Scale]]


def coefficients(loss: Tensor, terms: Sequence[Term], *, again: bool = False) -> Parts:
    """Return the terms that a loss depends on, each with d loss / d term, with a graph of its own if ``again``."""
    placed = [(term, term.edge) for term in terms if term.edge is not None]
    if not placed:
        return []
    slopes = derivatives(loss, [edge for _, edge in placed], again=again)
    return [term.along(s) for (term, _), s in zip(placed, slopes, strict=True) if s is not None]


_TURN = -1  # in the key of a loop's term, stands for all turns


@dataclass(eq=False)
class Loop(Term):
    """The terms of all samples as one, which adds them up.

    Attributes:
        turns: The term of each sample, in order.
    """

    turns: Sequence[Term] = ()


def turns_in(term: Term) -> Sequence[Term]:
    """Return the terms that a term was put together from: itself, if it is none of a loop."""
    return term.turns if isinstance(term, Loop) else (term,)


def turns_of(term: Term, weights: Tensor) -> list[tuple[Term, Tensor]]:
    """Return the terms that a term was put together from, each with the weights of its samples."""
    if not isinstance(term, Loop):
        return [(term, weights)]
    return list(zip(term.turns, weights.split(1), strict=True))


def loops_of(parts: Parts, looped: Collection[Hashable], batch_size: int) -> list[tuple[Loop, Scale]]:
    """Put the terms of each loop over the samples together, with the coefficients of all as one tensor."""
    loops: list[tuple[Loop, Scale]] = []
    for place in looped:
        own = [part for part in parts if part[0].key[0] == place]
        if len(own) == batch_size:  # otherwise it has not gone over all samples
            elements = torch.stack([term.value.detach() for term, _ in own])
            slopes = torch.stack([torch.as_tensor(slope, device=elements.device) for _, slope in own])
            turns = [term for term, _ in own]
            loop = Loop((place, _TURN), elements.sum(), elements, None, True, edge=turns[0].edge, turns=turns)
            loops.append((loop, slopes))
    return loops


def first_turn(loop: Loop) -> int:
    """Return which call at its place is that of the first sample: those of the others follow, without one in between.

    Raises:
        CaptureError: If there are some, as of a metric, so that nothing shows which ones are whose in other batches.
    """
    calls = [turn.key[1] for turn in loop.turns]
    if calls != list(range(calls[0], calls[0] + len(calls))):
        raise CaptureError(called_again(loop.name, calls[-1] + 1, len(calls)))
    return calls[0]


def incomplete(parts: Parts, looped: Collection[Hashable], batch_size: int) -> str | None:
    """Name a loop that has passed over some of the samples, as over images without boxes; None if none has.

    A loop that has passed over all of them is not part of the loss, so nothing is missing.
    """
    for place in looped:
        own = [term for term, _ in parts if term.key[0] == place]
        if len(own) not in (0, batch_size):
            return passed_over(own, batch_size)
    return None


def called_again(name: str, n: int, batch_size: int) -> str:
    """Say of a loss function that nothing shows which of its calls are whose."""
    return (
        f"{name} is called {n} times for {batch_size} samples, and nothing shows which calls belong to which sample, as"
        " where a loop over the samples passes over some of them, or where it is called for the whole batch as well."
        f" Call it once for each sample, and another function for anything else. Or: {OWN_LOSS}"
    )


def passed_over(own: Sequence[Term], batch_size: int) -> str:
    """Say of the terms of single samples that there are too few of them."""
    return (
        f"{own[0].name} is computed sample by sample, but this time for {len(own)} of {batch_size}, and nothing shows"
        f" which ones. {OWN_LOSS}"
    )
