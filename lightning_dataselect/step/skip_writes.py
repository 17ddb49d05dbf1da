"""Run a step, but skip its writes to some tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class UnskippableWriteError(Exception):
    """An operator writes to a tensor that must not change, and also computes something else."""


class SkipWrites(TorchDispatchMode):
    """Skip every operator that writes to given tensors, or to tensors that share their memory.

    This runs a step that updates weights directly, such as a moving average or a clipped critic, without an effect on
    them. Writes outside of torch, and by code that gathers sharded weights, are not noticed.

    Args:
        tensors: The tensors that must not change.

    Raises:
        UnskippableWriteError: Inside, at an operator that returns more than the tensors it has written to.

    Example:
        >>> import torch
        >>> weight = torch.ones(2)
        >>> with SkipWrites([weight]):
        ...     clipped, other = weight.view(2, 1).clamp_(max=0.5), torch.ones(2).mul_(3)
        >>> weight.tolist(), other.tolist()
        ([1.0, 1.0], [3.0, 3.0])
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._tensors = list(tensors)  # kept alive, so that ids stay unique
        self._ids = {id(tensor) for tensor in self._tensors}
        self._storages = {storage_of(tensor) for tensor in self._tensors} - {None}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call an operator, unless it would write to one of the tensors."""
        kwargs = kwargs or {}
        if not func._schema.is_mutable or func.namespace != "aten":
            return func(*args, **kwargs)
        written = [value for value in _written(func, args, kwargs) if value is not None]
        if not any(self._stays(tensor) for value in written for tensor in _listed(value)):
            return func(*args, **kwargs)
        returned = func._schema.returns
        if any(value.alias_info is None or not value.alias_info.is_write for value in returned):
            raise UnskippableWriteError(func)
        return None if not returned else written[0] if len(returned) == 1 else tuple(written)

    def _stays(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and (id(tensor) in self._ids or storage_of(tensor) in self._storages)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    for n, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[n] if n < len(args) else kwargs.get(argument.name)


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def storage_of(tensor: Tensor) -> int | None:
    """Return an identifier of a tensor's memory, valid as long as the tensor exists; None if it has none."""
    try:
        # not its address: sharded weights free their memory in between, and others get it
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a subclass that wraps other tensors
        return None
