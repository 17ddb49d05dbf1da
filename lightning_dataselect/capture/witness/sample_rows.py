"""Tell how the rows of a term lie, by those of each sample alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.folds import Folded
from lightning_dataselect.capture.loss.reductions import fold
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import Layout
from lightning_dataselect.capture.loss.terms import Term

CLOSE = 1e-3  # of the size of what is compared: kernels round otherwise for another number of samples
CLOSE_IN_HALF = 0.1  # the same in half precision
_MUCH = 0.1  # as losses before any training, which are all about the same, rarely differ


def has_even_rows(term: Term, layout: Layout, size: int) -> bool:
    """Tell if all samples have several elements by hand, of which as many are 0."""
    rows = layout.rows(term.elements, size)
    if rows is None or rows.shape[1] < 2 or not term.by_hand or term.picked_at is not None:
        return False
    counts = rows.count_nonzero(1)
    return bool((counts == counts[0]).all())


def sample_losses(term: Term, layout: Layout, size: int) -> Tensor:
    """Return what each sample loses by a term that lies in a certain way, but for its coefficient."""
    rows, units = layout.rows(term.elements, size), term.units
    assert rows is not None
    if units is not None:
        units = layout.rows(units, size)
        units = units != 0 if units is not None and term.weighs_classes else units
    return fold(rows, units, size, is_sum=term.is_sum)


def possible_layouts(term: Term, whole: Shown, agrees: bool) -> list[Layout]:
    """Return the ways in which a term's rows may lie: first as the algebra has it, if what it gives is right."""
    proposed = Layout(strided=whole.spec.of(term.key).layout.strided)
    flat = [Layout(), Layout(strided=True)]
    across = [Layout(axis) for axis in range(1, term.elements.dim())]
    found = dict.fromkeys(([proposed] if agrees else []) + flat + across)
    return [layout for layout in found if layout.rows(term.elements, whole.size) is not None]


def row_alone(layout: Layout, term: Term, one: Term, row: Tensor) -> Tensor | None:
    """Return the row of a sample alone, to be compared with its row among others; None if it cannot lie so.

    Of picked rows, as of boxes, a sample alone has as many as it has, and 0 follows where others have more. A single
    row is none that was picked, and lies where the others have left room for it.
    """
    rows = layout.rows(one.elements, 1)
    missing = 0 if rows is None else row.numel() - rows.numel()
    if rows is None or term.picked_at is None or missing <= 0:
        return None if rows is None else rows[0]
    if one.picked_at is None and rows.numel() and row.numel() % rows.numel() == 0:
        places = row.reshape(-1, rows.numel())
        place = int((places != 0).any(1).int().argmax())
        return torch.zeros_like(places).index_fill(0, torch.tensor(place, device=row.device), 1).mul(rows).flatten()
    return torch.nn.functional.pad(rows[0], (0, missing))


def lies(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor] | None], size: int) -> bool:
    """Tell if each sample has the row of its own that it has alone; only zeros if it has no such term (None)."""
    rows = layout.rows(term.elements, size)
    assert rows is not None
    for one, row in zip(alone, rows, strict=True):
        own = torch.zeros_like(row) if one is None else row_alone(layout, term, one[0], row)
        if own is None or not are_same(row, own):
            return False
    return True


