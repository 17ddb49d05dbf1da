"""Mark the methods of a base class that a method of selection must define, where only some kinds of it call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def left_open(function: _Function) -> _Function:
    """Mark a function as one that a subclass must define if it is ever called.

    An abstract method would have to be defined by all of them.

    Example:
        >>> class Base:
        ...     @left_open
        ...     def select(self): ...
        >>> class Mine(Base):
        ...     def select(self): ...
        >>> is_left_open(Base.select), is_left_open(Mine.select)
        (True, False)
    """
    vars(function)["is_left_open"] = True
    return function


def is_left_open(function: object) -> bool:
    """Tell if a function was marked by :func:`left_open`."""
    return getattr(function, "is_left_open", False)
