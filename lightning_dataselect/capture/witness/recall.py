"""Recognize a step that single samples have shown how to read, by what it shows of three samples and of two."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.witness.sample_rows import are_close


class Recall:
    """Remember steps whose reading several samples, and each of them alone, have left nothing open about.

    That is so where every term of a loss is read in one way, nothing in the step compares samples, takes some of them,
    or asks for its loss or for what may decide which way it goes, and each sample has lost alone what it was read to
    lose among the others, by the same calls. Three samples, and two of them in the other order, show that such a step
    still makes these calls, and that what a sample loses still depends neither on its place nor on how many the others
    are.
    """

    def __init__(self) -> None:
        self._known: set[Hashable] = set()

    @property
    def holds_any(self) -> bool:
        """True if any step is remembered."""
        return bool(self._known)

    def learn(self, whole: Shown, singles: Sequence[Shown], spec: StepSpec, *, is_settled: bool) -> None:
        """Remember a step, or forget all, if this one has left anything open.

        Args:
            whole: Of several samples.
            singles: Of each of them alone, in order.
            spec: The findings so far, with those from these.
            is_settled: False if other samples might tell more.
        """
        made = {_pattern(shown) for shown in (whole, *singles)}
        agrees = whole.losses is not None and are_close(whole.losses, torch.stack([one.loss for one in singles]))
        is_sure = all(_is_sure(key, spec) for key in whole.terms) and spec.refusal is None and not spec.loops
        is_plain = all(map(_is_plain, (whole, *singles))) and len(made) == 1
        if is_settled and agrees and is_sure and is_plain:
            self._known |= made
        else:
            self._known.clear()

    def recognizes(self, whole: Shown, pair: Shown) -> bool:
        """Tell if a step is one of those that are remembered, and its samples lose as much among others as before.

        Args:
            whole: Of several samples.
            pair: Of the last and the first one of them, in this order.
        """
        is_known = _pattern(whole) == _pattern(pair) in self._known and _is_plain(whole) and _is_plain(pair)
        if not is_known or whole.losses is None or pair.losses is None:
            return False
        is_alike = are_close(pair.losses[0], pair.losses[1])  # in any order
        return not is_alike and are_close(whole.losses[[-1, 0]], pair.losses)


def _pattern(shown: Shown) -> Hashable:
    """Return all that a step does, but for its numbers."""
    return (
        shown.calls,
        tuple((key, term.is_sum, term.units is None) for key, (term, _) in shown.terms.items()),
        tuple(shown.numbers),
        shown.divides,
    )


def _is_plain(shown: Shown) -> bool:
    """Tell if nothing in a step could let samples concern each other, or leave some of them out."""
    compares = shown.sorts or shown.normalises or shown.picks_by_outputs or shown.of_folds or shown.taken
    asks = shown.asks_for_loss or shown.exits
    if compares or asks or shown.constant is not None or not bool(shown.loss.isfinite()):
        return False
    terms = [term for term, _ in shown.terms.values()]
    return not any(term.is_judged or term.is_ranked or term.is_compared or term.is_shared for term in terms)


def _is_sure(key: Key, spec: StepSpec) -> bool:
    found = spec.of(key)
    return found.is_witnessed and found.refusal is None and len(found.readings) < 2 and not found.is_even