def is_scaled(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample has the row of its own, but for a power of the number of samples, as of a mean's slope."""
    rows = layout.rows(term.elements, size)
    assert rows is not None
    own = [row_alone(layout, term, one, row) for (one, _), row in zip(alone, rows, strict=True)]
    return any(
        all(one is not None and are_same(row, one * size**power) for row, one in zip(rows, own, strict=True))
        for power in (-2, -1, -0.5, 0.5, 1, 2)
    )


def are_ragged(term: Term, alone: Sequence[tuple[Term, Tensor]]) -> bool:
    """Tell if a term has the rows of all samples, but more of some than of others, and no mask says whose they are."""
    n_rows = [one.elements.shape[:1].numel() for one, _ in alone]
    return term.picked_at is None and len({*n_rows}) > 1 and sum(n_rows) == term.elements.shape[:1].numel()


def are_paired(term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if a term has a row for each pair of samples, as where (n, 1) outputs less (n,) targets are (n, n)."""
    n = term.elements.numel()
    return size > 1 and n > 0 and all(one.elements.numel() * size**2 == n for one, _ in alone)


def lies_divided(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample's row is its own but for its share in a number by which all are divided.

    A sample that loses nothing, as one of which all is masked, shows no share.
    """
    rows = layout.rows(term.elements, size)
    if rows is None:
        return False
    singles = [row_alone(layout, term, one, row) for (one, _), row in zip(alone, rows, strict=True)]
    own = torch.stack([one.float() for one in singles if one is not None and one.shape == rows[0].shape] or [rows[0]])
    if len(own) < size:
        return False
    shows = (own != 0).any(1) & own.isfinite().all(1)
    if not shows.any() or bool((rows[~shows].nan_to_num() != 0).any()):
        return False
    rows, own = rows[shows].float(), own[shows]
    shares = (rows * own).sum(1) / (own * own).sum(1)
    total = shares.sum() / (1 if term.is_sum else size)
    adds_up = are_close(total, torch.ones_like(total)) or (not shows.all() and bool(total < 1 + CLOSE))
    return adds_up and are_close(rows, shares[:, None] * own)


def are_weighted(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if rows that lie so but for a share that is 1 on average do so for sure.

    Of rows of one number any would, and numbers that are all about the same have a share of about 1 on average.
    """
    rows = layout.rows(term.elements, size)
    assert rows is not None
    if rows.shape[1] > 1:
        return True
    shares = rows[:, 0].float() / torch.stack([sample_losses(one, layout, 1)[0] for one, _ in alone])
    return bool(((shares - 1).abs().max() > _MUCH) & ((shares.mean() - 1).abs() < 0.1 * CLOSE))


def are_weighed_anew(term: Folded, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if a sample's outputs are its own, but weigh otherwise by each other than they do among others' ones."""
    own = [one for one, _ in alone if isinstance(one, Folded)]
    if len(own) < size:
        return False
    rows = zip(term.fold.elements, own, strict=True)
    if not all(are_same(row, one.fold.elements[0]) for row, one in rows):
        return False
    return not all(are_same(term.direction, one.direction) for one in own)


def lies_permuted(layout: Layout, term: Term, alone: Sequence[tuple[Term, Tensor]], size: int) -> bool:
    """Tell if each sample has a row of its own, but not each at its place."""
    rows = layout.rows(term.elements, size)
    if rows is None:
        return False
    singles = [row_alone(layout, term, one, rows[0]) for one, _ in alone]
    if any(one is None for one in singles):
        return False
    places = [[j for j, row in enumerate(rows) if are_same(row, one)] for one in singles if one is not None]
    return all(places) and any(len(set(order)) == size for order in itertools.product(*places))


def are_same(a: Tensor, b: Tensor) -> bool:
    """Tell if two tensors have one shape, and are equal but for rounding."""
    return a.shape == b.shape and are_close(a, b)


def are_close(a: Tensor, b: Tensor, within: float = CLOSE) -> bool:
    """Tell if two tensors are equal but for rounding.

    Args:
        a: One of them.
        b: The other.
        within: Of the size of what is compared, the most that rounding may change.

    Example:
        >>> none, some = torch.zeros(2), torch.tensor([0.0, 5.0])
        >>> are_close(some, some * 1.0001), are_close(some, some * 1.01), are_close(none, none + 1e-14)
        (True, False, True)
    """
    a, b = a.float().reshape(-1), b.float().reshape(-1)
    size = b.nan_to_num().abs().max() if b.numel() else b.sum()
    return torch.allclose(a, b, rtol=within, atol=float(within * size) * 0.1 + 1e-12, equal_nan=True)
