"""Hand every loss function, mean and sum of a step to the recorder, by a mode that sees every torch call."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Hashable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_dataselect.capture.loss.reductions import ENDINGS, FOLDING, Reduction, axes_of_fold, ends
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.recording.interception import Interceptors, site
from lightning_dataselect.capture.recording.picks import Pick, Picks, tensors_among
from lightning_dataselect.capture.recording.recorder import Recorder


def compiler_in_use() -> bool:
    """Tell if some code may be compiled; importing the compiler needlessly would take seconds."""
    return "torch._dynamo" in sys.modules


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Let no compiled code run: a mode cannot look into it."""
    return torch.compiler.set_stance("force_eager") if compiler_in_use() else contextlib.nullcontext()


def is_compiled(frame: FrameType | None) -> bool:
    """Tell if a frame belongs to code that is compiled, but for a probe."""
    while compiler_in_use() and frame is not None:
        if frame.f_globals.get("__name__") == "torch._dynamo.eval_frame":
            return True
        frame = frame.f_back
    return False


def caller_of(frame: FrameType | None, func: Any) -> FrameType:
    """Return the frame that has called a function of torch's which is written in Python, or which is not."""
    own = getattr(func, "__code__", None)
    inside = ("torch.overrides", "torch._tensor", "torch.functional", __name__)
    while frame is not None and (frame.f_globals.get("__name__") in inside or frame.f_code is own):
        frame = frame.f_back
    assert frame is not None
    return frame


def _user(frame: FrameType) -> FrameType:
    """Return the frame that has called a function, where another mode has handed it on."""
    while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
        frame = frame.f_back
    return frame


class Watch(TorchFunctionMode):
    """Hand every loss function and every mean or sum of a step to the recorder.

    Costs some microseconds for each torch call, so it stays only where no patch sees the call.
    """

    def __init__(self, recorder: Recorder, interceptors: Interceptors) -> None:
        super().__init__()
        self.recorder = recorder
        self._known, self._takes = interceptors.known, interceptors.recorder
        self._picks = Picks(recorder.batch_size)

    def __enter__(self) -> Watch:
        """Begin a step."""
        self._picks = Picks(self.recorder.batch_size)
        super().__enter__()
        return self

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call the function, or its interceptor."""
        kwargs = kwargs or {}
        if not self.recorder.listens():
            return func(*args, **kwargs)
        if func in self._known:  # by its interceptor, where it names itself while that is installed
            return self.loss(self._known[func][1], args, kwargs)
        args = self.given(func, args)
        out = func(*args, **kwargs)
        if func in ENDINGS and ends(args, kwargs, out):
            where = None if torch.compiler.is_dynamo_compiling() else site(caller_of(sys._getframe(1), func), func)
            out = self.reduction(func, where, args, kwargs, out)
        elif torch.compiler.is_dynamo_compiling():
            pass  # compiled code has no place by which to recognise what follows
        elif func in FOLDING and (axes := axes_of_fold(args, kwargs, self.recorder.batch_size)) is not None:
            ending = ENDINGS[func]
            out = self.fold(func, site(_user(sys._getframe(1)), func), ending, ending.given(args, kwargs), out, axes)
        elif (pick := self._picks.find(func, args, kwargs, out)) is not None:
            self.follow(self.recorder.pick(site(_user(sys._getframe(1)), func), pick), pick, out)
        self.note(func, args, kwargs, out)
        return self.answer(func, args, out)

    def loss(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Take a loss function that no patch has seen."""
        return self._takes.loss(self._known[func][0], func, args, kwargs)

    def reduction(self, func: Any, where: Hashable, args: tuple[Any, ...], kwargs: Any, out: Tensor) -> Tensor:
        """Take a mean or a sum to one number."""
        ending = ENDINGS[func]
        given = ending.given(args, kwargs)
        if args and given is not args[0]:  # of a dot product: the step might as well have multiplied and summed
            self.note(torch.mul, tuple(tensors_among([*args, *kwargs.values()])), {}, given)
        return self.recorder.reduction(where, ending, given, out)

    def fold(
        self, func: Any, where: Hashable, ending: Reduction, given: Tensor, out: Tensor, axes: Sequence[int]
    ) -> Tensor:
        """Take a mean or a sum over the samples that leaves another axis."""
        return self.recorder.fold(where, ending, given, out, axes)

    def follow(self, where: Key, pick: Pick, out: Any) -> None:
        """Take what an index, or a mask, has picked."""

    def note(self, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
        """Take any other result."""

    def given(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what a call is made with."""
        return args

    def answer(self, func: Any, args: tuple[Any, ...], out: Any) -> Any:
        """Return what the step gets as the result of a call."""
        return out
