"""The key of a selector's state in a checkpoint, the first thing that a Trainer asks of what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, overload

from lightning_dataselect.utils.errors import ClassGivenError, MethodDefinitionError


def class_given(name: str) -> ClassGivenError:
    """Return the error that says that a class, ``name``, stands among the callbacks."""
    return ClassGivenError(
        f"callbacks=[{name}] holds the class, not an instance of it: write callbacks=[{name}()], with its arguments in"
        " the parentheses."
    )


class _OwnKey(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other or (not isinstance(other, _OwnKey) and str.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other


class StateKey:
    """Make the key of a selector, the first thing that a Trainer asks for: refuse a class, and one half made.

    Example:
        >>> class Mine:
        ...     def __init__(self):
        ...         self.run_state = None
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
            raise class_given(owner.__name__)
        if "run_state" not in vars(instance):
            name = type(instance).__name__
            raise MethodDefinitionError(
                f"{name}.__init__ does not call that of its base class. Let it take the common arguments and pass them"
                f" on: def __init__(self, *, ..., **common) with super().__init__(**common) as its first line."
            )
        return unlike_others(self._make(instance))


def unlike_others(key: str) -> str:
    """Return a key that equals the same text in a checkpoint, and no key that another selector has.

    A Trainer refuses two callbacks of one key, in words about keys, before anybody else can say what is wrong with two
    selectors.

    Example:
        >>> unlike_others("mine") == "mine", unlike_others("mine") == unlike_others("mine")
        (True, False)
        >>> {"mine": 1}[unlike_others("mine")]
        1
    """
    return _OwnKey(key)


def keep_state_key(instance: object, key: str) -> None:
    """Let ``key`` be that of ``instance`` from here on, without a call: Lightning asks for it at every hook."""
    vars(instance)["state_key"] = unlike_others(key)


def forget_state_key(instance: object) -> None:
    """Make the key of ``instance`` anew each time again, so that a selector that is listed twice is found."""
    vars(instance).pop("state_key", None)
