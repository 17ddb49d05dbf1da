"""Note what a step takes out of torch, by which Python may decide, and give it something else in its place."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.shown import Answers
from lightning_dataselect.capture.probing.statements import changes_something, may_decide
from lightning_dataselect.capture.recording.picks import GETITEM, tensors_among

_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_COUNTING = {"__len__", "numel", "size"}
_FINDING = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"}
ASKING = {
    "__bool__", "item", "tolist", "numpy", "__array__", "__int__", "__float__", "__index__", "__contains__",
    "equal", "allclose", "is_nonzero",
}  # fmt: skip
"""The names of the calls that answer with what a tensor holds."""


class Exits:
    """Follow the answers that torch gives to Python: all that a step can decide by, but for the shapes of its batch.

    How many rows a mask has picked, say, is an answer too: it depends on what the batch holds.

    Args:
        stand_ins: What to answer in place of what a tensor holds.

    Attributes:
        taken: All that was taken out, in the order of the places.
        of_loss: The places where that was a number of the loss, or a comparison of one.
        of_bounds: The places where it was a comparison of any number with a bound.

    Example:
        >>> exits = Exits({("step.py", "step", 7, "item"): [3.0]})
        >>> exits.take(("step.py", "step", 7, "item"), 2.0), exits.take(("step.py", "step", 7, "item"), 2.5)
        (3.0, 2.5)
        >>> exits.taken
        {('step.py', 'step', 7, 'item'): [2.0, 2.5]}
    """

    def __init__(self, stand_ins: Answers | None = None) -> None:
        self.taken: dict[Any, list[Any]] = {}
        self.of_loss: set[Any] = set()
        self.of_bounds: set[Any] = set()
        self._stand_ins = stand_ins or {}
        self._found: dict[int, Tensor] = {}  # holds them, so that no id is reused

    def note(self, func: Any, args: tuple[Any, ...], inputs: Sequence[Tensor], out: Any) -> None:
        """Follow tensors with as many rows as were found in a batch."""
        finds = func.__name__ in _FINDING or (func is GETITEM and _holds_mask(args[1]))
        finds |= func.__name__ == "where" and len(args) == 1
        lengths = {value.shape[0] for value in inputs if id(value) in self._found}
        if finds or lengths:
            rows = [one for one in tensors_among([out]) if one.dim() > 0 and (finds or one.shape[0] in lengths)]
            self._found.update((id(one), one) for one in rows)

    def is_one(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Tell if a call takes out what a tensor holds, or how much of it there is."""
        if func.__name__ in _COUNTING or func == _SHAPE:
            return id(args[0]) in self._found
        return func.__name__ in ASKING

    def take(self, where: Hashable, answer: Any, *, of_loss: bool = False, of_bound: bool = False) -> Any:
        """Note the answer that a place has got, and return what it is told.

        Args:
            where: See `interception.site`.
            answer: What the call has returned.
            of_loss: True if it is a number of the loss, or a comparison of one.
            of_bound: True if it is a comparison of any number with a bound.
        """
        answers, others = self.taken.setdefault(where, []), self._stand_ins.get(where, ())
        answers.append(answer)
        if of_loss:
            self.of_loss.add(where)
        if of_bound:
            self.of_bounds.add(where)
        return others[len(answers) - 1] if len(answers) <= len(others) else answer

    def may_matter(self) -> dict[Any, list[Any]]:
        """Return what was taken out where it may decide what the step computes, as far as the source shows."""
        return {place: answers for place, answers in self.taken.items() if self._decides(place) is not False}

    def open(self) -> list[Any]:
        """Return the places where the source shows that the step may decide by its loss, or by a bound."""
        places = [*self.of_loss, *(self.of_bounds - self.of_loss)]
        return [place for place in places if self._decides(place) or self._asks_for_loss(place)]

    def _decides(self, place: Any) -> bool | None:
        return (changes_something if self._is_question(place) else may_decide)(place[0], place[2])

    def _asks_for_loss(self, place: Any) -> bool:
        """Tell if nothing shows what follows from a question, as from one that `max` asks."""
        return self._is_question(place) and place in self.of_loss and self._decides(place) is None

    def _is_question(self, place: Any) -> bool:
        return all(isinstance(answer, bool) for answer in self.taken[place])


def _holds_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)
