"""Follow the rows that a step picks out of its batch to what is computed from them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.probing.orders import moves
from lightning_dataselect.capture.recording.picks import IndexPick, Pick, covers


def picks_some(pick: Pick, batch_size: int) -> bool:
    """Tell if a pick may leave rows of samples out, or take more of one sample than of another.

    Example:
        >>> import torch
        >>> [picks_some(Pick(torch.tensor(mask), 2), 2) for mask in ([True, False], [[True], [True]], [True] * 3)]
        [True, True, False]
        >>> picks_some(Pick(torch.tensor([[True], [True]]), 2, are_pieces=True), 2)
        False
    """
    if isinstance(pick, IndexPick):
        return pick.n_rows != batch_size or moves(pick.mask.sort().values)  # else one row of each, in some order
    if not covers(pick.mask, batch_size):
        return False
    # as many of each are no pieces, but rows or steps that were laid one after the other
    are_even = pick.are_pieces and pick.mask.shape in ((batch_size, 1), (batch_size, batch_size))
    return not are_even or not bool(pick.mask.all())


class PickedRows:
    """Know which results of a step were made of picked rows, and which of data that samples were left out of.

    Example:
        >>> import torch
        >>> losses, mask, rows = torch.ones(3, requires_grad=True), torch.tensor([True, False, True]), PickedRows()
        >>> picked = losses[mask]
        >>> rows.start(("a place", 0), Pick(mask, 2), picked, batch_size=3)
        >>> rows.picked_at(2 * picked), rows.picked_at(2 * losses)
        ({('a place', 0)}, set())
    """

    def __init__(self) -> None:
        self._picked_at: dict[Node, Key] = {}
        self._picked: dict[int, tuple[Tensor, Key]] = {}  # likewise without a graph; tensors, so that no id is reused
        self._filtered: dict[int, tuple[Tensor, Hashable]] = {}  # data without the samples that a mask leaves out
        self._filtered_at: dict[Node, Hashable] = {}  # what was computed from it with a graph

    def start(self, where: Key, pick: Pick, rows: Tensor, batch_size: int) -> None:
        """Follow the rows that a call has picked at a place."""
        if rows.grad_fn is not None:
            self._picked_at[rows.grad_fn] = where
        elif not isinstance(pick, IndexPick) and pick.mask.shape == (batch_size,):
            self._filtered[id(rows)] = rows, where
        else:
            self._picked[id(rows)] = rows, where

    def note(self, given: Iterable[Tensor], made: Iterable[Tensor]) -> None:
        """Note what a call has computed from tensors."""
        given, made = list(given), list(made)
        for where in {self._filtered[id(tensor)][1] for tensor in given if id(tensor) in self._filtered}:
            for tensor in made:
                if tensor.grad_fn is None:
                    self._filtered.setdefault(id(tensor), (tensor, where))
                else:
                    self._filtered_at[tensor.grad_fn] = where
        for picked, at in [self._picked[id(tensor)] for tensor in given if id(tensor) in self._picked]:
            for tensor in made:
                if tensor.shape[:1] != picked.shape[:1]:
                    continue
                if tensor.grad_fn is None:
                    self._picked.setdefault(id(tensor), (tensor, at))
                else:
                    self._picked_at.setdefault(tensor.grad_fn, at)

    def filtered_at(self, rows: Tensor) -> set[Hashable]:
        """Return the places where samples were left out of what a model then made these rows of."""
        return {self._filtered_at[node] for node in reached(rows.grad_fn, self._filtered_at)}

    def picked_at(self, rows: Tensor) -> set[Key]:
        """Return the places where rows were picked that these rows were made of."""
        return {self._picked_at[node] for node in reached(rows.grad_fn, self._picked_at)}
