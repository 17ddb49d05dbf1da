"""Locate the samples in a batch, by comparing what the collate function returns for fewer of them."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.data.batch_tree import Path, leaves_in
from lightning_dataselect.utils.errors import UnsupportedLoaderError

_DEPTH = 4  # levels of nested data sets that are searched for random generators


class BatchLayout:
    """The sample axis of each part of a batch, and the numbers that belong to the whole batch.

    Attributes:
        axes: path -> the sample axis of a tensor, array or list; None if it has none.
        per_sample: path -> the amount per sample of a number that grows with the number of samples.
        varying: path -> for a number that is a sum over the samples, its values for each of a few samples alone.
        shared: The path of a part that is computed from all samples together, if there is one.
    """

    def __init__(self) -> None:
        self.axes: dict[Path, int | None] = {}
        self.per_sample: dict[Path, float] = {}
        self.varying: dict[Path, list[Any]] = {}
        self.shared: Path | None = None
        self._is_learnt = False
        self._own: list[int] = []  # the samples that were collated

    def learn(self, loader: DataLoader[Any] | None, batch: Any, indices: Tensor, positions: Sequence[int]) -> None:
        """Collate a few samples again, if the first batch does not show where the samples lie.

        That is the case if another axis is as long as the batch, if there are numbers, or if a part has another number
        of rows. Numbers that are sums over the samples are computed again for other samples.

        Args:
            loader: yields batches of indexed samples.
            batch: the first one.
            indices: int64 (B,), its samples.
            positions: of two or three samples in the batch, for `varying`.
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
            again, *batches = _collated(loader, own)
        except Exception:  # a data set that only its workers can read, say
            return
        sizes = [len(own), len(own) - 1, *[1] * len(own)]
        lists: set[Path] = set()  # lists of one item per sample
        for path, part in batches[0].items():
            if any(path[:n] in lists for n in range(len(path))) or not all(path in batch for batch in batches):
                continue
            parts = [batch[path] for batch in batches]
            if self._find_axis(path, parts, sizes):
                lists |= {path} if isinstance(part, list | tuple) else set()
            elif _same(part, again.get(path)) and not self._find_number(path, parts, sizes):
                lengths = [{n for part in batch.values() for n in _further_axes(part)} for batch in batches]
                if not _are_alike(parts) and not all(map(_is_as_long, parts, lengths)):
                    self.shared = path

    def _find_axis(self, path: Path, parts: list[Any], sizes: list[int]) -> bool:
        """Find the sample axis of a part, from its values for all samples, for all but one, and for each one."""
        shapes = [_shape(part) for part in parts]
        if not all(shapes):
            return False
        fits = [axis for axis, entries in enumerate(zip(*shapes, strict=False)) if list(entries) == sizes]
        self.axes[path] = fits[0] if fits else None
        return bool(fits)

    def _find_number(self, path: Path, parts: list[Any], sizes: list[int]) -> bool:
        """Tell if a part is a number that the samples add up to, and find what each of them adds."""
        values = [_number_in(part) for part in parts]
        self.per_sample.pop(path, None)
        self.varying.pop(path, None)
        known = [value for value in values if value is not None]
        if len(known) < len(values) or len(set(known)) == 1:
            return False
        per_sample = {value / n for value, n in zip(known, sizes, strict=True)}
        if len(per_sample) == 1:
            self.per_sample[path] = per_sample.pop()
        elif math.isclose(known[0], sum(known[2:])):
            self.varying[path] = known[2:]
        return path in self.per_sample or path in self.varying

    def numbers(self, n: int, positions: Sequence[int] | None = None) -> Callable[[Path, Any], Any]:
        """Return a function that replaces a number of the whole batch by that of fewer samples.

        Args:
            n: number of samples.
            positions: their positions among those that `learn` was given, if they are; otherwise a number that is a sum
                over the batch is refused.
        """

        def number(path: Path, value: Any) -> Any:
            if path in self.per_sample:
                return _like(value, self.per_sample[path] * n)
            if path in self.varying:
                if positions is None:
                    raise UnsupportedLoaderError(
                        f"The batch holds a number at {_named(path)} that its collate function computes from all of"
                        " its samples, so its value for some of them is not known. Let training_step count it, from a"
                        " tensor with a row for each sample."
                    )
                return _like(value, sum(self.varying[path][position] for position in positions))
            return value

        return number

    def refuse_shared(self) -> None:
        """Refuse to cut batches with a part that is computed from all samples together.

        Raises:
            UnsupportedLoaderError: If there is one.
        """
        if self.shared is not None:
            raise UnsupportedLoaderError(
                f"What the batch holds at {_named(self.shared)} is built by the collate function from all of its"
                " samples together, for instance by concatenating their rows, so it cannot be cut down to some of"
                " them. Give it one row per sample, or take a method that chooses before the epoch, such as"
                " InfoBatch."
            )


