"""Tell if samples alone take another way through a step than among others, where its loss decides on that."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

from torch import Tensor

from lightning_dataselect.capture.loss.refusals import BRANCH
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.witness.in_turn import happens_once
from lightning_dataselect.capture.witness.sample_rows import are_close

Ways: TypeAlias = Mapping[Hashable, Sequence[bool]]


def refuse_branches(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Refuse a step in which samples go another way alone, if a term is something else for them then.

    Args:
        whole: Of several samples.
        singles: Of each of them alone.
        spec: The findings so far, with those of the witness.
    """
    alone = [one.branches for one in singles]
    by_loss = [place for place in _in_order(whole.branches) if _others(place, whole.branches, alone)]
    by_data = [place for place in _in_order(whole.asked) if _is_misread_by(place, whole, singles)]
    more = [key[0] for one in singles for key in _only_alone(one, whole)]
    places = by_loss if more else []
    if any(happens_once(place, [whole, *singles]) for place in more):
        places = places or by_data
    for key, (term, slope) in whole.terms.items():
        if places or not bool(term.elements.any()):
            continue
        found, own = spec.of(key), [one.terms[key] for one in singles if key in one.terms]
        is_refused = found.refusal is not None
        is_explained = found.is_witnessed or found.is_foreign or found.is_fixed or key[0] in spec.loops
        places = by_loss if is_refused or not is_explained else []
        if not (is_refused or is_explained) and len(own) == len(singles):
            places = places or by_data or (list(whole.left) if _changes_in_steps(slope, [by for _, by in own]) else [])
    return replace(spec, refusal=BRANCH.format(places[0][2], places[0][0])) if places else spec


def _only_alone(one: Shown, whole: Shown) -> list[Key]:
    """Return the terms by which a sample loses something alone that are none of it among others."""
    return [
        key
        for key, (term, slope) in one.terms.items()
        if key not in whole.terms and bool(slope.any()) and bool(term.elements.any())
    ]


def _changes_in_steps(slope: Tensor, alone: Sequence[Tensor]) -> bool:
    """Tell if a coefficient is the same for some samples alone as among others, and another one for the rest.

    A factor that is computed from a number of the loss is another one for each.
    """
    are_same = [are_close(by, slope) for by in alone]
    return any(are_same) and not all(are_same)


def open_branches(whole: Shown, singles: Sequence[Shown]) -> list[Any]:
    """Return the places where the loss of all samples has decided, and always in the same way so far."""
    return [place for place, answers in whole.branches.items() if len(answers) == 1 and _agree(place, whole, singles)]


def _agree(place: Hashable, whole: Shown, singles: Sequence[Shown]) -> bool:
    return {answer for one in (whole, *singles) for answer in one.branches.get(place, ())} == {*whole.branches[place]}


def _in_order(ways: Ways) -> list[Any]:
    return sorted(ways, key=lambda place: (str(place[0]), int(place[2])))


def _others(place: Hashable, whole: Ways, singles: Sequence[Ways]) -> list[int]:
    """Return which samples get other answers at a place; none in a loop over them, where each has its own."""
    alone = [one.get(place, ()) for one in singles]
    is_in_turn = list(whole[place]) == list(chain(*alone))
    return [] if is_in_turn else [i for i, own in enumerate(alone) if set(own) - set(whole[place])]


def _is_misread_by(place: Hashable, whole: Shown, singles: Sequence[Shown]) -> bool:
    """Tell if samples that get other answers alone are the ones, and the only ones, that lose something else then."""
    others = _others(place, whole.asked, [one.asked for one in singles])
    if not others or whole.losses is None or whole.normalises:  # else there is another reason
        return False
    apart = [
        i for i, (loss, one) in enumerate(zip(whole.losses, singles, strict=True)) if not are_close(loss, one.loss)
    ]
    return bool(apart) and set(apart) <= set(others)
