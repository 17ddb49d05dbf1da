"""The rule of Frontier: from the losses when a pass begins, the kinds of samples that the pass leaves out.

Pure functions on tensors; what they are called for, and when, is said in `methods/frontier/callback.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.trial import TRIAL_PASSES

_LEARNT_BELOW = 0.25  # L
_LEARNT_SHARE = 0.2
_LEARNT_LEFT_OUT = 0.9
_MEMORIZED = 0.25
_GENERALIZES_BELOW = 1.25  # r
_ERRORS = 2  # that either is known for sure by
FIRST_DECISION = 2  # passes done
_JUDGED_AFTER = (2, 3, 4)  # passes done
_PERSISTENCE = 0.5  # where there is a second mode
_PERSISTENCE_ALONE = 0.6
_RISE = 1.1
_BINS_IN_L = 8
_HIGHEST_LOSS = 4  # in L; what is above it counts in the last bin
_MODE_SHARE = 0.03  # of the samples, in a range of L at the mode's density
_MODE_ERRORS = 3.0
_ABOVE_SHARE = 0.03
_MANY_ABOVE = 0.1
_LEVEL_OF_FEW = 1.5  # in L
_LOW_SHARE = 0.3  # of losses below half of L, where there is a second mode
_LOW_SHARE_ALONE = 0.5


@dataclass(frozen=True)
class Evidence:
    """Evidence in the losses when a pass begins.

    Attributes:
        untrained_loss: L.
        learnt_share: Share of the samples whose moving average is below 0.25 L.
        low_share: Share of the samples whose last loss is below L / 2.
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
        return self.held_back_ratio + _ERRORS * self.held_back_error < _GENERALIZES_BELOW

    @property
    def contradicts(self) -> bool:
        """True if losses above L gather there, or stay there while the model knows most of the samples."""
        if self.rise >= _RISE:
            return self.persistence >= _PERSISTENCE and self.low_share >= _LOW_SHARE
        return self.persistence >= _PERSISTENCE_ALONE and self.low_share >= _LOW_SHARE_ALONE


def in_learnt_classes(last: Tensor, labels: Tensor, untrained_loss: float) -> Tensor:
    """Return which samples belong to a class of which half or more are below the loss of an untrained model.

    A rare class that the model has not got to yet stays above L as a whole, as wrong labels do.

    Args:
        last: float32 (N,), the last loss; NaN counts for nothing.
        labels: int64 (N,), the class of each; those of -1, which are not known, count as one more class.
        untrained_loss: L.

    Example:
        >>> in_learnt_classes(torch.tensor([0.1, 3.0, 3.0, 3.0, 1.0]), torch.tensor([0, 0, 1, 1, 1]), 2.0)
        tensor([ True,  True, False, False, False])
    """
    places, known = labels + 1, ~last.isnan()
    n = torch.bincount(places[known], minlength=int(places.max()) + 1 if len(places) else 1)
    n_above = torch.bincount(places[known & (last > untrained_loss)], minlength=len(n))
    return (2 * n_above <= n)[places]


