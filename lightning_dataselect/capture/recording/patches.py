"""Rebind names for the length of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch


class Patches:
    """Rebind names inside a ``with`` block; a block within it changes nothing.

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
        self._saved: list[list[Any]] = []
        self._saved_methods: dict[str, Any] = {}
        self._depth = 0
        for space, name, new in names or []:
            self.add(space, name, new)

    def add(self, space: dict[str, Any], name: str, new: Any) -> None:
        """Rebind a name in a namespace from the next ``with`` block on."""
        for known, names in self._spaces:
            if known is space:
                names[name] = new
                return
        self._spaces.append((space, {name: new}))

    def add_method(self, name: str, new: Any) -> None:
        """Let a method of `torch.Tensor` be another one."""
        self._methods[name] = new

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        for space, new in self._spaces:
            self._saved.append(list(map(space.__getitem__, new)))
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
        self._depth -= 1
        if self._depth > 0:
            return
        while self._saved:
            space, new = self._spaces[len(self._saved) - 1]
            space.update(zip(new, self._saved.pop(), strict=False))  # names may have come after those that were saved
        while self._saved_methods:
            name, method = self._saved_methods.popitem()
            if method is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, method)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Restore the names inside a ``with`` block.

        Example:
            >>> names = {"pi": 3.14159}
            >>> patches = Patches([(names, "pi", 3)])
            >>> with patches:
            ...     with patches.suspended():
            ...         names["pi"]
            ...     names["pi"]
            3.14159
            3
        """
        installed, depth = bool(self._saved or self._saved_methods), self._depth
        if installed:
            self._depth = 1
            self.__exit__(None, None, None)
        try:
            yield
        finally:
            if installed:
                self.__enter__()
                self._depth = depth
