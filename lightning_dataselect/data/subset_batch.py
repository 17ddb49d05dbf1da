"""Cut a batch to some of its samples, whatever it is made of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader

from lightning_dataselect.data.batch_layout import BatchLayout, is_number
from lightning_dataselect.data.batch_tree import Path, mapping_like, with_fields
from lightning_dataselect.data.chosen_loader import BatchPart
from lightning_dataselect.utils.errors import UnsupportedLoaderError

Number = Callable[[Path, Any], Any]


def _as_it_is(path: Path, value: Any) -> Any:
    return value


def subset_batch(
    batch: Any,
    positions: Tensor,
    batch_size: int,
    axes: dict[Path, int | None] | None = None,
    number: Number = _as_it_is,
) -> Any:
    """Return a batch of the samples at ``positions``, with the structure of ``batch``.

    Tensors and arrays whose first axis has ``batch_size`` entries are cut along it, and so are lists of one item per
    sample. Containers (tuples, named tuples, dicts, dataclasses, Hugging Face ``BatchEncoding``) are traversed, and
    anything without a sample axis is passed on. Lists and non-torch arrays are cut on the CPU, so they make a step wait
    for the device.

    Args:
        batch: what the loader yielded; it is not changed.
        positions: int64 (b,), on the device of the batch.
        batch_size: number of samples in ``batch``.
        axes: path -> the sample axis in earlier batches, None for none; updated here. It keeps a small last batch from
            being misread, such as one of 3 samples that are RGB images in a list.
        number: returns the replacement of a number of the whole batch, given its path (see `BatchLayout.numbers`).

    Raises:
        TypeError: if nothing in the batch has a sample axis.

    Example:
        >>> import torch
        >>> batch = {"x": torch.arange(6).view(3, 2), "name": ["a", "b", "c"], "scale": 2.0}
        >>> subset_batch(batch, torch.tensor([0, 2]), batch_size=3)
        {'x': tensor([[0, 1],
                [4, 5]]), 'name': ['a', 'c'], 'scale': 2.0}
    """
    cutter = _Cutter(positions, batch_size, {} if axes is None else axes, number)
    smaller = cutter.cut(batch, ())
    if not cutter.has_cut:
        raise UnsupportedLoaderError(
            f"No part of the batch ({type(batch).__name__}) has a first axis of {batch_size} samples, so it cannot be"
            " cut to the chosen ones. Let the loader yield tensors, or containers of tensors, with the samples along"
            " the first axis, or take a method that chooses before the epoch, such as InfoBatch."
        )
    return smaller


def subset_arguments(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    positions: Tensor,
    batch_size: int,
    axes: dict[Path, int | None] | None = None,
    number: Number = _as_it_is,
    part: BatchPart | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a training step with its batch cut: the first of them, by position or by name.

    Args:
        args: of the step.
        kwargs: of the step.
        positions: see `subset_batch`.
        batch_size: number of samples in the batch.
        axes: the sample axes in earlier batches.
        number: see `subset_batch`.
        part: with several loaders, where the chosen one's batch is; only that is cut.

    Raises:
        TypeError: if nothing in the batch has a sample axis.

    Example:
        >>> import torch
        >>> subset_arguments((), {"batch": torch.tensor([5, 6, 7]), "batch_idx": 0}, torch.tensor([1]), 3)
        ((), {'batch': tensor([6]), 'batch_idx': 0})
    """
    batch = args[0] if args else next(iter(kwargs.values()))
    smaller = subset_batch(batch if part is None else part.of(batch), positions, batch_size, axes, number)
    return with_batch(args, kwargs, smaller if part is None else part.replaced(batch, smaller))


