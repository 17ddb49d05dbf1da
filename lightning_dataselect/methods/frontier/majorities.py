"""How many learnt samples of a class can be left out before another label takes it over.

Of images of boots, a fifth of which are labelled as bags, four fifths are learnt soon. With nine in ten of these left
out, most of the boots in a pass are labelled as bags, and a network learns what most of them say.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_dataselect.numerics.parts import parts

_OVER_ANY_OTHER = 3.0
_MOST_CLASSES = 2**12  # of which pairs are counted


def share_let_go(
    learnt: Callable[[slice], Tensor],
    contradicted: Tensor | None,
    labels: Tensor,
    predicted: Tensor,
    most: float,
) -> Tensor:
    """Return which share of its learnt samples a pass may leave out of each class.

    Of all samples that the model takes for a class, those in a pass that are labelled so stay three times as many as
    those of any one other label. Contradicted samples do not count, as they are left out.

    Args:
        learnt: Tells of a part of the samples which are learnt, bool.
        contradicted: bool (N,); None if none are.
        labels: Whole numbers (N,), the class of each sample; -1 where it is not known.
        predicted: Whole numbers (N,), the class that the model took it for when it was last measured; -1 where it is
            not known.
        most: The share that is left out of a class without rivals.

    Returns:
        float32 (C + 1,), of class c at c + 1.

    Example:
        >>> labels, predicted = torch.tensor([0] * 8 + [1] * 2 + [1] * 8), torch.tensor([0] * 10 + [1] * 8)
        >>> learnt = labels == predicted
        >>> share_let_go(learnt.__getitem__, None, labels, predicted, most=0.9)
        tensor([0.9000, 0.2500, 0.9000])
    """
    n_places = 2 + int(max(labels.max(), predicted.max())) if len(labels) else 1
    counts_pairs = n_places <= _MOST_CLASSES
    n_learnt, n_right = torch.zeros(2, n_places, dtype=torch.int64)
    n_wrong = torch.zeros(n_places**2 if counts_pairs else n_places, dtype=torch.int64)
    for part in parts(len(labels)):
        label, taken_for, known = labels[part].long() + 1, predicted[part].long() + 1, learnt(part)
        open_ = ~known & (label > 0) & (taken_for > 0)
        if contradicted is not None:
            open_ &= ~contradicted[part]
        is_right = label == taken_for
        n_learnt += torch.bincount(label[known], minlength=n_places)
        n_right += torch.bincount(label[open_ & is_right], minlength=n_places)
        label, taken_for = label[open_ & ~is_right], taken_for[open_ & ~is_right]
        places = taken_for * n_places + label if counts_pairs else taken_for
        n_wrong.index_add_(0, places, torch.ones_like(places))
    n_rival = n_wrong.view(n_places, -1).amax(1)  # all other labels together where pairs are not counted
    kept = (_OVER_ANY_OTHER * n_rival - n_right) / n_learnt.clamp(min=1)
    return (1 - kept).clamp(min=0.0, max=most).float()
