"""Intercept the functions that make a loss while a step runs, for a recorder."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_dataselect.capture.loss.folds import Folded
from lightning_dataselect.capture.loss.loss_functions import LOSSES, REGISTERED, Loss
from lightning_dataselect.capture.loss.reductions import ENDINGS, FOLDING, Reduction, axes_of_fold, ends
from lightning_dataselect.capture.loss.terms import Term, site_of
from lightning_dataselect.capture.recording.patches import Patches
from lightning_dataselect.capture.recording.recorder import Recorder
from lightning_dataselect.capture.recording.shared import SharedRecorder


def site(frame: FrameType, function: Any) -> Hashable:
    """Return the line of code that a frame is at, and what it calls.

    Not the offset: CPython 3.11 calls C and Python at other ones.

    Strings and numbers alone: torch 2.6 compiles the keys of a dict into its guards by what they print.
    """
    code = frame.f_code
    return code.co_filename, code.co_name, frame.f_lineno, function.__name__


def intercept_loss(recorder: Recorder | SharedRecorder, loss: Loss, function: Callable[..., Tensor]) -> Any:
    """Wrap one function of `torch.nn.functional`."""

    def intercepted(*args: Any, **kwargs: Any) -> Tensor:
        if not recorder.listens():
            return function(*args, **kwargs)
        if recorder.observer is None:
            return recorder.loss(loss, function, args, kwargs)
        with torch._C.DisableTorchFunction():  # torch hands l1_loss on to a mode without its weight
            value = recorder.loss(loss, function, args, kwargs)
            recorder.observer.meet_loss(function, [*args, *kwargs.values()], value)
        return value

    return intercepted


def intercept_reduction(
    recorder: Recorder | SharedRecorder, sites: set[Hashable], function: Callable[..., Tensor]
) -> Any:
    """Wrap a mean or a sum; only calls from the sites count."""
    ending: Reduction = ENDINGS[function]

    def intercepted(*args: Any, **kwargs: Any) -> Tensor:
        value = function(*args, **kwargs)
        if torch.compiler.is_dynamo_compiling():
            return value  # a compiled call has no frame to know it by
        if not recorder.listens():
            return value
        if ends(args, kwargs, value):
            where = site(sys._getframe(1), function)
            if where in sites:
                return recorder.reduction(where, ending, ending.given(args, kwargs), value)
        elif function in FOLDING:
            for member in recorder.members:
                axes = axes_of_fold(args, kwargs, member.batch_size)
                if axes is not None and (where := site(sys._getframe(1), function)) in sites:
                    value = member.fold(where, ending, ending.given(args, kwargs), value, axes)
        return value

    return intercepted


def _names_of(function: Callable[..., Any], module: nn.Module | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where a function can be called by name: modules that hold or have imported it, and attributes."""
    spaces = [function.__globals__, *(vars(found) for found in list(sys.modules.values()) if found is not None)]
    spaces += [] if module is None else [vars(part) for part in module.modules()]
    seen: set[int] = set()
    for space in spaces:
        if id(space) not in seen:
            seen.add(id(space))
            yield from [(space, name) for name, value in list(space.items()) if value is function]


class Interceptors:
    """Hold the patches of a recorder: every loss function, and what its probes have found besides.

    Attributes:
        recorder: Takes the calls; where several captures read the same steps, a shared one.
        losses: The patches of loss functions.
        reductions: The patches of the means and sums that end hand-written losses.
        known: Loss function, or interceptor of one -> how it reduces, and the function.
        originals: Interceptor of a mean or a sum -> what it stands for.
    """

    def __init__(self, recorder: Recorder | SharedRecorder, module: nn.Module | None = None) -> None:
        self.recorder = recorder
        self.losses, self.reductions = Patches(), Patches()
        self.known: dict[Any, tuple[Loss, Any]] = {}
        self.originals: dict[Any, Any] = {}
        self._interceptor_of: dict[Any, Any] = {}
        self._sites: dict[Any, set[Hashable]] = {}
        for loss in LOSSES:
            function = getattr(F, loss.name)
            new = intercept_loss(recorder, loss, function)
            self.known[function] = self.known[new] = loss, function
            self._interceptor_of[function] = new
            self.losses.add(vars(F), loss.name, new)
        for function, loss in REGISTERED.items():
            new = intercept_loss(recorder, loss, function)
            for space, name in _names_of(function, module):
                self.losses.add(space, name, new)

    def original(self, value: Any) -> Any:
        """Return a mean or a sum as it was before it was intercepted; anything else as it is."""
        return next((function for new, function in self.originals.items() if value is new), value)

    def add_name(self, space: dict[str, Any], name: str) -> None:
        """Intercept a loss function under a further name in this namespace."""
        self.losses.add(space, name, self._interceptor_of[space[name]])

    def add_sites_of(self, term: Term, recorder: Recorder, functions: Mapping[Hashable, Any]) -> None:
        """Intercept the means and sums that a term was made by.

        Args:
            term: Of a probe.
            recorder: Has met it.
            functions: Place -> the mean or sum that was called there.
        """
        divisors = [place for place, _ in recorder.spec.of(term.key).places()]
        own = term.fold.where if isinstance(term, Folded) else site_of(term.key)
        for where in (own, *divisors, recorder.joined.get(term.key)):
            if where in functions:
                self.add_site(functions[where], where)

    def add_site(self, function: Any, where: Hashable) -> None:
        """Intercept a mean or a sum where it is called from this place."""
        if function not in self._sites:
            sites: set[Hashable] = set()
            self._sites[function] = sites
            new = intercept_reduction(self.recorder, sites, function)
            self.originals[new] = function
            name: str = function.__name__
            if vars(torch).get(name) is function:
                self.reductions.add(vars(torch), name, new)
            else:
                self.reductions.add_method(name, new)
                if name == "matmul":
                    self.reductions.add_method("__matmul__", new)
        self._sites[function].add(where)


def bypassing(interceptors: Interceptors, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that it finds torch's own means and sums in their places (see `LossCapture.bypass`)."""

    @torch.compiler.disable
    def suspended(*args: Any, **kwargs: Any) -> Any:
        with interceptors.reductions.suspended():
            given = {name: interceptors.original(value) for name, value in kwargs.items()}
            return function(*args, **given)

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        # in a short step, the wrapper of a function that a compiler leaves alone costs more than logging a number
        if torch.compiler.is_dynamo_compiling() or interceptors.originals:
            return suspended(*args, **kwargs)
        return function(*args, **kwargs)

    return plain