def second_mode(last: Tensor, untrained_loss: float) -> float:
    """Return the density at a mode of the losses above L, over that of the valley between it and L / 2.

    Losses of hard samples thin out steadily; those of wrong labels gather above L, where their true class is known.

    Args:
        last: float32 (N,), without NaN.
        untrained_loss: L.

    Returns:
        The largest ratio over all bins of a histogram (of width L / 8, smoothed by 1/4, 1/2, 1/4) from L to 3 L, where
        3 % of the samples or more would be within L at that density, and its lead over the valley is three times its
        standard error, ``sqrt(3/8 (peak + valley))`` for counts; 1 where there is no such bin.

    Example:
        >>> losses = torch.cat([torch.linspace(0, 1, 80), torch.linspace(2.5, 3, 20)])
        >>> second_mode(losses, 2.0) > 10, second_mode(losses[:80], 2.0)
        (True, 1.0)
    """
    x = (last.double() / untrained_loss).clamp(max=_HIGHEST_LOSS)
    counts = torch.histc(x, bins=_BINS_IN_L * _HIGHEST_LOSS, min=0, max=_HIGHEST_LOSS)
    counts[1:-1] = (counts[:-2] + 2 * counts[1:-1] + counts[2:]) / 4
    line = counts[_BINS_IN_L // 2 : 3 * _BINS_IN_L]
    valley = line.cummin(0).values.clamp(min=1 / 4)
    at_mode = line - valley >= _MODE_ERRORS * (3 / 8 * (line + valley)).sqrt()
    at_mode &= line * _BINS_IN_L >= _MODE_SHARE * max(len(last), 1)
    at_mode[: _BINS_IN_L // 2] = False
    return max(1.0, float((line / valley)[at_mode].max())) if bool(at_mode.any()) else 1.0


def weigh_evidence(
    mean: Tensor, previous: Tensor, last: Tensor, untrained_loss: float, judged: Tensor | None = None
) -> Evidence:
    """Measure how much is learnt, and how much stays above the loss of an untrained model.

    Args:
        mean: float32 (N,), the moving average of each sample's losses.
        previous: float32 (N,), the last loss but one; samples of which it is NaN do not count.
        last: float32 (N,), the last loss.
        untrained_loss: L.
        judged: bool (N,), samples whose high loss may contradict their label, :func:`in_learnt_classes`. Default all.

    Example:
        >>> losses = torch.tensor([0.1, 3.0, 3.0, 1.5])
        >>> shown = weigh_evidence(losses, losses, torch.tensor([0.1, 3.0, 1.0, 1.5]), untrained_loss=2.0)
        >>> shown.learnt_share, shown.low_share, shown.above_share, shown.persistence, shown.rise
        (0.25, 0.25, 0.5, 0.5, 1.0)
    """
    known = ~(previous.isnan() | last.isnan())
    n_known = max(int(known.count_nonzero()), 1)
    compared = known if judged is None else known & judged
    above = compared & (previous > untrained_loss)
    n_above = int(above.sum())
    return Evidence(
        untrained_loss=untrained_loss,
        learnt_share=int((known & (mean < _LEARNT_BELOW * untrained_loss)).sum()) / n_known,
        low_share=int((known & (last < untrained_loss / 2)).sum()) / n_known,
        above_share=n_above / n_known,
        persistence=int((above & (last > untrained_loss)).sum()) / max(n_above, 1),
        rise=second_mode(last[compared], untrained_loss),
    )


@dataclass(frozen=True)
class Decision:
    """The kinds of samples that a pass leaves out, and why.

    Attributes:
        passes: Passes over the set that were done when the pass began.
        learnt: True if learnt samples are left out.
        contradicted: True if contradicted samples are left out.
        memory: By how much the passes so far have lowered the losses of what was trained on in them, and of nothing
            else: the sum of ``r - 1`` over all passes, each taken for that of its trial.
        memory_error: Its standard error.
        memorizes: True if that was above 1/4, measurably.
        level: What the losses of contradicted samples are above, in L.
        evidence: What the losses showed.
        epoch: 0-based epoch that the pass begins in.
        n_left_out: Samples that the pass leaves out, but for those of a trial.
        n_contradicted: Of these, the contradicted ones.
    """

    passes: int
    learnt: bool
    contradicted: bool
    evidence: Evidence
    memory: float = 0.0
    memory_error: float = 0.0
    memorizes: bool = False
    level: float = 1.0
    epoch: int = 0
    n_left_out: int = 0
    n_contradicted: int = 0


def decide(passes: int, evidence: Evidence, *, classifies: bool, before: Decision | None) -> Decision:
    """Decide whether learnt and contradicted samples are left out of a pass.

    Contradicted samples are judged after two to four passes, by losses that training has hardly biased yet; that
    stays. Where fewer than 10 % are above L, many of them are only hard, and those above 1.5 L are taken. Learnt ones
    are asked for before every pass, until they are enough or the model is found to memorize.

    Args:
        passes: Passes over the set that are done.
        evidence: What the losses show.
        classifies: True if the losses are those of a classification.
        before: The decision on the pass before, or None.

    Example:
        >>> shown = Evidence(2.3, learnt_share=0.3, low_share=0.5, above_share=0.2, persistence=0.9, rise=1.4)
        >>> made = decide(2, shown, classifies=True, before=None)
        >>> made.learnt, made.contradicted
        (True, True)
    """
    memory, memory_error = (0.0, 0.0) if before is None else (before.memory, before.memory_error)
    if evidence.held_back_ratio is not None and evidence.held_back_error is not None:
        memory += TRIAL_PASSES * (evidence.held_back_ratio - 1)
        memory_error = math.hypot(memory_error, TRIAL_PASSES * evidence.held_back_error)
    memorizes = memory - _ERRORS * memory_error > _MEMORIZED or (before is not None and before.memorizes)
    learnt = before is not None and before.learnt
    if classifies and evidence.learnt_share >= _LEARNT_SHARE:
        learnt = learnt or passes == FIRST_DECISION or evidence.generalizes
    learnt = learnt and not memorizes
    contradicted, level = (False, 1.0) if before is None else (before.contradicted, before.level)
    if classifies and passes in _JUDGED_AFTER and evidence.above_share >= _ABOVE_SHARE and not contradicted:
        contradicted = evidence.contradicts
        if contradicted and evidence.above_share < _MANY_ABOVE:
            level = _LEVEL_OF_FEW
    return Decision(passes, learnt, contradicted, evidence, memory, memory_error, memorizes, level)


def find_contradicted(
    decision: Decision, previous: Tensor, last: Tensor, found_before: Tensor, judged: Tensor | None = None
) -> Tensor:
    """Return which samples the rest contradicts, bool (N,): the last two losses of each are above the decision's level.

    Where the model memorizes, what was found before stays found: of a sample that is trained on all the same, now and
    then, the loss falls, whatever its label.

    Args:
        decision: Has L and the level, and says whether the model memorizes.
        previous: float32 (N,), the last loss but one.
        last: float32 (N,), the last loss.
        found_before: bool (N,), what was found at an earlier pass.
        judged: bool (N,), samples whose high loss may contradict their label. Default all.

    Example:
        >>> shown = Evidence(untrained_loss=2.0, learnt_share=0.3, low_share=0.5, above_share=0.3, persistence=0.5)
        >>> before, losses = torch.tensor([True, False, False]), torch.tensor([0.1, 3.0, 1.0])
        >>> find_contradicted(Decision(4, False, True, shown, memorizes=True), losses, losses, before)
        tensor([ True,  True, False])
    """
    least = decision.level * decision.evidence.untrained_loss
    found = (previous > least) & (last > least)
    if judged is not None:
        found &= judged
    return found | found_before if decision.memorizes else found


def let_go(decision: Decision, mean: Tensor, contradicted: Tensor | None, u: Tensor) -> Tensor:
    """Return which samples a pass leaves out, bool (N,): nine in ten of the learnt ones, and all contradicted ones.

    The tenth keeps the measurements of learnt samples fresh; a tenth of wrong labels, trained on in every pass, is more
    than a model needs.

    Args:
        decision: Says which kinds.
        mean: float32 (N,), the moving average of each sample's losses.
        contradicted: bool (N,), from :func:`find_contradicted`; None if none are left out.
        u: float32 (N,), drawn evenly from [0, 1).

    Example:
        >>> shown = Evidence(untrained_loss=2.0, learnt_share=0.3, low_share=0.5, above_share=0.3, persistence=0.5)
        >>> mean, u = torch.tensor([0.1, 0.1, 3.0, 1.0]), torch.tensor([0.2, 0.95, 0.95, 0.2])
        >>> decision = Decision(2, learnt=True, contradicted=True, evidence=shown)
        >>> let_go(decision, mean, mean > 2, u)
        tensor([ True, False,  True, False])
    """
    learnt = (mean < _LEARNT_BELOW * decision.evidence.untrained_loss) & (u < _LEARNT_LEFT_OUT)
    out = learnt & decision.learnt
    return out if contradicted is None else out | contradicted
