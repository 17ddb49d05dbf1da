"""The key of a selector's state in a checkpoint, the first thing that a Trainer asks of what it is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NoReturn, overload

from lightning_dataselect.utils.errors import ClassGivenError

_count = itertools.count()


class StateKey:
    """Make the key of a selector; refuse its class, of which the Trainer asks it first of all.

    Example:
        >>> class Mine:
        ...     @StateKey
        ...     def state_key(self):
        ...         return "mine"
        >>> Mine().state_key, hasattr(Mine, "state_key")
        ('mine', False)
    """

    def __init__(self, make: Callable[[Any], str]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> NoReturn: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> str: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> str:
        if instance is None and owner is not None:
            raise ClassGivenError(
                f"callbacks=[{owner.__name__}] holds the class, and no selector made of it: write"
                f" callbacks=[{owner.__name__}()], with its arguments in the parentheses."
            )
        return self._make(instance)


def unlike_others(key: str) -> str:
    """Return a key that no other selector has, nor the same one the next time.

    A Trainer refuses two callbacks of one key, in words about keys, before anybody else can say what is wrong with two
    selectors. As long as there is nothing to save, none need have the same one.

    Example:
        >>> unlike_others("mine") == unlike_others("mine")
        False
    """
    return f"{key} (before setup, {next(_count)})"


def keep_state_key(instance: object, key: str) -> None:
    """Let ``key`` be that of ``instance`` from here on, without a call: Lightning asks for it at every hook."""
    vars(instance)["state_key"] = key
