"""Losses computed for one sample after another, as for the boxes of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.graph import derivatives, reached
from lightning_dataselect.capture.mixing import Anchor, alone_in
from lightning_dataselect.capture.terms import Facts, Term

if TYPE_CHECKING:
    from lightning_dataselect.capture.shares import Parts, Scale

_TURN = -1  # stands for all turns of a loop in the key of its term


@dataclass(eq=False)
class Loop(Term):
    """The terms of all samples as one, which adds them up.

    Attributes:
        turns: the term of each sample, in order.
    """

    turns: Sequence[Term] = ()


def turns_in(term: Term) -> Sequence[Term]:
    """The terms that a term was put together from: itself, if it is none of a loop."""
    return term.turns if isinstance(term, Loop) else (term,)


def turns_of(term: Term, weights: Tensor) -> list[tuple[Term, Tensor]]:
    """The terms that a term was put together from, each with the weights of its samples."""
    if not isinstance(term, Loop):
        return [(term, weights)]
    return list(zip(term.turns, weights.split(1), strict=True))


def loops_of(parts: Parts, facts: Facts, batch_size: int) -> list[tuple[Loop, Scale]]:
    """Put the terms of each loop over the samples together, with the coefficients of all as one tensor."""
    loops: list[tuple[Loop, Scale]] = []
    for place in facts.looped:
        own = [part for part in parts if part[0].key[0] == place]
        if len(own) == batch_size:  # else it has not gone over all samples
            elements = torch.stack([term.value.detach() for term, _ in own])
            slopes = torch.stack([torch.as_tensor(slope, device=elements.device) for _, slope in own])
            turns = [term for term, _ in own]
            loop = Loop((place, _TURN), elements.sum(), elements, None, True, edge=turns[0].edge, turns=turns)
            loops.append((loop, slopes))
    return loops


def incomplete(parts: Parts, facts: Facts, batch_size: int) -> str | None:
    """What is said of a loop that has passed over some of the samples, as over images without boxes; None if none has.

    One that has passed over all of them is no part of the loss, and nothing is missing.
    """
    for place in facts.looped:
        own = [term for term, _ in parts if term.key[0] == place]
        if len(own) not in (0, batch_size):
            return (
                f"{own[0].name} is computed for one sample after another, but this time for {len(own)} of"
                f" {batch_size}, and nothing shows for which of them."
            )
    return None


def gathered(parts: Parts, facts: Facts, batch_size: int) -> Parts:
    """The terms with those of loops put together."""
    if not facts.looped:
        return parts
    return [part for part in parts if part[0].key[0] not in facts.looped] + loops_of(parts, facts, batch_size)


def are_turns(terms: Sequence[Term], anchors: Mapping[Node, Sequence[Anchor]], batch_size: int) -> bool:
    """Whether terms that are computed at one place are those of the samples, one after the other.

    Args:
        terms: in the order in which they were computed.
        anchors: activations, by their places in the graph.
        batch_size: the number of samples.
    """
    if len(terms) != batch_size or batch_size == 1:
        return False
    met = [reached(term.elements.grad_fn, anchors) for term in terms]
    if not all(met):
        return False
    if len(set(chain(*met))) == sum(map(len, met)):
        # Each has activations of its own: those of one sample, unless all of them have a row for each.
        return any(anchor.shape[:1] != (batch_size,) for node in chain(*met) for anchor in anchors[node])
    shared = set.intersection(*met)
    edges = [a.edge for node in shared for a in anchors[node] if a.shape[:1] == (batch_size,)]
    return bool(edges) and all(
        alone_in(slope, i, batch_size)
        for i, term in enumerate(terms)
        for slope in derivatives(term.elements.sum(), edges)
        if slope is not None
    )
