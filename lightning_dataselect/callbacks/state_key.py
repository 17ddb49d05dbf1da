"""The key of a selector's state in a checkpoint, which is the first thing that a Trainer asks a callback for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, overload

from lightning_dataselect.utils.errors import ClassGivenError, MethodDefinitionError


def class_given(name: str) -> ClassGivenError:
    """Return the error which says that the class ``name`` is in the list of callbacks."""
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
    """Make the key of a selector when a Trainer first asks for it; refuse a class and a half-initialized instance.

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
    """Return a key that equals the same text in a checkpoint, but no other selector's key.

    A Trainer refuses two callbacks with the same key, with an error about keys, before anything else can say what is
    wrong with two selectors.

    Example:
        >>> unlike_others("mine") == "mine", unlike_others("mine") == unlike_others("mine")
        (True, False)
        >>> {"mine": 1}[unlike_others("mine")]
        1
    """
    return _OwnKey(key)


def keep_state_key(instance: object, key: str) -> None:
    """Store ``key`` on ``instance``, so that no call is needed: Lightning asks for it at every hook."""
    vars(instance)["state_key"] = unlike_others(key)


def forget_state_key(instance: object) -> None:
    """Compute the key of ``instance`` on each access again, so that a selector that is listed twice is noticed."""
    vars(instance).pop("state_key", None)
