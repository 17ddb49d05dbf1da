"""The rule of Frontier: from the evidence when a pass begins, the kinds of samples that the pass leaves out.

Pure functions on tensors; what they are called for, and when, is said in `methods/frontier/callback.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.evidence import ERRORS, MANY_ABOVE, Evidence, is_learnt
from lightning_dataselect.methods.frontier.majorities import share_let_go
from lightning_dataselect.methods.frontier.trial import TRIAL_PASSES
from lightning_dataselect.numerics.masks import marked

_LEARNT_SHARE = 0.2
_LEARNT_LEFT_OUT = 0.9
_MEMORIZED = 0.25
FIRST_DECISION = 2  # passes done
_JUDGED_AFTER = (2, 3, 4)  # passes done
_PASSES_TO_CHECK = 6  # that a fit must have room for
_ABOVE_SHARE = 0.03
_LEVEL_OF_FEW = 1.5  # in L


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
        suspected: True once losses were such as wrong labels have.
        gathered: True if they were at a second mode then, with a gap before them.
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
    suspected: bool = False
    gathered: bool = False
    level: float = 1.0
    epoch: int = 0
    n_left_out: int = 0
    n_contradicted: int = 0

    @property
    def is_final(self) -> bool:
        """True if nothing will be left out after it: the model memorizes, and no label was suspected in time."""
        return self.passes >= _JUDGED_AFTER[-1] and self.memorizes and not self.suspected


def decide(passes: int, evidence: Evidence, *, before: Decision | None, planned_passes: float = math.inf) -> Decision:
    """Decide whether learnt and contradicted samples are left out of a pass.

    High losses are judged after two to four passes, which training has hardly biased yet. Where fewer than 10 % are
    above L, many of them are only hard, and those above 1.5 L are taken. What gathers at a second mode stays
    contradicted. What only stays above L does so from the fifth pass on if the model probably memorizes, which would
    learn wrong labels by heart. If it does not, classes overlap, and a loss says little of a label there, high or low:
    while many losses stay above L and nothing confirms them, learnt samples stay in. These are asked for before every
    pass, until they are enough or the model is found to memorize.

    Args:
        passes: Passes over the set that are done.
        evidence: What the losses show.
        before: The decision on the pass before, or None.
        planned_passes: Passes over everything that the budget has room for: with fewer than six there is none to check
            whether the model memorizes.

    Example:
        >>> shown = Evidence(2.3, learnt_share=0.3, low_share=0.5, above_share=0.2, persistence=0.9, rise=1.4)
        >>> made = decide(2, shown, before=None)
        >>> made.learnt, made.contradicted
        (True, True)
    """
    memory, memory_error = (0.0, 0.0) if before is None else (before.memory, before.memory_error)
    if evidence.held_back_ratio is not None and evidence.held_back_error is not None:
        memory += TRIAL_PASSES * (evidence.held_back_ratio - 1)
        memory_error = math.hypot(memory_error, TRIAL_PASSES * evidence.held_back_error)
    memorizes = memory - ERRORS * memory_error > _MEMORIZED or (before is not None and before.memorizes)
    suspected, gathered, level = (
        (False, False, 1.0) if before is None else (before.suspected, before.gathered, before.level)
    )
    can_check = evidence.has_second_mode or planned_passes >= _PASSES_TO_CHECK
    judges = passes in _JUDGED_AFTER and evidence.above_share >= _ABOVE_SHARE and can_check
    if judges and not gathered and evidence.contradicts:
        if not suspected and evidence.above_share < MANY_ABOVE:
            level = _LEVEL_OF_FEW
        suspected, gathered = True, evidence.has_second_mode
    confirmed = gathered or memorizes or memory - memory_error > _MEMORIZED
    is_settled = passes > _JUDGED_AFTER[-1]
    learnt = before is not None and before.learnt
    if evidence.learnt_share >= _LEARNT_SHARE:
        learnt = learnt or passes == FIRST_DECISION or evidence.generalizes
    overlaps = not confirmed and evidence.many_stay_above
    return Decision(
        passes,
        learnt=learnt and not memorizes and not overlaps,
        contradicted=suspected and (confirmed or not is_settled),
        evidence=evidence,
        memory=memory,
        memory_error=memory_error,
        memorizes=memorizes,
        suspected=suspected,
        gathered=gathered,
        level=level,
    )


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

    def is_found(part: slice) -> Tensor:
        found = (previous[part] > least) & (last[part] > least)
        if judged is not None:
            found &= judged[part]
        return found | found_before[part] if decision.memorizes else found

    return marked(len(last), is_found)


def shares_let_go(
    decision: Decision, mean: Tensor, contradicted: Tensor | None, priors: Tensor, labels: Tensor, predicted: Tensor
) -> Tensor:
    """Return which share of the learnt samples of each class a pass leaves out, float32 (C + 1,); 0 where none are.

    Nine in ten, and fewer of a class where another label would take it over (:func:`~.majorities.share_let_go`).

    Args:
        decision: Says which kinds.
        mean: float32 (N,), the moving average of each sample's losses.
        contradicted: bool (N,), from :func:`find_contradicted`; None if none are left out.
        priors: float32 (C + 1,), as :func:`~.evidence.is_learnt` takes them.
        labels: Whole numbers (N,), the class of each sample; -1 where it is not known.
        predicted: Whole numbers (N,), the class that the model took it for; -1 where it is not known.

    Example:
        >>> import torch
        >>> shown = Evidence(untrained_loss=2.0, learnt_share=0.3, low_share=0.5, above_share=0.3, persistence=0.5)
        >>> decision, labels = Decision(2, learnt=True, contradicted=False, evidence=shown), torch.zeros(4)
        >>> shares_let_go(decision, torch.tensor([0.1, 0.1, 3.0, 1.0]), None, torch.ones(2), labels, labels)
        tensor([0.9000, 0.9000])
    """
    if not decision.learnt:
        return torch.zeros_like(priors)

    def learnt(part: slice) -> Tensor:
        return is_learnt(mean[part], decision.evidence.untrained_loss, priors, labels[part])

    return share_let_go(learnt, contradicted, labels, predicted, _LEARNT_LEFT_OUT)


def let_go(
    decision: Decision,
    mean: Tensor,
    contradicted: Tensor | None,
    u: Tensor,
    shares: Tensor,
    priors: Tensor,
    labels: Tensor,
) -> Tensor:
    """Return which samples a pass leaves out, bool (N,): most of the learnt ones, and all contradicted ones.

    Those that stay keep the measurements of learnt samples fresh; a tenth of wrong labels, trained on in every pass, is
    more than a model needs.

    Args:
        decision: Says which kinds.
        mean: float32 (N,), the moving average of each sample's losses.
        contradicted: bool (N,), from :func:`find_contradicted`; None if none are left out.
        u: float32 (N,), drawn evenly from [0, 1).
        shares: float32 (C + 1,), from :func:`shares_let_go`.
        priors: float32 (C + 1,), as :func:`~.evidence.is_learnt` takes them.
        labels: Whole numbers (N,), the class of each sample; -1 where it is not known.

    Example:
        >>> shown = Evidence(untrained_loss=2.0, learnt_share=0.3, low_share=0.5, above_share=0.3, persistence=0.5)
        >>> mean, u = torch.tensor([0.1, 0.1, 3.0, 1.0]), torch.tensor([0.2, 0.95, 0.95, 0.2])
        >>> decision, labels = Decision(2, learnt=True, contradicted=True, evidence=shown), torch.zeros(4)
        >>> let_go(decision, mean, mean > 2, u, torch.full((2,), 0.9), torch.ones(2), labels)
        tensor([ True, False,  True, False])
    """
    out = torch.zeros(len(mean), dtype=torch.bool)
    if decision.learnt:
        out = is_learnt(mean, decision.evidence.untrained_loss, priors, labels) & (u < shares[labels.long() + 1])
    return out if contradicted is None else out | contradicted