def _is_open(part: Any, size: int) -> bool:
    shape = _shape(part)
    has_other_rows = bool(shape) and shape[0] != size and not isinstance(part, list | tuple)
    return is_number(part) or size in shape[1:] or has_other_rows


def _named(path: Path) -> str:
    return repr(".".join(map(str, path)))


def _number_in(part: Any) -> float | None:
    """Return a number, or the only entry of an array; None for anything else."""
    if is_number(part):
        return float(part)
    is_one = isinstance(part, Tensor | np.ndarray) and part.shape == (1,)
    return float(part[0]) if is_one and not isinstance(part[0], np.str_ | np.bytes_) else None


def _same(a: Any, b: Any) -> bool:
    if _is_sparse(a):
        return _is_sparse(b) and _same_sparse(a, b)
    if isinstance(a, Tensor | np.ndarray | np.generic) and isinstance(b, Tensor | np.ndarray | np.generic):
        return a.shape == b.shape and bool(torch.as_tensor(a == b).all())
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # objects that are compared entry by entry
        return False


def _is_sparse(part: Any) -> bool:
    return isinstance(part, Tensor) and part.layout is not torch.strided


def _further_axes(part: Any) -> tuple[int, ...]:
    """Return the lengths of all axes but the first; none of a sparse matrix, as of graphs' edges between all nodes."""
    return () if _is_sparse(part) else tuple(_shape(part)[1:])


def _same_sparse(a: Tensor, b: Tensor) -> bool:
    """Compare tensors of a layout that has no ``==``."""
    if a.is_nested or a.shape != b.shape:
        return False
    a, b = (tensor.to_sparse_coo().coalesce() for tensor in (a, b))
    return torch.equal(a.indices(), b.indices()) and torch.equal(a.values(), b.values())


def _are_alike(parts: Sequence[Any]) -> bool:
    if isinstance(parts[0], list | tuple):  # its contents are compared separately
        return len({len(part) for part in parts}) == 1
    return all(_same(parts[0], part) for part in parts[1:]) or not (_shape(parts[0]) or is_number(parts[0]))


def _is_as_long(part: Any, lengths: Collection[int]) -> bool:
    """Tell if a part depends on the length that samples are padded to: a mask over it, or the length itself."""
    shape, number = _shape(part), _number_in(part)
    if number is not None:
        return number in lengths
    return bool(shape) and all(n in lengths for n in shape)


def _shape(part: Any) -> tuple[int, ...]:
    if isinstance(part, list | tuple):
        return (len(part),)
    shape = getattr(part, "shape", ())
    return tuple(shape) if isinstance(shape, tuple) else ()


def is_number(part: Any) -> bool:
    """Return whether a part of a batch is one number, not a flag or a string.

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
        return np.full_like(value, number)[()]
    return type(value)(round(number) if isinstance(value, int) else number)


def _collated(loader: DataLoader[Any], indices: Sequence[int]) -> list[Mapping[Path, Any]]:
    """Collate some samples twice, all but the last, and each alone, without side effects; return the parts of each."""
    dataset: Any = loader.dataset
    collate: Any = getattr(loader.collate_fn, "collate_fn", loader.collate_fn)
    undo = random_states_in(dataset)
    try:
        with isolate_rng(include_cuda=False):
            items = [dataset[i] for i in indices]
            batches = [items, items, items[:-1], *([item] for item in items)]
            return [dict(leaves_in(collate(copy.deepcopy(batch)))) for batch in batches]
    finally:
        for restore in undo:
            restore()


def random_states_in(part: Any, depth: int = _DEPTH) -> list[Callable[[], object]]:
    """Return functions that restore the current state of the random generators that an object holds.

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
