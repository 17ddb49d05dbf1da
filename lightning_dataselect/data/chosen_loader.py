"""The train loader that samples are selected from, alone or one of several, and its part of their common batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_flatten

from lightning_dataselect.data.batch_tree import tensors_in
from lightning_dataselect.utils.arguments import short_text
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, UnsupportedLoaderError

LoaderName = str | int
"""The key, or the position in a list, of one of several train loaders."""


@dataclass(frozen=True)
class BatchPart:
    """Find the batch of one loader in what a training step receives from several.

    Attributes:
        name: Name of the loader.

    Example:
        >>> import torch
        >>> part, batch = BatchPart("labelled"), {"labelled": torch.ones(2), "unlabelled": torch.zeros(3)}
        >>> part.of(batch)
        tensor([1., 1.])
        >>> part.replaced(batch, torch.ones(1))
        {'labelled': tensor([1.]), 'unlabelled': tensor([0., 0., 0.])}
        >>> part.tensors((batch,), {})
        ([tensor([1., 1.])], [tensor([0., 0., 0.])])
    """

    name: LoaderName

    def of(self, batch: Any) -> Any:
        """Return the loader's own batch, or None if it is exhausted.

        Raises:
            UnsupportedLoaderError: If a hook has changed the structure of the common batch.
        """
        if not _has(batch, self.name):
            raise UnsupportedLoaderError(
                f"loader={self.name!r} names a train loader, but training_step gets a {type(batch).__name__} without"
                " a part of that name. Let the hooks that pass the batch on keep the list or dict that it comes in."
            )
        return batch[self.name]

    def replaced(self, batch: Any, part: Any) -> Any:
        """Return the common batch with the loader's own part replaced."""
        if isinstance(batch, Mapping):
            changed: Any = copy.copy(batch)
            changed[self.name] = part
            return changed
        parts = [part if i == self.name else other for i, other in enumerate(batch)]
        if hasattr(batch, "_fields"):
            return type(batch)(*parts)
        return tuple(parts) if isinstance(batch, tuple) else parts

    def in_step(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the loader's own batch in the arguments of a training step."""
        return self.of(_common(args, kwargs))

    def tensors(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors of the loader's own batch, and those of the others, in the arguments of a step."""
        batch = _common(args, kwargs)
        own = [tensor for _, tensor in tensors_in(self.of(batch))]
        known = {id(tensor) for tensor in own}
        return own, [tensor for _, tensor in tensors_in(batch) if id(tensor) not in known]

    def present(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bool, ...]:
        """Return which loaders have a batch in this step: all of them, unless exhausted ones are left out."""
        batch = _common(args, kwargs)
        parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
        return tuple(part is not None for part in parts)


def _common(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _has(members: Any, name: LoaderName) -> bool:
    if isinstance(members, Mapping):
        return name in members
    return isinstance(members, list | tuple) and isinstance(name, int) and 0 <= name < len(members)


@dataclass(frozen=True)
class ChosenLoader:
    """The chosen loader, and its place among the loaders that the user trains on.

    Attributes:
        loader: The loader.
        members: All loaders, as they were given: the loader itself, or a list or mapping that contains it.
        path: Where it is among the members; ``()`` if it is the only thing that was given.
        part: Where its batch is in the common one; None if there is no other loader.
    """

    loader: Any
    members: Any
    path: tuple[Any, ...]
    part: BatchPart | None

    def replaced(self, loader: Any) -> Any:
        """Return the members with the chosen loader replaced."""
        return _replaced(self.members, self.path, loader)

    def others(self) -> list[Any]:
        """Return the other loaders."""
        return [leaf for i, leaf in enumerate(tree_flatten(self.members)[0]) if i != self.position()]

    def position(self) -> int:
        """Return its position among all loaders, in the order in which they are iterated."""
        mark = object()
        return next(i for i, leaf in enumerate(tree_flatten(self.replaced(mark))[0]) if leaf is mark)


def choose_loader(given: object, name: LoaderName | None, method: str) -> ChosenLoader:
    """Find the loader that samples are selected from.

    Args:
        given: A loader, or a list or mapping of them, or those in a ``CombinedLoader``.
        name: Name of one of several loaders.
        method: Name of the method, for messages.

    Raises:
        UnsupportedLoaderError: If there are several and none is named, or there is data instead of a loader.
        InvalidArgumentError: If none has this name.

    Example:
        >>> chosen = choose_loader({"a": "loader A", "b": "loader B"}, "b", "InfoBatch")
        >>> chosen.loader, chosen.replaced("another"), chosen.position()
        ('loader B', {'a': 'loader A', 'b': 'another'}, 1)
    """
    members = getattr(given, "iterables", given)
    leaves, _ = tree_flatten(members)
    if not leaves:
        raise UnsupportedLoaderError(f"No train loader was given, but an empty {type(given).__name__}: give one.")
    if none := [leaf for leaf in leaves if isinstance(leaf, Tensor | np.ndarray)]:
        held = "" if members is none[0] else f"a {type(given).__name__} that holds "
        raise UnsupportedLoaderError(
            f"The train loader is {held}{short_text(none[0])}, which Lightning takes for a loader by itself: give"
            " DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True), or another DataLoader."
        )
    if len(leaves) == 1 and name is None:
        path = next(_paths(members))
        return ChosenLoader(leaves[0], members, path, None)
    if not isinstance(members, Mapping | list | tuple):
        raise InvalidArgumentError(
            f"loader={name!r} names one of several train loaders, but there is one, a {type(members).__name__}. Leave"
            " loader out."
        )
    names = list(members) if isinstance(members, Mapping) else list(range(len(members)))
    known = ", ".join(map(repr, names))
    if name is None:
        raise UnsupportedLoaderError(
            f"{len(leaves)} train loaders were given ({type(given).__name__}: {known}), and {method} selects samples"
            f" from one of them. Say which: {method}(loader={names[0]!r})."
        )
    if not _has(members, name):
        raise InvalidArgumentError(
            f"loader={name!r} names no train loader: there are {known}. Say which of them {method} selects samples"
            f" from: {method}(loader={names[0]!r})."
        )
    if len(tree_flatten(members[name])[0]) != 1 or isinstance(members[name], Mapping | list | tuple):  # type: ignore[index]
        raise InvalidArgumentError(
            f"loader={name!r} is a {type(members[name]).__name__}, not one train loader: only the top level of a"  # type: ignore[index]
            " list or dict names loaders. Give them in one without further lists or dicts in it."
        )
    return ChosenLoader(members[name], members, (name,), BatchPart(name) if len(leaves) > 1 else None)  # type: ignore[index]


def _paths(members: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(members, Mapping | list | tuple):
        keys: Sequence[Any] = list(members) if isinstance(members, Mapping) else range(len(members))
        for key in keys:
            yield from ((key, *path) for path in _paths(members[key]))
    else:
        yield ()


def _replaced(members: Any, path: tuple[Any, ...], loader: Any) -> Any:
    if not path:
        return loader
    name, *rest = path
    return BatchPart(name).replaced(members, _replaced(members[name], tuple(rest), loader))


def check_loader_name(name: object) -> LoaderName | None:
    """Return ``name`` if it can name one of several loaders.

    Raises:
        ArgumentTypeError: If it cannot.

    Example:
        >>> check_loader_name(1.5)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.ArgumentTypeError: loader=1.5 must be the key of one of several train ...
    """
    if name is None or (isinstance(name, str | int) and not isinstance(name, bool)):
        return name
    raise ArgumentTypeError(
        f"loader={name!r} must be the key of one of several train loaders, or its position in their list."
    )
