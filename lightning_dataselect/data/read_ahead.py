"""Positions of a loader before batches that were read ahead of the training, which a resumed fit reads again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

_NOTHING = object()


class ReadAhead:
    """Have a loader save where it was before it read the first batch that is still to be trained on.

    Its own state would be its current position, past the batches that wait.

    Args:
        next_batch: Returns the index of that batch in its epoch.

    Example:
        >>> class Loader:
        ...     at = 0
        ...     def state_dict(self):
        ...         return {"at": self.at}
        ...     def __iter__(self):
        ...         while self.at < 4:
        ...             self.at += 1
        ...             yield self.at
        >>> loader, ahead = Loader(), ReadAhead(lambda: 0)
        >>> ahead.follow(loader)
        >>> batches = ahead.read(iter(loader))
        >>> [next(batches) for _ in range(3)], loader.state_dict()
        ([1, 2, 3], {'at': 0})
    """

    def __init__(self, next_batch: Callable[[], int]) -> None:
        self._next_batch = next_batch
        self._state_now: Callable[[], Any] | None = None
        self._before: dict[int, Any] = {}  # states of the loader before batches that are not trained on yet

    def follow(self, loader: Any) -> None:
        """Take over what ``loader`` saves, if it saves where it is."""
        if hasattr(loader, "state_dict"):
            self._state_now = functools.partial(type(loader).state_dict, loader)
            loader.__dict__["state_dict"] = self._state

    def read(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of an epoch, from the next one to be trained on."""
        self.forget()
        index = self._next_batch()
        while (batch := self.fetch(batches, index, _NOTHING)) is not _NOTHING:
            yield batch
            index += 1

    def fetch(self, batches: Iterator[Any], index: int, otherwise: Any) -> Any:
        """Return the next of ``batches``, the one at ``index`` in the epoch; ``otherwise`` if there is none."""
        if self._state_now is not None:
            self._before[index] = self._state_now()
        return next(batches, otherwise)

    def forget(self, before: int | None = None) -> None:
        """Forget the states before batches that are trained on, up to the batch ``before``; None for all."""
        self._before = {} if before is None else {i: state for i, state in self._before.items() if i >= before}

    def _state(self) -> Any:
        assert self._state_now is not None
        following = self._next_batch()
        return self._before[following] if following in self._before else self._state_now()
