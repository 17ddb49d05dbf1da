"""The samples that a pass of Frontier leaves out by a decision. Pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.evidence import is_learnt
from lightning_dataselect.methods.frontier.majorities import share_let_go
from lightning_dataselect.methods.frontier.rule import Decision
from lightning_dataselect.numerics.masks import marked

_LEARNT_LEFT_OUT = 0.9


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
        >>> from lightning_dataselect.methods.frontier import Evidence
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
        >>> from lightning_dataselect.methods.frontier import Evidence
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
        >>> from lightning_dataselect.methods.frontier import Evidence
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
