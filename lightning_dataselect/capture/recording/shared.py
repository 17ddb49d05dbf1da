"""Share the calls of a step among recorders, each of which records the losses of other samples."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from lightning_dataselect.capture.loss.loss_functions import Loss
from lightning_dataselect.capture.loss.reductions import Reduction
from lightning_dataselect.capture.recording.observer import Observer
from lightning_dataselect.capture.recording.recorder import Recorder


class SharedRecorder:
    """Give each call of a step to the recorder whose samples it belongs to, by what the recorders have found.

    While one recorder alone listens, as in a probe, it takes all calls. Where several do, all of them count every
    call, so that they know it by the same key.

    Example:
        >>> shared = SharedRecorder()
        >>> first, second = shared.add(Recorder()), shared.add(Recorder())
        >>> first.start(4)
        >>> shared.listens(), shared.members == [first], first.beside == [second]
        (True, True, True)
    """

    def __init__(self) -> None:
        self._recorders: list[Recorder] = []

    def add(self, recorder: Recorder) -> Recorder:
        """Let another recorder take part; return it."""
        for other in self._recorders:
            other.beside.append(recorder)
        recorder.beside = list(self._recorders)
        self._recorders.append(recorder)
        return recorder

    @property
    def members(self) -> list[Recorder]:
        """The recorders that listen at the moment."""
        return [recorder for recorder in self._recorders if recorder.listens()]

    def listens(self) -> bool:
        """Tell if a call is the step's own for any of them."""
        return bool(self.members)

    @property
    def observer(self) -> Observer | None:
        """The probe of the one that listens, if it probes."""
        return next((member.observer for member in self.members if member.observer is not None), None)

    def loss(self, loss: Loss, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Tensor:
        """Have the recorder whose samples a loss function is given call it; the others count the call."""
        members = self.members
        if len(members) == 1:
            return members[0].loss(loss, function, args, kwargs)
        bound = loss.bind(args, kwargs)
        if not loss.reduces(bound):
            with _paused(members):
                losses = function(*args, **kwargs)
                for member in members:
                    member.note_unreduced(loss, bound, losses)
            return losses
        name = loss.call_name(bound)
        owner = next((member for member in members if member.owns_next(name)), None)
        others = [member for member in members if member is not owner]
        with _paused(others):
            for other in others:
                other.pass_by(name)
            if owner is None:  # of no samples that are read; or of a kind never met, which no weights may enter
                return function(*args, **kwargs)
            return owner.loss(loss, function, args, kwargs)

    def reduction(self, where: Hashable, ending: Reduction, given: Tensor, value: Tensor) -> Tensor:
        """Show all recorders a mean or a sum to one number; the one whose term it is may weigh it."""
        for member in self.members:
            value = member.reduction(where, ending, given, value)
        return value


def _paused(recorders: Iterable[Recorder]) -> ExitStack:
    stack = ExitStack()
    for recorder in recorders:
        stack.enter_context(recorder.paused())
    return stack
