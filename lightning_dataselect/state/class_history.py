"""The evidence about each sample from class logits: when it was learnt and forgotten, and with what confidence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_dataselect.numerics.margins import confidences, margins
from lightning_dataselect.state.merging import OverRanks
from lightning_dataselect.state.store import ScoreStore

NEVER = torch.iinfo(torch.int32).max
"""The value of ``first_learnt`` for a sample that was never classified correctly."""
UNKNOWN = -1
"""The value of ``predicted`` and ``label`` for a sample whose class was never seen."""

OF_CLASSES: dict[str, tuple[float, torch.dtype, OverRanks]] = {
    "margin": (torch.nan, torch.float32, "last"),
    "predicted": (UNKNOWN, torch.int32, "last"),
    "first_learnt": (NEVER, torch.int32, "min"),
    "times_forgotten": (0, torch.int32, "sum"),
    "label": (UNKNOWN, torch.int32, "last"),
    "times_classified": (0, torch.int32, "sum"),
    "margin_sum": (0.0, torch.float32, "sum"),
    "confidence_sum": (0.0, torch.float32, "sum"),
    "confidence_squares": (0.0, torch.float32, "sum"),
}
"""The columns, each with its initial value, its dtype, and how the writes of several ranks are merged."""


class Shown(NamedTuple):
    """Hold what a batch shows about the classes of its samples."""

    indices: Tensor  # int64 (B,)
    logits: Tensor  # (B, C)
    labels: Tensor  # int64 (B,)


def add_at(column: Tensor, indices: Tensor, number: int | Tensor) -> None:
    """Add a number, or one for each entry, (B,), to the entries ``indices``, int64 (B,), of a column."""
    numbers = number if isinstance(number, Tensor) else torch.full_like(indices, number, dtype=column.dtype)
    column.index_add_(0, indices, numbers)


def count_at(column: Tensor, indices: Tensor, counts: Tensor) -> bool:
    """Add counts, (B,), to the entries ``indices``, int64 (B,), of a column.

    Returns:
        Whether that has added 1 to each, so that no entry occurs twice; False on a device that would be waited for.

    Example:
        >>> column, ones = torch.zeros(3), torch.ones(2)
        >>> count_at(column, torch.tensor([0, 2]), ones), count_at(column, torch.tensor([1, 1]), ones)
        (True, False)
        >>> column
        tensor([1., 2., 1.])
    """
    before = column.index_select(0, indices)
    column.index_add_(0, indices, counts)
    if not indices.is_cpu:
        return False
    return bool(((column.index_select(0, indices) - before == 1) & (counts == 1)).all())


def write_classes(store: ScoreStore, shown: Shown, epoch: int) -> None:
    """Write the results of batches of one epoch, in order, since a sample may occur more than once.

    Args:
        store: Has the columns ``OF_CLASSES``.
        shown: The results of the batches.
        epoch: The 0-based epoch.
    """
    store.mark_counted(shown.indices)
    i, labels = shown.indices, shown.labels
    margin, predicted = margins(shown.logits, labels)
    if _sum_up(store, i, margin, confidences(shown.logits, labels)):
        before, last = store["margin"].index_select(0, i), i
    else:
        i, order = i.sort(stable=True)
        margin, predicted, labels = margin[order], predicted[order], labels[order]
        again = i[1:] == i[:-1]
        before = store["margin"][i]
        before[1:] = torch.where(again, margin[:-1], before[1:])
        # all but a sample's last occurrence go to the padding slot
        last = torch.where(torch.cat([~again, again.new_ones(1)]), i, store.n)
    add_at(store["times_forgotten"], i, ((before > 0) & (margin <= 0)).int())
    learnt = torch.where(margin > 0, epoch, NEVER).int()
    store["first_learnt"].scatter_reduce_(0, i, learnt, "amin")
    store["margin"].index_copy_(0, last, margin)
    store["predicted"].index_copy_(0, last, predicted.int())
    store["label"].index_copy_(0, last, labels.clamp(min=UNKNOWN).int())


def _sum_up(store: ScoreStore, indices: Tensor, margin: Tensor, confidence: Tensor) -> bool:
    """Add up what was measured; return whether each sample is known to occur once."""
    known = margin.isfinite()
    confidence = torch.where(known, confidence, 0.0)
    add_at(store["margin_sum"], indices, torch.where(known, margin, 0.0))
    add_at(store["confidence_sum"], indices, confidence)
    add_at(store["confidence_squares"], indices, confidence * confidence)
    return count_at(store["times_classified"], indices, known.int())
