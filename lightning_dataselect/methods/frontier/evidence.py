"""The evidence of Frontier: what the losses say when a pass begins. Pure functions on tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.classes import below
from lightning_dataselect.numerics.masks import marked, places
from lightning_dataselect.numerics.parts import parts

_LEARNT_BELOW = 0.25  # L
_GENERALIZES_BELOW = 1.25  # r
ERRORS = 2  # that something is known for sure by
_PERSISTENCE = 0.5  # where there is a second mode
_PERSISTENCE_ALONE = 0.6
_RISE = 1.1
_BINS_IN_L = 8
_HIGHEST_LOSS = 4  # in L; what is above it counts in the last bin
_MODE_SHARE = 0.03  # of the samples, in a range of L at the mode's density
_MODE_ERRORS = 3.0
MANY_ABOVE = 0.1
_MANY_STAY = 0.075
_LOW_SHARE = 0.3  # of losses below half of L, where there is a second mode
_LOW_SHARE_ALONE = 0.5


@dataclass(frozen=True)
class Evidence:
    """Evidence in the losses when a pass begins.

    Attributes:
        untrained_loss: L.
        learnt_share: Share of the samples whose moving average is below a quarter of L, or of what is lost by knowing
            the share of their class alone, if that is less (:func:`~.classes.class_priors`).
        low_share: Share of the samples whose last loss is below half of the same.
        above_share: Share of the samples whose last loss but one was above L, but for classes that are not learnt.
        persistence: Share of these whose last loss is above L, too; 0 where there are none.
        rise: Density of the last losses at a second mode above L over that of the valley before it; 1 if there is none.
        held_back_ratio: Mean loss of the samples that the last trial held back, over that of its control; None if
            no trial has ended.
        held_back_error: Standard error of that ratio, or None.
    """

    untrained_loss: float
    learnt_share: float
    low_share: float
    above_share: float
    persistence: float
    rise: float = 1.0
    held_back_ratio: float | None = None
    held_back_error: float | None = None

    @property
    def generalizes(self) -> bool:
        """True if held-back samples lose less than a quarter more, measurably."""
        if self.held_back_ratio is None or self.held_back_error is None:
            return False
        return self.held_back_ratio + ERRORS * self.held_back_error < _GENERALIZES_BELOW

    @property
    def has_second_mode(self) -> bool:
        """True if losses gather above L, with a gap before them."""
        return self.rise >= _RISE

    @property
    def contradicts(self) -> bool:
        """True if losses above L gather there, or stay there while the model knows most of the samples."""
        if self.has_second_mode:
            return self.persistence >= _PERSISTENCE and self.low_share >= _LOW_SHARE
        return self.persistence >= _PERSISTENCE_ALONE and self.low_share >= _LOW_SHARE_ALONE

    @property
    def many_stay_above(self) -> bool:
        """True if 7.5 % of the samples were above L at both of their last visits."""
        return self.above_share * self.persistence >= _MANY_STAY


def in_learnt_classes(last: Tensor, labels: Tensor, untrained_loss: float) -> Tensor:
    """Return which samples belong to a class of which half or more are below the loss of an untrained model.

    A rare class that the model has not got to yet stays above L as a whole, as wrong labels do.

    Args:
        last: float32 (N,), the last loss; NaN counts for nothing.
        labels: Whole numbers (N,), the class of each; those of -1, which are not known, count as one more class.
        untrained_loss: L.

    Example:
        >>> in_learnt_classes(torch.tensor([0.1, 3.0, 3.0, 3.0, 1.0]), torch.tensor([0, 0, 1, 1, 1]), 2.0)
        tensor([ True,  True, False, False, False])
    """
    n_classes = int(labels.max()) + 2 if len(labels) else 1
    n = torch.zeros(2 * n_classes, dtype=torch.int64)  # of each class those below L, and those above it
    for part in parts(len(last)):
        losses = last[part]
        cells = (labels[part].long() + 1).mul_(2).add_(losses > untrained_loss)
        if bool(losses.sum().isnan()):
            cells = cells[~losses.isnan()]
        n += torch.bincount(cells, minlength=len(n))
    n_below, n_above = n[::2], n[1::2]
    are_learnt = n_above <= n_below
    return marked(len(last), lambda part: are_learnt.index_select(0, labels[part].long() + 1))


def second_mode(last: Tensor, untrained_loss: float, counted: Tensor | None = None) -> float:
    """Return the density at a mode of the losses above L, over that of the valley between it and L / 2.

    Losses of hard samples thin out steadily; those of wrong labels gather above L, where their true class is known.

    Args:
        last: float32 (N,), without NaN among those that count.
        untrained_loss: L.
        counted: bool (N,), the samples that count. Default all.

    Returns:
        The largest ratio over all bins of a histogram (of width L / 8, smoothed by 1/4, 1/2, 1/4) from L to 3 L, where
        3 % of the samples or more would be within L at that density, and its lead over the valley is three times its
        standard error, ``sqrt(3/8 (peak + valley))`` for counts; 1 where there is no such bin.

    Example:
        >>> losses = torch.cat([torch.linspace(0, 1, 80), torch.linspace(2.5, 3, 20)])
        >>> second_mode(losses, 2.0) > 10, second_mode(losses[:80], 2.0)
        (True, 1.0)
    """
    n_bins, n_counted = _BINS_IN_L * _HIGHEST_LOSS, len(last) if counted is None else int(counted.count_nonzero())
    numbers = torch.zeros(1 + n_bins, dtype=torch.int64)  # first of those below zero, which do not count
    for part in parts(len(last)):
        x = last[part] if counted is None else last[part].index_select(0, places(counted[part]))
        bins = (x.double() / untrained_loss).mul_(_BINS_IN_L).floor_().clamp_(-1, n_bins - 1).long().add_(1)
        numbers += torch.bincount(bins, minlength=len(numbers))
    counts = numbers[1:].double()
    counts[1:-1] = (counts[:-2] + 2 * counts[1:-1] + counts[2:]) / 4
    line = counts[_BINS_IN_L // 2 : 3 * _BINS_IN_L]
    valley = line.cummin(0).values.clamp(min=1 / 4)
    at_mode = line - valley >= _MODE_ERRORS * (3 / 8 * (line + valley)).sqrt()
    at_mode &= line * _BINS_IN_L >= _MODE_SHARE * max(n_counted, 1)
    at_mode[: _BINS_IN_L // 2] = False
    return max(1.0, float((line / valley)[at_mode].max())) if bool(at_mode.any()) else 1.0


def weigh_evidence(
    mean: Tensor,
    previous: Tensor,
    last: Tensor,
    untrained_loss: float,
    judged: Tensor | None = None,
    priors: Tensor | None = None,
    labels: Tensor | None = None,
) -> Evidence:
    """Measure how much is learnt, and how much stays above the loss of an untrained model.

    Args:
        mean: float32 (N,), the moving average of each sample's losses.
        previous: float32 (N,), the last loss but one; samples of which it is NaN do not count.
        last: float32 (N,), the last loss.
        untrained_loss: L.
        judged: bool (N,), samples whose high loss may contradict their label, :func:`in_learnt_classes`. Default all.
        priors: float32 (C + 1,), of low losses in L, from :func:`~.classes.class_priors`. Default 1.
        labels: Whole numbers (N,), the class of each sample, if there are priors.

    Example:
        >>> losses = torch.tensor([0.1, 3.0, 3.0, 1.5])
        >>> shown = weigh_evidence(losses, losses, torch.tensor([0.1, 3.0, 1.0, 1.5]), untrained_loss=2.0)
        >>> shown.learnt_share, shown.low_share, shown.above_share, shown.persistence, shown.rise
        (0.25, 0.25, 0.5, 0.5, 1.0)
    """
    n_known = n_learnt = n_low = n_above = n_staying = 0
    compared = torch.empty(len(mean), dtype=torch.bool)
    for part in parts(len(mean)):
        of_part = None if labels is None else labels[part]
        known = ~(previous[part].isnan() | last[part].isnan())
        compared[part] = known if judged is None else known & judged[part]
        above = compared[part] & (previous[part] > untrained_loss)
        n_known += int(known.count_nonzero())
        n_learnt += int((known & is_learnt(mean[part], untrained_loss, priors, of_part)).count_nonzero())
        n_low += int((known & below(last[part], untrained_loss / 2, priors, of_part)).count_nonzero())
        n_above += int(above.count_nonzero())
        n_staying += int((above & (last[part] > untrained_loss)).count_nonzero())
    return Evidence(
        untrained_loss=untrained_loss,
        learnt_share=n_learnt / max(n_known, 1),
        low_share=n_low / max(n_known, 1),
        above_share=n_above / max(n_known, 1),
        persistence=n_staying / max(n_above, 1),
        rise=second_mode(last, untrained_loss, compared),
    )


def is_learnt(
    mean: Tensor, untrained_loss: float, priors: Tensor | None = None, labels: Tensor | None = None
) -> Tensor:
    """Return which samples are learnt, bool (N,): those whose moving average is below a quarter of L, or of its prior.

    Example:
        >>> is_learnt(torch.tensor([0.1, 0.3, 0.6]), 2.0, torch.tensor([1.0, 0.1, 1.0]), torch.tensor([0, 1, 1]))
        tensor([False,  True, False])
    """
    return below(mean, _LEARNT_BELOW * untrained_loss, priors, labels)
