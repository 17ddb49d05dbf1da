"""The key of a selector's state in a checkpoint, by which a class in the place of a selector is told, too."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from lightning_dataselect.utils.errors import ClassGivenError


class StateKey(cached_property[str]):
    """Make the key of a selector; refuse its class, of which the Trainer asks it first of all.

    Example:
        >>> class Mine:
        ...     @StateKey
        ...     def state_key(self):
        ...         return "mine"
        >>> Mine().state_key, hasattr(Mine, "state_key")
        ('mine', False)
    """

    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Any:
        if instance is None and owner is not None:
            raise ClassGivenError(
                f"callbacks=[{owner.__name__}] holds the class, and no selector made of it: write"
                f" callbacks=[{owner.__name__}()], with its arguments in the parentheses."
            )
        return super().__get__(instance, owner)
