"""Attributes of a callback that last as long as a fit."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class FitLocal(Generic[T]):
    """Declare an attribute that belongs to the current fit: hooks, buffers, threads.

    Before and after a fit it has its default value. Copies and pickles of the callback, which libraries make in the
    middle of a fit, do not contain it. Once set, it is an attribute like any other.

    Args:
        default: The value outside a fit, immutable.

    Example:
        >>> class Counting:
        ...     seen = FitLocal(0)
        >>> counting = Counting()
        >>> counting.seen += 1
        >>> counting.seen, without_fit_locals(counting)
        (1, {})
        >>> drop_fit_locals(counting)
        >>> counting.seen
        0
    """

    def __init__(self, default: T) -> None:
        self._default = default

    @overload
    def __get__(self, instance: None, owner: type) -> FitLocal[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> FitLocal[T] | T:
        return self if instance is None else self._default


def drop_fit_locals(instance: object) -> None:
    """Reset every such attribute of ``instance`` to its default."""
    for name in _declared(type(instance)):
        instance.__dict__.pop(name, None)


def without_fit_locals(instance: object) -> dict[str, Any]:
    """Return the attributes of ``instance`` as they are outside a fit."""
    declared = _declared(type(instance))
    return {name: value for name, value in instance.__dict__.items() if name not in declared}


def _declared(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, FitLocal)}
