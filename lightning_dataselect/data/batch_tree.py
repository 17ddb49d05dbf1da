"""The tensors of a batch, wherever they are in it."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Path = tuple[Hashable, ...]


def tensors_in(part: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield each tensor with its path, through mappings, dataclasses, named tuples and sequences.

    Example:
        >>> import torch
        >>> batch = {"x": torch.ones(2), "more": ["a", torch.zeros(1)]}
        >>> list(tensors_in(batch))
        [(('x',), tensor([1., 1.])), (('more', 1), tensor([0.]))]
        >>> part_at(batch, ("more", 1))
        tensor([0.])
    """
    if isinstance(part, Tensor):
        yield path, part
        return
    for key in _keys(part):
        yield from tensors_in(_child(part, key), (*path, key))


def leaves_in(part: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each tensor, number, or other part that is not a container, and each sequence, with its path.

    Example:
        >>> list(leaves_in({"n": 3, "more": ["a"]}))
        [(('n',), 3), (('more',), ['a']), (('more', 0), 'a')]
    """
    keys = [] if isinstance(part, Tensor) else _keys(part)
    if not keys or (isinstance(part, Sequence) and not hasattr(part, "_fields")):
        yield path, part
    for key in keys:
        yield from leaves_in(_child(part, key), (*path, key))


def part_at(batch: Any, path: Path) -> Any:
    """Return the part of ``batch`` at ``path``."""
    for key in path:
        batch = _child(batch, key)
    return batch


def _keys(part: Any) -> list[Hashable]:
    if isinstance(part, Mapping):
        return list(part)
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return [field.name for field in dataclasses.fields(part)]
    if hasattr(part, "_fields"):
        return list(part._fields)
    return list(range(len(part))) if isinstance(part, Sequence) and not isinstance(part, str | bytes) else []


def _child(part: Any, key: Any) -> Any:
    return part[key] if isinstance(part, Mapping) or isinstance(key, int) else getattr(part, key)


def mapping_like(part: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """Return a mapping of the same kind as ``part`` and with the same attributes, but with other ``values``.

    Example:
        >>> mapping_like(UserDict(a=1), {"a": 2})
        {'a': 2}
    """
    if type(part) is dict:
        return values
    if not isinstance(part, dict | UserDict):
        return type(part)(values)  # type: ignore[call-arg]
    other = copy.copy(part)
    for key, value in values.items():
        other[key] = value
    return other


def with_fields(part: Any, values: dict[str, Any]) -> Any:
    """Return a copy of the dataclass ``part`` with other ``values`` in its fields."""
    # not dataclasses.replace: that would call __init__ and __post_init__ again
    other = copy.copy(part)
    for name, value in values.items():
        object.__setattr__(other, name, value)
    return other


def bytes_of(part: Tensor) -> bytes:
    """Return the entries of a tensor on the CPU as bytes, whatever its strides.

    Example:
        >>> column = torch.arange(6, dtype=torch.int64).reshape(2, 3)[:1, 1]
        >>> bytes_of(column) == bytes_of(torch.tensor([1]))
        True
    """
    # a tensor with one entry counts as contiguous whatever its stride, but can then not be viewed as bytes
    return part.new_empty(part.numel()).copy_(part.reshape(-1)).view(torch.uint8).numpy().tobytes()
