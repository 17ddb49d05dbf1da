"""Find the calls that pick rows out of the samples of a batch, and put what was picked back where it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

GETITEM = torch._C.TensorBase.__getitem__
CATS = {torch.cat, torch.concat, torch.concatenate}
"""The functions that lay pieces one after the other."""


_SELECTING = {torch.index_select, torch._C.TensorBase.index_select}
_TAKING = {torch.take, torch._C.TensorBase.take}
_MASKING = {torch.masked_select, torch._C.TensorBase.masked_select}
_FINDING = {torch.nonzero, torch._C.TensorBase.nonzero, torch.argwhere, torch._C.TensorBase.argwhere, torch.where}


@dataclass(frozen=True)
class Pick:
    """Hold a mask, and how many rows it has picked.

    Attributes:
        mask: True where there are rows.
        n_rows: Their number.
        are_pieces: True if no mask has picked them, but they were laid one after the other (see `pieces`).
        width: The number of entries of each row that were picked one after the other.
        is_by_array: True if an array of NumPy says what is picked, of which nothing shows what it was made of.
    """

    mask: Tensor
    n_rows: int
    are_pieces: bool = field(default=False, kw_only=True)
    width: int = field(default=1, kw_only=True)
    is_by_array: bool = field(default=False, kw_only=True)

    def of(self, rows: Tensor) -> Pick | None:
        """Return it as it has picked these rows, or their single entries; None if there are more or fewer.

        Example:
            >>> pick = Pick(torch.tensor([True, False]), 1, width=3)
            >>> pick.of(torch.ones(3)).mask.tolist(), pick.of(torch.ones(2))
            ([[True, True, True], [False, False, False]], None)
        """
        if rows.shape[:1] == (self.n_rows,):
            return self
        if self.width == 1 or rows.shape != (self.n_rows * self.width,):
            return None
        return Pick(self.mask.unsqueeze(-1).expand(*self.mask.shape, self.width), self.n_rows * self.width)

    @property
    def decided_by(self) -> tuple[Tensor, ...]:
        """The tensors that say what is picked."""
        return (self.mask,)

    def put_back(self, rows: Tensor) -> Tensor:
        """Return the results for the picked rows at the places where these were, and 0 elsewhere.

        Example:
            >>> Pick(torch.tensor([[True, False], [True, True]]), 3).put_back(torch.tensor([5.0, 6.0, 7.0])).tolist()
            [[5.0, 0.0], [6.0, 7.0]]
        """
        shape = self.mask.shape + rows.shape[1:]
        return rows.new_zeros(shape).masked_scatter(self._like(rows), rows)

    def units(self, rows: Tensor) -> Tensor:
        """Return what a mean over the rows divides by the sum of."""
        return self._like(rows).expand(self.mask.shape + rows.shape[1:])

    def _like(self, rows: Tensor) -> Tensor:
        return self.mask.reshape(self.mask.shape + (1,) * (rows.dim() - 1))


@dataclass(frozen=True)
class IndexPick(Pick):
    """Hold where rows were picked by index, some of them perhaps several times.

    Attributes:
        mask: The first of the numbers, of samples.
        index: All of them: int64 (n_rows,), one for each axis.
        shape: Of the axes that they are numbers along.
        is_flat: True if these are the rows of all samples, one after the other, several of each.
    """

    index: tuple[Tensor, ...]
    shape: torch.Size
    is_flat: bool = False

    @property
    def decided_by(self) -> tuple[Tensor, ...]:
        """The tensors that say what is picked."""
        return self.index

    def put_back(self, rows: Tensor) -> Tensor:
        """Return rows as `Pick.put_back` does; those of one place are added up.

        Example:
            >>> samples, boxes = torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0])
            >>> pick = IndexPick(samples, 3, (samples, boxes), torch.Size([2, 2]))
            >>> pick.put_back(torch.tensor([5.0, 6.0, 7.0])).tolist(), pick.units(torch.ones(3)).tolist()
            ([[0.0, 6.0], [12.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]])
        """
        rows = rows.float() if rows.dtype == torch.bool else rows
        return rows.new_zeros(self.shape + rows.shape[1:]).index_put(self.index, rows, accumulate=True)

    def units(self, rows: Tensor) -> Tensor:
        """Return how many rows there are at each place."""
        return self.put_back(torch.ones_like(rows, dtype=torch.float32, requires_grad=False))


def pieces(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch_size: int) -> Tensor | None:
    """Return the mask that would have picked rows which are laid one after the other, some of each sample.

    Args:
        args: Of `torch.cat`.
        kwargs: Likewise.
        batch_size: The number of samples.

    Returns:
        bool (batch_size, n), or None if they are no pieces of the samples.

    Example:
        >>> pieces(([torch.zeros(1, 5), torch.zeros(2, 5)],), {}, batch_size=2).tolist()
        [[True, False], [True, True]]
        >>> pieces(([torch.zeros(1, 5), torch.zeros(2, 5)],), {}, batch_size=3)
    """
    parts, dim = args[0] if args else kwargs.get("tensors"), kwargs.get("dim", args[1] if len(args) > 1 else 0)
    if not isinstance(parts, list | tuple) or len(parts) != batch_size or dim != 0:
        return None
    lengths = [len(part) if isinstance(part, Tensor) and part.dim() > 0 else 0 for part in parts]
    device = parts[0].device
    ends = torch.tensor(lengths).to(device, non_blocking=True)
    return torch.arange(max(lengths), device=device) < ends.unsqueeze(1)


def covers(mask: Any, batch_size: int) -> bool:
    """Tell if a mask has entries for each sample, along its first or second axis."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() == 0:
        return False
    return mask.shape[0] % batch_size == 0 or batch_size in mask.shape[:2]


