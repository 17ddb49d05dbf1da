"""A loader whose batches pass through a function, in the main process, before they are trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from lightning_dataselect.data.mixed_in import mix_in


class _FilteredLoader(DataLoader[Any]):
    _pass_on: Callable[[Iterator[Any]], Iterator[Any]]

    def __iter__(self) -> Any:
        return self._pass_on(super().__iter__())


class _FilteredIterable:
    def __init__(self, batches: Any, pass_on: Callable[[Iterator[Any]], Iterator[Any]]) -> None:
        self._batches = batches
        self._pass_on = pass_on

    def __iter__(self) -> Iterator[Any]:
        return self._pass_on(iter(self._batches))

    def __len__(self) -> int:
        return len(self._batches)


class _StatefulFilteredIterable(_FilteredIterable):
    def state_dict(self) -> Any:
        return self._batches.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._batches.load_state_dict(state)


def has_state(loader: Any) -> bool:
    """Return whether a loader saves its position, and can be put there."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def pass_first_through(loader: Any, look: Callable[[Iterator[Any]], Iterator[Any]]) -> Any:
    """Have batches pass through ``look`` before any function that `filter_batches` has given their ``loader``.

    Returns:
        The loader; a copy that passes them through ``look`` alone if it is none of `filter_batches`.
    """
    if not isinstance(loader, _FilteredLoader | _FilteredIterable):
        return filter_batches(loader, look)
    pass_on = loader._pass_on
    loader.__dict__["_pass_on"] = lambda batches: pass_on(look(batches))
    return loader


def filter_batches(
    loader: Any, pass_on: Callable[[Iterator[Any]], Iterator[Any]], dataset: IterableDataset[Any] | None = None
) -> Any:
    """Return a copy of ``loader``, with its class and attributes, whose iterators pass through ``pass_on``.

    A loader that is not a DataLoader, such as WebDataset's, is not copied but read from.

    Args:
        loader: Yields batches.
        pass_on: Given the iterator of a pass, returns the one to read instead.
        dataset: Read instead of a DataLoader's own data set; None for its own.

    Example:
        >>> [float(batch) for batch in filter_batches(DataLoader([1.0, 2.0]), lambda batches: (b + 1 for b in batches))]
        [2.0, 3.0]
    """
    if not isinstance(loader, DataLoader):
        return (_StatefulFilteredIterable if has_state(loader) else _FilteredIterable)(loader, pass_on)
    copied = copy.copy(loader)
    mix_in(_FilteredLoader, copied)
    copied.__dict__["_pass_on"] = pass_on
    if dataset is not None:
        copied.__dict__["dataset"] = dataset  # a DataLoader does not allow setting it
    return copied
