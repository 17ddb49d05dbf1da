"""Tell if samples alone take another way through a step than among others, where its loss decides on that."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

from lightning_dataselect.capture.loss.refusals import BRANCH
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec


def refuse_branches(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Refuse the terms that are something else for samples which go another way alone, unless single samples fit.

    Args:
        whole: Of several samples.
        singles: Of each of them alone.
        spec: The findings so far, with those of the witness.
    """
    places = [place for place in whole.branches if _differ(place, whole, singles)]
    if not places:
        return spec
    _, _, line = where = _first(places)
    for key, (term, _) in whole.terms.items():
        found = spec.of(key)
        is_explained = found.is_witnessed or found.is_foreign or found.is_fixed or key[0] in spec.loops
        if not bool(term.elements.any()) or (found.refusal is None and is_explained):
            continue
        spec = spec.with_term(key, refusal=BRANCH.format(line, where[0]))
    return spec


def open_branches(whole: Shown, singles: Sequence[Shown]) -> list[Any]:
    """Return the places where the loss of all samples has decided, and always in the same way so far."""
    return [place for place, answers in whole.branches.items() if len(answers) == 1 and _agree(place, whole, singles)]


def _agree(place: Hashable, whole: Shown, singles: Sequence[Shown]) -> bool:
    return {answer for one in (whole, *singles) for answer in one.branches.get(place, ())} == {*whole.branches[place]}


def _differ(place: Hashable, whole: Shown, singles: Sequence[Shown]) -> bool:
    """Tell if a place has got other answers; not of a loop over the samples, where each has its own."""
    alone = [one.branches.get(place, ()) for one in singles]
    is_in_turn = list(whole.branches[place]) == list(chain(*alone))
    return not is_in_turn and any(set(answers) - set(whole.branches[place]) for answers in alone)


def _first(places: Sequence[Any]) -> Any:
    return min(places, key=lambda place: (str(place[0]), int(place[2])))
