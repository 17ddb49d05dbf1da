"""Tell if samples alone take another way through a step than among others, where its loss decides on that."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

from lightning_dataselect.capture.loss.refusals import BRANCH
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec

Ways: TypeAlias = Mapping[Hashable, Sequence[bool]]


def refuse_branches(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Refuse a step in which samples go another way alone, if a term is something else for them then.

    Args:
        whole: Of several samples.
        singles: Of each of them alone.
        spec: The findings so far, with those of the witness.
    """
    by_loss = _where_they_differ(whole.branches, [one.branches for one in singles])
    by_data = [] if whole.normalises else _where_they_differ(whole.asked, [one.asked for one in singles])
    for key, (term, _) in whole.terms.items():
        found = spec.of(key)
        is_explained = found.is_witnessed or found.is_foreign or found.is_fixed or key[0] in spec.loops
        is_refused = found.refusal is not None
        places = by_loss if is_refused or not is_explained else []
        if not (is_refused or is_explained) and all(key in one.terms for one in singles):
            places = places or by_data
        if places and bool(term.elements.any()):
            return replace(spec, refusal=BRANCH.format(places[0][2], places[0][0]))
    return spec


def open_branches(whole: Shown, singles: Sequence[Shown]) -> list[Any]:
    """Return the places where the loss of all samples has decided, and always in the same way so far."""
    return [place for place, answers in whole.branches.items() if len(answers) == 1 and _agree(place, whole, singles)]


def _agree(place: Hashable, whole: Shown, singles: Sequence[Shown]) -> bool:
    return {answer for one in (whole, *singles) for answer in one.branches.get(place, ())} == {*whole.branches[place]}


def _where_they_differ(whole: Ways, singles: Sequence[Ways]) -> list[Any]:
    """Return the places with other answers, in order; none of a loop over the samples, where each has its own."""
    places: list[Any] = []
    for place, answers in whole.items():
        alone = [one.get(place, ()) for one in singles]
        is_in_turn = list(answers) == list(chain(*alone))
        if not is_in_turn and any(set(own) - set(answers) for own in alone):
            places.append(place)
    return sorted(places, key=lambda place: (str(place[0]), int(place[2])))
