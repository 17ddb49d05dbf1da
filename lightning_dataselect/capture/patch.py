"""Interceptors, and where they are installed for the time of a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_dataselect.capture.losses import LOSSES, REGISTERED, Loss
from lightning_dataselect.capture.recorder import Recorder
from lightning_dataselect.capture.reductions import ENDINGS, Reduction, ends


def site(frame: FrameType, function: Any) -> Hashable:
    """The line of code that a frame is at, and what it calls; CPython 3.11 calls C and Python at other offsets.

    Strings and numbers alone: torch 2.6 compiles the keys of a dict into its guards by what they print.
    """
    code = frame.f_code
    return code.co_filename, code.co_name, frame.f_lineno, function.__name__


def intercept_loss(recorder: Recorder, loss: Loss, function: Callable[..., Tensor]) -> Any:
    """Wrap one function of `torch.nn.functional`."""

    def intercepted(*args: Any, **kwargs: Any) -> Tensor:
        if not recorder.listens():
            return function(*args, **kwargs)
        if recorder.observer is None:
            return recorder.loss(loss, function, args, kwargs)
        with torch._C.DisableTorchFunction():  # torch hands l1_loss on to a mode without its weight
            return recorder.loss(loss, function, args, kwargs)

    return intercepted


def intercept_reduction(recorder: Recorder, sites: set[Hashable], function: Callable[..., Tensor]) -> Any:
    """Wrap a mean or a sum; only calls from the sites count."""
    ending: Reduction = ENDINGS[function]

    def intercepted(*args: Any, **kwargs: Any) -> Tensor:
        value = function(*args, **kwargs)
        if torch.compiler.is_dynamo_compiling():
            return value  # a compiled call has no frame to know it by
        given = args[0] if args else kwargs["input"]
        if ends(given, value) and recorder.listens():
            where = site(sys._getframe(1), function)
            if where in sites:
                return recorder.reduction(where, ending, given, value)
        return value

    return intercepted


class Patches:
    """Names that stand for something else inside a ``with`` block.

    Example:
        >>> names = {"pi": 3.14159}
        >>> with Patches([(names, "pi", 3)]):
        ...     names["pi"]
        3
        >>> names["pi"]
        3.14159
    """

    def __init__(self, names: list[tuple[dict[str, Any], str, Any]] | None = None) -> None:
        self._spaces: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._methods: dict[str, Any] = {}  # of torch.Tensor, whose namespace is read-only
        self._saved: list[dict[str, Any]] = []
        self._saved_methods: dict[str, Any] = {}
        for space, name, new in names or []:
            self.add(space, name, new)

    def add(self, space: dict[str, Any], name: str, new: Any) -> None:
        """Let a name in a namespace stand for something else from the next time on."""
        for known, names in self._spaces:
            if known is space:
                names[name] = new
                return
        self._spaces.append((space, {name: new}))

    def add_method(self, name: str, new: Any) -> None:
        """Let a method of `torch.Tensor` be another one."""
        self._methods[name] = new

    def __enter__(self) -> None:
        self._saved = [{name: space[name] for name in new} for space, new in self._spaces]
        for space, new in self._spaces:
            space.update(new)
        if self._methods:
            self._saved_methods = {m: vars(torch.Tensor).get(m) for m in self._methods}
            for name, method in self._methods.items():
                setattr(torch.Tensor, name, method)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for (space, _), old in zip(self._spaces, self._saved, strict=True):
            space.update(old)
        for name, method in self._saved_methods.items():
            if method is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, method)
        self._saved, self._saved_methods = [], {}

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the names stand for what they are inside a ``with`` block.

        Example:
            >>> names = {"pi": 3.14159}
            >>> patches = Patches([(names, "pi", 3)])
            >>> with patches, patches.suspended():
            ...     names["pi"]
            3.14159
        """
        installed = bool(self._saved or self._saved_methods)
        if installed:
            self.__exit__(None, None, None)
        try:
            yield
        finally:
            if installed:
                self.__enter__()


def _names_of(function: Callable[..., Any], module: nn.Module | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a function can be called from by name: modules that hold or have imported it, and attributes."""
    spaces = [function.__globals__, *(vars(found) for found in list(sys.modules.values()) if found is not None)]
    spaces += [] if module is None else [vars(part) for part in module.modules()]
    seen: set[int] = set()
    for space in spaces:
        if id(space) not in seen:
            seen.add(id(space))
            yield from [(space, name) for name, value in list(space.items()) if value is function]


class Interceptors:
    """What one recorder hangs up: every loss function, and what its probes have found besides.

    Attributes:
        losses: the patches of loss functions.
        reductions: the patches of the means and sums that end hand-written losses.
        known: loss function, or interceptor of one -> how it reduces, and the function.
        originals: interceptor of a mean or a sum -> what it stands for.
    """

    def __init__(self, recorder: Recorder, module: nn.Module | None = None) -> None:
        self.losses, self.reductions = Patches(), Patches()
        self.known: dict[Any, tuple[Loss, Any]] = {}
        self.originals: dict[Any, Any] = {}
        self._recorder = recorder
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
        """What a mean or a sum was before it was intercepted; anything else as it is."""
        return next((function for new, function in self.originals.items() if value is new), value)

    def add_name(self, space: dict[str, Any], name: str) -> None:
        """Intercept a loss function that also goes by this name in this namespace."""
        self.losses.add(space, name, self._interceptor_of[space[name]])

    def add_site(self, function: Any, where: Hashable) -> None:
        """Intercept a mean or a sum that is called from this place."""
        if function not in self._sites:
            sites: set[Hashable] = set()
            self._sites[function] = sites
            new = intercept_reduction(self._recorder, sites, function)
            self.originals[new] = function
            name: str = function.__name__
            if vars(torch).get(name) is function:
                self.reductions.add(vars(torch), name, new)
            else:
                self.reductions.add_method(name, new)
        self._sites[function].add(where)
