"""Notice that processes communicate within a step, which all of them must then run at once."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_COLLECTIVES = {"c10d", "_c10d_functional"}


class Communication(TorchDispatchMode):
    """Notice collective operations inside a ``with`` block.

    Example:
        >>> import torch
        >>> with Communication() as communication:
        ...     _ = torch.ones(2).sum()
        >>> communication.was_met
        False
    """

    def __init__(self) -> None:
        super().__init__()
        self.was_met = False
        """True once processes have communicated."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call an operator."""
        self.was_met |= func.namespace in _COLLECTIVES
        return func(*args, **(kwargs or {}))