def with_batch(args: tuple[Any, ...], kwargs: dict[str, Any], batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a training step with its batch replaced: the first of them, by position or by name.

    Example:
        >>> with_batch((), {"batch": 1, "batch_idx": 0}, 2)
        ((), {'batch': 2, 'batch_idx': 0})
    """
    return ((batch, *args[1:]), kwargs) if args else (args, {**kwargs, next(iter(kwargs)): batch})


def step_on_part(
    step: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    indices: Tensor,
    layout: BatchLayout,
    loader: DataLoader[Any] | None,
    collate: Callable[[Sequence[int]], Any] | None = None,
    own: BatchPart | None = None,
) -> Callable[[Sequence[int]], functools.partial[Any]]:
    """Return a training step on some samples of its first batch, in any order.

    Args:
        step: takes the batch first.
        args: of the step.
        kwargs: of the step.
        indices: int64 (B,), on the device of the batch: its samples.
        layout: learnt from the positions that are used first.
        loader: yields the batches.
        collate: collates samples again, by their indices, if the batch cannot be cut.
        own: with several loaders, where the chosen one's batch is; only that is cut.

    Returns:
        A function of positions that returns the step on the samples there; the step raises TypeError if the batch
        cannot be made.
    """
    first: list[int] = []

    def part(positions: Sequence[int]) -> functools.partial[Any]:
        if list(positions) == list(range(indices.numel())):
            return functools.partial(step, *args, **kwargs)
        first[:] = first or positions
        batch = args[0] if args else next(iter(kwargs.values()))
        layout.learn(loader, batch if own is None else own.of(batch), indices, first)
        chosen = torch.tensor(positions, device=indices.device)
        known = [first.index(position) for position in positions] if {*positions} <= {*first} else None
        number = layout.numbers(len(positions), known)
        try:
            own_args, own_kwargs = subset_arguments(args, kwargs, chosen, indices.numel(), layout.axes, number, own)
            layout.refuse_shared()
        except UnsupportedLoaderError:
            if collate is None:
                raise
            own_args, own_kwargs = with_batch(args, kwargs, collate(indices[chosen].tolist()))
        return functools.partial(step, *own_args, **own_kwargs)

    return part


def _moves(part: Any) -> bool:
    """Return whether an object is moved to the device with the batch, so that it holds samples."""
    return callable(getattr(part, "to", None)) and not isinstance(part, Tensor | type)


def _uncuttable(part: Any) -> UnsupportedLoaderError:
    return UnsupportedLoaderError(
        f"The batch holds a {type(part).__name__}, which cannot be cut to some of its samples, as a batch of graphs"
        " cannot. Take a method that chooses before the epoch, such as InfoBatch; or let the loader yield tensors with"
        " the samples along the first axis, and build the object inside training_step."
    )


class _Cutter:
    def __init__(self, positions: Tensor, batch_size: int, axes: dict[Path, int | None], number: Number) -> None:
        self._positions = positions
        self._batch_size = batch_size
        self._axes = axes
        self._number = number
        self._listed: list[int] | None = None
        self.has_cut = False

    def cut(self, part: Any, path: Path) -> Any:
        if isinstance(part, PackedSequence):
            raise UnsupportedLoaderError(
                "A PackedSequence cannot be cut to some of its samples. Let the loader yield the padded tensor and the"
                " lengths, and pack them inside training_step."
            )
        if isinstance(part, str | bytes):
            return part
        if is_number(part):
            return self._number(path, part)
        if self._axes.get(path, 0) is None and getattr(part, "shape", None) == (1,):
            return self._number(path, part)
        if _length_of_array(part) is not None:
            return self._array(part, path)
        if isinstance(part, Mapping):
            return mapping_like(part, {key: self.cut(value, (*path, key)) for key, value in part.items()})
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            return self._dataclass(part, path)
        if isinstance(part, Sequence):
            return self._sequence(part, path)
        if _moves(part):
            raise _uncuttable(part)
        return part

    def _dataclass(self, part: Any, path: Path) -> Any:
        before, self.has_cut = self.has_cut, False
        names = [field.name for field in dataclasses.fields(part)]
        values = {name: self.cut(getattr(part, name), (*path, name)) for name in names}
        if _moves(part) and not self.has_cut:
            raise _uncuttable(part)
        self.has_cut |= before
        return with_fields(part, values)

    def _array(self, part: Any, path: Path) -> Any:
        axis = self._axes.get(path, 0) or 0
        if not self._settle(path, len(part.shape) > axis and part.shape[axis] == self._batch_size, axis):
            return part
        self.has_cut = True
        if axis == 0:
            if isinstance(part, Tensor):
                return part[self._positions.to(part.device)]
            return part[self._as_list() if isinstance(part, np.ndarray) else self._positions]
        if isinstance(part, Tensor):
            return part.index_select(axis, self._positions.to(part.device))
        return np.take(part, self._as_list(), axis)

    def _sequence(self, part: Sequence[Any], path: Path) -> Any:
        is_known = self._axes.get(path) is not None
        one_a_sample = len(part) == self._batch_size and (is_known or not self._holds_fields(part))
        if self._settle(path, one_a_sample):
            self.has_cut = True
            items = [part[i] for i in self._as_list()]
        else:
            items = [self.cut(item, (*path, i)) for i, item in enumerate(part)]
        if hasattr(part, "_fields"):
            return type(part)(*items)
        return tuple(items) if isinstance(part, tuple) else items

    def _settle(self, path: Path, fits: bool, axis: int = 0) -> bool:
        """Return whether there is a sample axis, which must have matched in every batch so far."""
        found = axis if fits and self._axes.get(path, axis) is not None else None
        self._axes[path] = found
        return found is not None

    def _holds_fields(self, part: Sequence[Any]) -> bool:
        """Return whether the items are fields of a batch, each with a sample axis, rather than samples."""
        if hasattr(part, "_fields"):
            return True
        lengths = [_length_of_array(item) for item in part]
        if self._batch_size in lengths:
            return True
        return bool(part) and all(self._is_field(item) for item in part)

    def _is_field(self, item: Any) -> bool:
        if isinstance(item, Mapping):
            return bool(item) and all(self._is_field(value) for value in item.values())
        if isinstance(item, Sequence) and not isinstance(item, str | bytes):
            return len(item) == self._batch_size
        return _length_of_array(item) == self._batch_size

    def _as_list(self) -> list[int]:
        if self._listed is None:
            self._listed = self._positions.tolist()
        return self._listed


def _length_of_array(part: Any) -> int | None:
    shape = getattr(part, "shape", ())
    return shape[0] if isinstance(shape, tuple) and shape else None
