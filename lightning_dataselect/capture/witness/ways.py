"""Find where a step decides by its whole batch which way it takes, by letting single samples take that way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.capture.loss.shown import Answers, Shown
from lightning_dataselect.capture.witness.sample_rows import CLOSE_IN_HALF, are_close

Led: TypeAlias = Callable[[int, Answers], Tensor | None]
"""Returns what a sample loses alone if the step is told these answers; None if that cannot be."""

_MOST_PLACES = 16
_NUDGE, _MANY = 0.01, 10**9
_FAR = (-1e9, 1e-9, 1e9)  # beyond any bound, on either side of it; none is 0, by which a step may divide


def misled_at(batch: Shown, singles: Mapping[int, Shown], led: Led, *, is_refused: bool) -> Any | None:
    """Return a place whose answer for a batch makes samples lose something else than alone; None if there is none.

    A number that a loss is multiplied with keeps the value that it has for the batch: where the loss follows small
    changes of it, nothing has been decided.

    Args:
        batch: Of several samples.
        singles: Of some of them alone, by their turns in the batch.
        led: See `Led`.
        is_refused: True if there is another reason to refuse the loss, which may only be what follows from the answer.
    """
    for turn, one in singles.items():
        read = None if batch.losses is None else batch.losses[turn]
        if not is_refused and (read is None or _are_alike(read, one.loss, batch)):
            continue
        places = [place for place in one.exits if _differs(place, batch, one)]
        places = [place for place in places if not is_refused or place in batch.decisive or _is_plain(place, batch)]
        for place in places[:_MOST_PLACES]:
            found = _led_otherwise(turn, place, batch, one, read, led)
            if found is None:
                continue
            is_led = bool(found.isfinite()) if read is None else _are_alike(read, found, batch)
            is_left_out = read is not None and not bool(read) and not bool(found.isfinite())  # as a mean of no rows
            if is_left_out or (is_led and not _follows(turn, place, batch, found, led)):
                return place
    return None


def _led_otherwise(
    turn: int, place: Hashable, batch: Shown, one: Shown, read: Tensor | None, led: Led
) -> Tensor | None:
    """Return what a sample loses by the answer that its batch has got, if that is not what it loses alone.

    A comparison with the number of samples, as of how many classes there are with it, may need another answer for a
    sample alone to take the way of its batch.
    """
    found = led(turn, {place: batch.exits[place]})
    if found is not None and not _are_alike(found, one.loss, batch):
        return found
    if read is None or not _are_counts(place, batch):
        return None
    others = (led(turn, {place: [count] * len(batch.exits[place])}) for count in (0, _MANY))
    return next((found for found in others if found is not None and _are_alike(read, found, batch)), None)


def open_at(whole: Shown, singles: Mapping[int, Shown], led: Led) -> list[Any]:
    """Return the places where a step decides by its loss, or by a bound, in the same way for all samples so far.

    Args:
        whole: Of several samples.
        singles: Of each of them alone, by their turns.
        led: See `Led`.
    """
    turn, one = next(iter(singles.items()))
    return [
        place
        for place in one.decisive
        if _agree(place, [whole, *singles.values()]) and _decides_at(place, turn, one, led)
    ]


def _agree(place: Hashable, shown: Sequence[Shown]) -> bool:
    """Tell if all have got the same answer to a question, if it is one."""
    answers = [answer for one in shown for answer in one.exits.get(place, ())]
    return len(set(answers)) == 1 if _is_question(place, shown[0]) else True


def _is_question(place: Hashable, shown: Shown) -> bool:
    return all(isinstance(answer, bool) for answer in shown.exits.get(place, ()))


def _is_plain(place: Hashable, shown: Shown) -> bool:
    """Tell if what is taken out at a place are single numbers, or the answers to questions."""
    return all(isinstance(answer, int | float) for answer in shown.exits.get(place, ()))


def _decides_at(place: Hashable, turn: int, one: Shown, led: Led) -> bool:
    """Tell if another answer changes what a sample loses alone."""
    answers = one.exits[place]
    if _is_question(place, one):
        others = [[not answer for answer in answers]]
    elif all(isinstance(answer, int | float | np.ndarray) for answer in answers):
        others = [[answer * 0 + far for answer in answers] for far in _FAR]
    else:
        return False
    found = [led(turn, {place: other}) for other in others]
    changes = any(loss is not None and not are_close(loss, one.loss) for loss in found)
    return changes and not _follows(turn, place, one, one.loss, led)


def _are_counts(place: Hashable, shown: Shown) -> bool:
    """Tell if what is taken out at a place are whole numbers, as of how many classes there are."""
    return all(isinstance(answer, int) and not isinstance(answer, bool) for answer in shown.exits.get(place, ()))


def _are_alike(a: Tensor, b: Tensor, batch: Shown) -> bool:
    """Tell if two losses of a sample, 0-dim, are equal but for rounding."""
    if not batch.is_in_half:
        return are_close(a, b)
    # a small loss of large logits is off by more than a share of itself
    is_near = bool((a.float() - b.float()).abs() <= CLOSE_IN_HALF * batch.loss.float().abs())
    return is_near or are_close(a, b, CLOSE_IN_HALF)


def _follows(turn: int, place: Hashable, shown: Shown, before: Tensor, led: Led) -> bool:
    """Tell if what a sample loses follows each small change of the numbers that are taken out at a place.

    Args:
        turn: Of the sample.
        place: Where they are taken out.
        shown: Holds the numbers.
        before: What the sample loses if they are what they are.
        led: See `Led`.
    """
    answers = shown.exits[place]
    if _is_question(place, shown):
        return False
    for n in (1, 2):
        found = led(turn, {place: [_nudged(answer, n) for answer in answers]})
        if found is not None and bool((found == before) | (found.isnan() & before.isnan())):
            return False
        before = before if found is None else found
    return True


def _nudged(answer: Any, n: int) -> Any:
    """Return numbers that are a little larger, by n steps, or more where they count.

    Example:
        >>> _nudged(2.0, 1), _nudged(2, 2), _nudged(torch.Size([3, 4]), 1), _nudged([[1.0]], 1)
        (2.02, 4, torch.Size([4, 4]), [[1.01]])
    """
    if isinstance(answer, tuple):
        return torch.Size((answer[0] + n, *answer[1:]))
    if isinstance(answer, list):
        return [_nudged(each, n) if isinstance(each, list) else each * (1 + n * _NUDGE) for each in answer]
    return answer + n if isinstance(answer, int) else answer * (1 + n * _NUDGE)


def _differs(place: Hashable, batch: Shown, one: Shown) -> bool:
    """Tell if a place has got as many answers for a batch as for a sample alone, but other ones."""
    answers, own = batch.exits.get(place, ()), one.exits[place]
    pairs = list(zip(answers, own, strict=False))
    return len(answers) == len(own) and any(not _are_equal(a, b) for a, b in pairs)


def _are_equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)