class Picks:
    """Find what the calls of one step pick.

    Example:
        >>> losses, mask = torch.arange(6.0).view(2, 3), torch.tensor([[True, False, True], [False, False, True]])
        >>> Picks(2).find(torch.masked_select, (losses, mask), {}, losses[mask]).n_rows
        3
    """

    def __init__(self, batch_size: int) -> None:
        self._size = batch_size
        self._sorted: tuple[Tensor, Tensor] | None = None  # what was selected last, and by which indices

    def find(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> Pick | None:
        """Return what a call has picked; None if nothing."""
        if func is GETITEM:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            parts = [_as_tensor(part, out.device) for part in index]
            pick = self._by_index(args[0], parts, out)
            is_by_array = any(isinstance(part, np.ndarray) for part in index)
            return replace(pick, is_by_array=True) if is_by_array and pick is not None else pick
        if func in CATS:
            mask = pieces(args, kwargs, self._size)
            return None if mask is None else Pick(mask, len(out), are_pieces=True)
        if func in _MASKING and len(args) == 2:
            return _by_mask(args[0], args[1], out)
        if func in _SELECTING and len(args) == 3:
            self._sorted = out, args[2]
            return self._of_rows(args[0], args[2], out) if args[1] == 0 else None
        if func in _TAKING and len(args) == 2:
            return self._of_rows(args[0].flatten(), args[1], out)
        elif getattr(func, "__name__", None) == "_pack_padded_sequence":
            return self._packed(args[0], out[0], out[1])
        return None

    def _by_index(self, given: Tensor, parts: Sequence[Any], out: Any) -> Pick | None:
        if not parts or not isinstance(parts[0], Tensor) or out.dim() == 0:
            return None
        if parts[0].dtype == torch.bool:
            are_of_rows = all(isinstance(part, int | slice) or _are_numbers_of(part, out) for part in parts[1:])
            return Pick(parts[0], len(out)) if are_of_rows else None
        numbers = tuple(part for part in parts if isinstance(part, Tensor))
        if any(isinstance(part, Tensor) for part in parts[len(numbers) :]):
            return None  # with other calls in between
        if len(parts) == 1 and given.shape[0] != self._size:
            return self._of_rows(given, numbers[0], out)
        are_rows = all(_are_numbers_of(part, out) for part in numbers)
        if not are_rows or given.shape[0] != self._size or self._size == 1 == len(numbers):
            return None
        return IndexPick(numbers[0], len(out), numbers, given.shape[: len(numbers)])

    def _of_rows(self, given: Tensor, index: Any, out: Any) -> IndexPick | None:
        """Return which of the rows of all samples were picked, where each sample has several."""
        n = given.shape[0] if given.dim() else 0
        if n <= self._size or self._size == 0 or n % self._size or not _are_numbers_of(index, out):
            return None
        return IndexPick(index // (n // self._size), len(out), (index,), torch.Size([n]), is_flat=True)

    def _packed(self, given: Tensor, rows: Tensor, batch_sizes: Tensor) -> Pick | None:
        """Return where the rows of a packed sequence have lain before it was sorted."""
        if rows.dim() == 0 or batch_sizes.numel() == 0 or int(batch_sizes[0]) != self._size:
            return None
        at_step = torch.arange(len(batch_sizes)).repeat_interleave(batch_sizes)
        position = torch.arange(len(at_step)) - (batch_sizes.cumsum(0) - batch_sizes)[at_step]
        position, at_step = (part.to(rows.device, non_blocking=True) for part in (position, at_step))
        if self._sorted is not None and self._sorted[0] is given:
            position = self._sorted[1][position]
        shape = torch.Size([self._size, len(batch_sizes)])
        return IndexPick(position, len(rows), (position, at_step), shape)


def by_numbers(index: Any) -> bool:
    """Tell if rows are taken by their indices.

    Example:
        >>> [by_numbers(index) for index in (torch.tensor([2, 0]), (torch.tensor([1]), 0), torch.tensor([True]), 1)]
        [True, True, False, False]
    """
    first = index[0] if isinstance(index, tuple) and index else index
    return isinstance(first, Tensor) and first.dtype == torch.int64 and first.dim() > 0


def without_rows(func: Any, args: tuple[Any, ...], of_outputs: Callable[[Tensor], bool]) -> tuple[Any, ...]:
    """Return the arguments of a call with masks that pick nothing in place of those that the model's outputs make.

    Args:
        func: What is called.
        args: Its arguments.
        of_outputs: Tells if a tensor was computed from the model's outputs.

    Example:
        >>> losses = torch.tensor([1.0, 3.0])
        >>> given = without_rows(GETITEM, (losses, losses > 2), lambda mask: True)
        >>> GETITEM(*given)
        tensor([])
    """
    if func is GETITEM:
        first, *others = args[1] if isinstance(args[1], tuple) and args[1] else (args[1],)
        mask = _emptied(first, of_outputs)
        index = mask if not isinstance(args[1], tuple) else (mask, *others)
        return args if mask is first else (args[0], index)
    if func in _MASKING and len(args) == 2:
        return args[0], _emptied(args[1], of_outputs)
    return (_emptied(args[0], of_outputs),) if func in _FINDING and len(args) == 1 else args


def _emptied(mask: Any, of_outputs: Callable[[Tensor], bool]) -> Any:
    is_mask = isinstance(mask, Tensor) and mask.dtype == torch.bool and of_outputs(mask)
    return torch.zeros_like(mask) if is_mask else mask


def _as_tensor(part: Any, device: torch.device) -> Any:
    """Return an array of numbers or of a mask as torch indexes by it; anything else as it is."""
    if not isinstance(part, np.ndarray) or part.dtype.kind not in "bi":
        return part
    dtype = torch.bool if part.dtype.kind == "b" else torch.int64
    return torch.tensor(part, dtype=dtype, device=device)


def _are_numbers_of(part: Any, rows: Tensor) -> bool:
    """Tell if a part of an index is a number for each row, as of its class."""
    return isinstance(part, Tensor) and part.dtype == torch.int64 and part.shape == (len(rows),)


def _by_mask(given: Tensor, mask: Tensor, out: Tensor) -> Pick | None:
    """Return what `torch.masked_select` has picked: single entries, or all those along the last axis."""
    if given.shape == mask.shape:
        return Pick(mask, len(out))
    width = given.shape[-1]
    is_of_rows = given.dim() > 1 and mask.shape == (*given.shape[:-1], 1) and width > 0
    return Pick(mask.squeeze(-1), len(out) // width, width=width) if is_of_rows else None


def tensors_among(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among values, and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(tensors_among(value))
    return found
