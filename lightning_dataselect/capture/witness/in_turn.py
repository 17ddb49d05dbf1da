"""Tell loops over the samples, each with a term of its own, from loops over groups of them and over anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.refusals import COUNT, GROUPS, ORDER, SCALE
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.witness.sample_rows import are_close


def with_loops(whole: Shown, singles: Sequence[Shown], spec: StepSpec, agrees: bool) -> StepSpec:
    """Return the findings with the places where each sample has a term of its own, and those where none has.

    A place that is passed as often as there are samples is a loop over them, and one that is passed as often for one
    sample as for several is none, whatever their number.

    Args:
        whole: Of several samples.
        singles: Of each of them alone.
        spec: The findings so far.
        agrees: True if the algebra gives to each sample what it loses alone.
    """
    places = Counter(key[0] for key in whole.terms)
    of_singles = [Counter(key[0] for key in one.terms) for one in singles]
    others = {place for place, n in places.items() if all(one[place] == n for one in of_singles)}
    loops = set()
    for place, n in places.items():
        if place not in others and whole.losses is not None and not agrees and _weighs_turns(place, whole, singles):
            spec = _refused(spec, place, whole, GROUPS if _are_picked(place, whole) else SCALE)
        if n == 1 or any(one[place] != 1 for one in of_singles):
            continue
        slopes, truth = _slopes_at(place, [whole]), _slopes_at(place, singles)
        turns, own = _values_at(place, [whole]), _values_at(place, singles)
        is_in_turn = n == whole.size and are_close(turns, own)
        if _are_picked(place, whole):
            # groups of one sample each are met in their own order, so that one of two orders of the samples tells
            is_mean = is_in_turn and are_close(slopes * whole.size, truth)
            if not (is_mean or are_close(slopes, truth[:1].expand_as(slopes))):
                spec = _refused(spec, place, whole, GROUPS)
            else:
                spec = replace(spec, no_groups=spec.no_groups | {place})
            continue
        if n != whole.size:
            continue
        loops.add(place)
        if not is_in_turn and are_close(turns.sort().values, own.sort().values):
            spec = _refused(spec, place, whole, ORDER)
        elif is_in_turn and not agrees:
            if not (are_close(slopes, truth) or are_close(slopes * whole.size, truth)):
                adds_up = are_close((1 / truth).sum() * slopes, torch.ones_like(slopes))
                spec = _refused(spec, place, whole, COUNT if adds_up else SCALE)
    return replace(spec, loops=(spec.loops | loops) - others, no_loops=(spec.no_loops | others) - loops)


def several_of_each(whole: Shown, singles: Sequence[Shown]) -> dict[Hashable, int]:
    """Return the places that a loop over the samples passes several times for each of them, and how often.

    Args:
        whole: Of several samples.
        singles: Of each of them alone, in order.
    """
    found = {}
    for place in {key[0] for key in whole.terms} & whole.passes.keys():
        turns, own = _values_at(place, [whole]), _values_at(place, singles)
        n_each, rest = divmod(whole.passes[place], whole.size)
        is_of_each = n_each > 1 and not rest and all(one.passes.get(place) == n_each for one in singles)
        if is_of_each and len(turns) == len(own) and are_close(turns, own):
            found[place] = n_each
    return found


def _values_at(place: Hashable, shown: Sequence[Shown]) -> Tensor:
    met = [term.value for one in shown for key, (term, _) in one.terms.items() if key[0] == place]
    return torch.stack(met).flatten() if met else torch.empty(0)


def _weighs_turns(place: Hashable, whole: Shown, singles: Sequence[Shown]) -> bool:
    """Tell if turns at a place weigh alike, but otherwise by how many there are, as of the longest of the samples."""
    if all(_passes(place, one) < 2 for one in singles):
        return False
    slopes = [_slopes_at(place, [one]) for one in (whole, *singles) if _passes(place, one)]
    are_even = all(are_close(own, own[:1].expand_as(own)) for own in slopes)
    return are_even and any(not are_close(own[:1], slopes[0][:1]) for own in slopes[1:])


def _are_picked(place: Hashable, whole: Shown) -> bool:
    return any(term.picked_at is not None for key, (term, _) in whole.terms.items() if key[0] == place)


def happens_once(place: Hashable, shown: Sequence[Shown]) -> bool:
    """Tell if no step has passed a place more than once, so that what it computed there is the same thing each time."""
    return all(_passes(place, one) < 2 for one in shown)


def happens_alike(place: Hashable, shown: Sequence[Shown]) -> bool:
    """Tell if all steps have passed a place equally often, so that its turns are the same things in each of them."""
    return len({_passes(place, one) for one in shown}) < 2


def _passes(place: Hashable, one: Shown) -> int:
    return sum(key[0] == place for key in one.terms)


def _slopes_at(place: Hashable, shown: Sequence[Shown]) -> Tensor:
    """Return the coefficients of the terms at a place, in their order."""
    met = [slope for one in shown for key, (_, slope) in one.terms.items() if key[0] == place]
    return torch.cat([slope.float().reshape(-1) for slope in met])


def _refused(spec: StepSpec, place: Hashable, whole: Shown, refusal: str) -> StepSpec:
    for key in whole.terms:
        spec = spec.with_term(key, refusal=refusal) if key[0] == place else spec
    return spec
