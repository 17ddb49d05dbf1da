"""The rule of Frontier: from the losses when a pass begins, the kinds of samples that the pass leaves out.

Pure functions on tensors; what they are called for, and when, is said in `methods/frontier/callback.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_LEARNT_BELOW = 0.15
_LEARNT_SHARE = 0.2
TRIAL_PASSES = 2
_LARGEST_ERROR = 1 / 6  # of r, for a trial that shows nothing to count as one that found nothing
HELD_BACK, CONTROL = 1.0, 2.0
FIRST_DECISION = 2  # passes done
_PERSISTENCE = {2: 0.65, 3: 0.85}  # by passes done
_ABOVE_SHARE = 0.03
_LOW_SHARE = 0.3  # of losses below half of L


@dataclass(frozen=True)
class Evidence:
    """Evidence in the losses when a pass begins.

    Attributes:
        untrained_loss: L.
        learnt_share: Share of the samples whose moving average is below 0.15 L.
        low_share: Share of the samples whose last loss is below L / 2.
        above_share: Share of the samples whose last loss but one was above L.
        persistence: Share of these whose last loss is above L, too; 0 where there are none.
        held_back_ratio: Mean loss of the samples that the last trial held back, over that of its control; None if
            no trial has ended.
        held_back_error: Standard error of that ratio, or None.
    """

    untrained_loss: float
    learnt_share: float
    low_share: float
    above_share: float
    persistence: float
    held_back_ratio: float | None = None
    held_back_error: float | None = None

    @property
    def memorizes(self) -> bool:
        """True if held-back samples lose measurably more: what is trained on is memorized."""
        return self._is_above(errors=3)

    @property
    def generalizes(self) -> bool:
        """True if a trial that could have shown it did not show that held-back samples lose more."""
        could_tell = self.held_back_error is not None and self.held_back_error < _LARGEST_ERROR
        return could_tell and not self._is_above(errors=2)

    def _is_above(self, errors: int) -> bool:
        if self.held_back_ratio is None or self.held_back_error is None:
            return False
        return self.held_back_ratio > 1 + errors * self.held_back_error


def compare_held_back(last: Tensor, group: Tensor, visits: Tensor) -> tuple[float, float] | tuple[None, None]:
    """Return the mean loss of the held-back samples over that of the control, and its standard error.

    Args:
        last: float32 (N,), the last loss.
        group: float32 (N,), 1 for a sample that was held back, 2 for one of the control.
        visits: float32 (N,), how often each was trained on in the trial; those that are still to come do not count.

    Returns:
        ``r = h / c``, and ``sqrt(var(h) + r^2 var(c)) / c`` by the delta method; None with fewer than two of either.

    Example:
        >>> import torch
        >>> losses, group = torch.tensor([3.0, 5.0, 2.0, 2.0, 9.0]), torch.tensor([1.0, 1, 2, 2, 0])
        >>> compare_held_back(losses, group, visits=group)
        (2.0, 0.5)
    """
    met = ~last.isnan()
    held = last[met & (group == HELD_BACK) & (visits >= 1)].double()
    control = last[met & (group == CONTROL) & (visits >= TRIAL_PASSES)].double()
    if min(len(held), len(control)) < 2 or not bool(control.mean() > 0):
        return None, None
    ratio = held.mean() / control.mean()
    variance = held.var() / len(held) + ratio**2 * control.var() / len(control)
    return float(ratio), float(variance.sqrt() / control.mean())


def weigh_evidence(mean: Tensor, previous: Tensor, last: Tensor, untrained_loss: float) -> Evidence:
    """Measure how much is learnt, and how much stays above the loss of an untrained model.

    Args:
        mean: float32 (N,), the moving average of each sample's losses.
        previous: float32 (N,), the last loss but one; samples of which it is NaN do not count.
        last: float32 (N,), the last loss.
        untrained_loss: L.

    Example:
        >>> import torch
        >>> losses = torch.tensor([0.1, 3.0, 3.0, 1.5])
        >>> shown = weigh_evidence(losses, losses, torch.tensor([0.1, 3.0, 1.0, 1.5]), untrained_loss=2.0)
        >>> shown.learnt_share, shown.low_share, shown.above_share, shown.persistence
        (0.25, 0.25, 0.5, 0.5)
    """
    known = ~(previous.isnan() | last.isnan())
    n_known = max(int(known.sum()), 1)
    above = known & (previous > untrained_loss)
    n_above = int(above.sum())
    return Evidence(
        untrained_loss=untrained_loss,
        learnt_share=int((known & (mean < _LEARNT_BELOW * untrained_loss)).sum()) / n_known,
        low_share=int((known & (last < untrained_loss / 2)).sum()) / n_known,
        above_share=n_above / n_known,
        persistence=int((above & (last > untrained_loss)).sum()) / max(n_above, 1),
    )


@dataclass(frozen=True)
class Decision:
    """The kinds of samples that a pass leaves out, and why.

    Attributes:
        passes: Passes over the set that were done when the pass began.
        learnt: True if learnt samples are left out.
        contradicted: True if contradicted samples are left out.
        memorizes: True if a trial has shown that the model memorizes.
        evidence: What the losses showed.
        epoch: 0-based epoch that the pass begins in.
        n_left_out: Samples that the pass leaves out, but for those of a trial.
    """

    passes: int
    learnt: bool
    contradicted: bool
    evidence: Evidence
    memorizes: bool = False
    epoch: int = 0
    n_left_out: int = 0


def decide(passes: int, evidence: Evidence, *, classifies: bool, before: Decision | None) -> Decision:
    """Decide whether learnt and contradicted samples are left out of a pass.

    Contradicted samples are judged after two passes, or three, by losses that training has hardly biased yet; that
    stays. Learnt ones are asked for before every pass, until they are enough or the model is found to memorize.

    Args:
        passes: Passes over the set that are done.
        evidence: What the losses show.
        classifies: True if the losses are those of a classification.
        before: The decision on the pass before, or None.

    Example:
        >>> shown = Evidence(untrained_loss=2.3, learnt_share=0.3, low_share=0.5, above_share=0.2, persistence=0.9)
        >>> made = decide(2, shown, classifies=True, before=None)
        >>> made.learnt, made.contradicted
        (True, True)
    """
    memorizes = evidence.memorizes or (before is not None and before.memorizes)
    learnt = before is not None and before.learnt
    if classifies and evidence.learnt_share >= _LEARNT_SHARE:
        learnt = learnt or passes == FIRST_DECISION or evidence.generalizes
    learnt = learnt and not memorizes
    contradicted = before is not None and before.contradicted
    can_tell = evidence.above_share >= _ABOVE_SHARE and evidence.low_share >= _LOW_SHARE
    if classifies and passes in _PERSISTENCE and can_tell:
        contradicted = contradicted or evidence.persistence >= _PERSISTENCE[passes]
    return Decision(passes, learnt, contradicted, evidence, memorizes)


def can_go(decision: Decision, mean: Tensor, previous: Tensor, last: Tensor) -> Tensor:
    """Return which samples a decision lets go, bool (N,).

    Args:
        decision: Says which kinds.
        mean: float32 (N,), the moving average of each sample's losses.
        previous: float32 (N,), the last loss but one.
        last: float32 (N,), the last loss.

    Example:
        >>> import torch
        >>> shown = Evidence(untrained_loss=2.0, learnt_share=0.3, low_share=0.5, above_share=0.3, persistence=0.5)
        >>> losses = torch.tensor([0.1, 3.0, 1.0])
        >>> can_go(Decision(2, True, False, shown), losses, losses, losses)
        tensor([ True, False, False])
    """
    untrained = decision.evidence.untrained_loss
    learnt = mean < _LEARNT_BELOW * untrained
    contradicted = (previous > untrained) & (last > untrained)
    return (learnt & decision.learnt) | (contradicted & decision.contradicted)
