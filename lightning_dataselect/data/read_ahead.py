"""Positions of a loader before batches that were read ahead of the training, which a resumed fit reads again."""

from __future__ import annotations

import copy
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
        self._load: Callable[[Any], None] | None = None
        self._loaded: Any = None  # state that the loader was put back to, and has not read from since
        self._before: dict[int, Any] = {}  # states of the loader before batches that are not trained on yet
        self._following = 0  # index of the batch that is read next
        self._is_cycled = False  # the loader has ended, its epoch has not: what begins it again goes on

    def follow(self, loader: Any) -> None:
        """Take over what ``loader`` saves, if it saves where it is, and what it is put back to."""
        if hasattr(loader, "state_dict"):
            self._state_now = functools.partial(type(loader).state_dict, loader)
            loader.__dict__["state_dict"] = self._state
        if hasattr(loader, "load_state_dict"):
            self._load = functools.partial(type(loader).load_state_dict, loader)
            loader.__dict__["load_state_dict"] = self._load_state

    def read(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of an epoch, from the next one to be trained on.

        A loader that ends before its epoch may be read again: its batches then follow those that it has yielded.
        """
        if not self._is_cycled:
            self.forget()
            self._following = self._next_batch()
        self._is_cycled = False
        while (batch := self.fetch(batches, self._following, _NOTHING)) is not _NOTHING:
            self._following += 1
            yield batch
        self._before.pop(self._following, None)  # no batch came: where the loader ended is where it is
        self._is_cycled = True

    def fetch(self, batches: Iterator[Any], index: int, otherwise: Any) -> Any:
        """Return the next of ``batches``, the one at ``index`` in the epoch; ``otherwise`` if there is none."""
        if self._state_now is not None:
            # litdata forgets what it was put back to when it is asked before it has read
            self._before[index] = self._state_now() if self._loaded is None else self._loaded
            self._loaded = None
        return next(batches, otherwise)

    def forget(self, before: int | None = None) -> None:
        """Forget the states before batches that are trained on, up to the batch ``before``; None for all."""
        self._is_cycled = self._is_cycled and before is not None
        self._before = {} if before is None else {i: state for i, state in self._before.items() if i >= before}

    def count_anew(self) -> None:
        """Take the batches that wait for the first ones of an epoch: the one that they were counted in has ended."""
        self._is_cycled = False
        moved = self._next_batch() - min(self._before, default=0)
        self._before = {i + moved: state for i, state in self._before.items()}
        self._following += moved

    def _state(self) -> Any:
        assert self._state_now is not None
        following = self._next_batch()
        return self._before[following] if following in self._before else self._state_now()

    def _load_state(self, state: Any) -> None:
        assert self._load is not None
        self._loaded = copy.deepcopy(state)
        self._load(state)
