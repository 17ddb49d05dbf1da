"""Find the names by which a step calls functions, so that these can be patched."""

from __future__ import annotations

from types import FrameType
from typing import Any

from torch import nn


class Names:
    """Collect the names by which functions were called, in the namespaces of their callers and of a module's parts.

    Args:
        module: Its parts may hold functions as attributes; None if there is none.

    Attributes:
        found: The namespaces, each with a name in it.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self._module = module
        self.found: list[tuple[dict[str, Any], str]] = []

    def find(self, function: Any, caller: FrameType) -> bool:
        """Look for the name by which a frame has called a function; tell if there is one."""
        spaces = [caller.f_globals]
        if self._module is not None:
            spaces += [vars(part) for part in self._module.modules()]
        found = [(space, name) for space in spaces for name in caller.f_code.co_names if space.get(name) is function]
        self.found += [pair for pair in found if not any(_are_same(pair, old) for old in self.found)]
        return bool(found)


def _are_same(a: tuple[dict[str, Any], str], b: tuple[dict[str, Any], str]) -> bool:
    return a[0] is b[0] and a[1] == b[1]
