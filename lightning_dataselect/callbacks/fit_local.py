"""Attributes of a callback that last as long as a fit."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
_SPACE = "fit_locals"


class FitLocal(Generic[T]):
    """Declare an attribute that belongs to the fit under way: hooks, buffers, threads.

    Before and after a fit it has its default, and copies and pickles of the callback are made without it: libraries
    make them in the middle of a fit.

    Args:
        default: The value outside a fit, immutable.

    Example:
        >>> class Counting:
        ...     seen = FitLocal(0)
        >>> counting = Counting()
        >>> counting.seen += 1
        >>> counting.seen, without_fit_locals(counting.__dict__)
        (1, {})
    """

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> FitLocal[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> FitLocal[T] | T:
        if instance is None:
            return self
        space: dict[str, T] = instance.__dict__.get(_SPACE, {})
        return space.get(self._name, self._default)

    def __set__(self, instance: object, value: T) -> None:
        instance.__dict__.setdefault(_SPACE, {})[self._name] = value


def drop_fit_locals(instance: object) -> None:
    """Give every such attribute of ``instance`` its default back."""
    instance.__dict__.pop(_SPACE, None)


def without_fit_locals(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return an instance's ``attributes`` as they are outside a fit."""
    return {name: value for name, value in attributes.items() if name != _SPACE}
