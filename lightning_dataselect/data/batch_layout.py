"""Locate the samples in a batch, by what the collate function itself makes of fewer of them."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.data.batch_tree import Path, leaves_in
from lightning_dataselect.utils.errors import UnsupportedLoaderError

_DEPTH = 4  # data sets within data sets in which random generators are looked for


class BatchLayout:
    """The axis of each part of a batch that the samples lie along, and the numbers that belong to all of them.

    Attributes:
        axes: path -> the axis of a tensor, array or list; None where it has none.
        per_sample: path -> a number that grows with the number of samples, for each of them.
        varying: path -> the values, of each of a few samples alone, of a number that is added up over them.
    """

    def __init__(self) -> None:
        self.axes: dict[Path, int | None] = {}
        self.per_sample: dict[Path, float] = {}
        self.varying: dict[Path, list[Any]] = {}
        self._is_learnt = False
        self._own: list[int] = []  # the samples that were collated

    def learn(self, loader: DataLoader[Any] | None, batch: Any, indices: Tensor, positions: Sequence[int]) -> None:
        """Have a few samples collated anew, if the first batch leaves open where they lie.

        That is so where another axis has as many entries as the batch has samples, and where there are numbers. Those
        that are added up over the samples are learnt anew for other samples.

        Args:
            loader: yields batches of indexed samples.
            batch: the first one.
            indices: int64 (B,), its samples.
            positions: of two or three samples in the batch, which `varying` is about.
        """
        if len(positions) < 2 or (self._is_learnt and not (self.varying or self.per_sample)):
            return
        self._is_learnt = True
        size = indices.numel()
        if loader is None or loader.batch_sampler is None:
            return
        if not any(_is_open(part, size) for _, part in leaves_in(batch)):
            return
        own = indices[torch.tensor(positions, device=indices.device)].tolist()
        if own == self._own:
            return
        self._own = own
        try:
            all_of_them, fewer, *singles = _collated(loader, own)
        except Exception:  # of a data set that only its workers can read, say
            return
        if all_of_them.keys() != fewer.keys() or any(fewer.keys() != one.keys() for one in singles):
            return
        for path, part in all_of_them.items():
            self._compare(path, [part, fewer[path], *(one[path] for one in singles)], [len(own), len(own) - 1])

    def _compare(self, path: Path, parts: list[Any], sizes: list[int]) -> None:
        """Settle one part by what it is for all of the samples, for all but one, and for each."""
        shapes = [_shape(part) for part in parts[:2]]
        if shapes[0] and shapes[1]:
            fits = [axis for axis, entries in enumerate(zip(*shapes, strict=False)) if list(entries) == sizes]
            self.axes[path] = fits[0] if fits else None
        elif all(is_number(part) for part in parts):
            values = [float(part) for part in parts]
            self.per_sample.pop(path, None)
            self.varying.pop(path, None)
            if len(set(values)) == 1:
                return
            per_sample = {value / n for value, n in zip(values, [*sizes, *[1] * len(values[2:])], strict=True)}
            if len(per_sample) == 1:
                self.per_sample[path] = per_sample.pop()
            elif math.isclose(values[0], sum(values[2:])):
                self.varying[path] = parts[2:]

    def numbers(self, n: int, positions: Sequence[int] | None = None) -> Callable[[Path, Any], Any]:
        """Return a function that puts into a batch of fewer samples what stands for a number of all.

        Args:
            n: how many samples there are.
            positions: of them among those that `learn` was given, if they are; else a number that is counted in the
                batch is refused.
        """

        def number(path: Path, value: Any) -> Any:
            if path in self.per_sample:
                return _like(value, self.per_sample[path] * n)
            if path in self.varying:
                if positions is None:
                    raise UnsupportedLoaderError(
                        f"The batch holds a number at {'.'.join(map(str, path))!r} that its collate function adds up"
                        " over all of its samples, so what it would be for some of them is not known. Let training_step"
                        " count it, from a tensor with a row for each sample."
                    )
                return _like(value, sum(float(self.varying[path][position]) for position in positions))
            return value

        return number


def _is_open(part: Any, size: int) -> bool:
    shape = _shape(part)
    return is_number(part) or size in shape[1:]


def _shape(part: Any) -> tuple[int, ...]:
    if isinstance(part, list | tuple):
        return (len(part),)
    shape = getattr(part, "shape", ())
    return tuple(shape) if isinstance(shape, tuple) else ()


def is_number(part: Any) -> bool:
    """Return whether a part of a batch is one number, and no flag or word.

    Example:
        >>> [is_number(part) for part in (3, torch.tensor(0.5), True, "3", torch.ones(1))]
        [True, True, False, False, False]
    """
    if isinstance(part, Tensor | np.ndarray | np.generic):
        return part.shape == () and not isinstance(part, np.str_ | np.bytes_)
    return isinstance(part, int | float) and not isinstance(part, bool)


def _like(value: Any, number: float) -> Any:
    if isinstance(value, Tensor):
        return torch.full_like(value, number)
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(number).astype(value.dtype)[()]
    return type(value)(round(number) if isinstance(value, int) else number)


def _collated(loader: DataLoader[Any], indices: Sequence[int]) -> list[Mapping[Path, Any]]:
    """The parts of batches of some samples, of all but the last of them, and of each alone; nothing notices."""
    dataset: Any = loader.dataset
    collate: Any = getattr(loader.collate_fn, "collate_fn", loader.collate_fn)
    undo = random_states_in(dataset)
    try:
        with isolate_rng(include_cuda=False):
            items = [dataset[i] for i in indices]
            batches = [items, items[:-1], *([item] for item in items)]
            return [dict(leaves_in(collate(copy.deepcopy(batch)))) for batch in batches]
    finally:
        for restore in undo:
            restore()


def random_states_in(part: Any, depth: int = _DEPTH) -> list[Callable[[], object]]:
    """Return calls that put the generators of random numbers that an object holds back to where they are now.

    Example:
        >>> class Noise:
        ...     generator = None
        >>> noise = Noise()
        >>> noise.generator = np.random.default_rng(0)
        >>> undo, drawn = random_states_in(noise), noise.generator.random()
        >>> for restore in undo:
        ...     restore()
        >>> noise.generator.random() == drawn
        True
    """
    state: Any
    if isinstance(part, torch.Generator):
        state = part.get_state()
        return [lambda: part.set_state(state)]
    if isinstance(part, np.random.Generator):
        state = part.bit_generator.state
        return [lambda: setattr(part.bit_generator, "state", state)]
    if isinstance(part, np.random.RandomState):
        state = part.get_state()
        return [lambda: part.set_state(state)]
    if isinstance(part, random.Random):
        state = part.getstate()
        return [lambda: part.setstate(state)]
    if depth == 0 or isinstance(part, type | Tensor) or not hasattr(part, "__dict__"):
        return []
    return [undo for value in list(vars(part).values()) for undo in random_states_in(value, depth - 1)]
