"""The weight of a class in the loss and its share of the samples, so that neither is taken for what a model knows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_dataselect.state.selection import Observation


def plain_losses(seen: Observation) -> Tensor | None:
    """Return the cross entropy of each sample without weights, float32 (B,); None where no classes were seen.

    Example:
        >>> seen = Observation(torch.arange(2), torch.zeros(2), torch.zeros(2, 4), torch.tensor([0, -1]), epoch=0)
        >>> plain_losses(seen)
        tensor([1.3863,    nan])
    """
    logits, targets = seen.logits, seen.targets
    if logits is None or targets is None or logits.shape[1] < 2:
        return None
    if targets.dim() == 2:
        return cross_entropy(logits.float(), targets.float(), reduction="none")
    # clamped, then blanked: some mark samples without a class by a number that is none, as a loss may ignore it
    classes = targets.clamp(0, logits.shape[1] - 1)
    return cross_entropy(logits.float(), classes, reduction="none").masked_fill(classes != targets, torch.nan)


def class_scale(untrained: Tensor, plain: Tensor, labels: Tensor) -> Tensor:
    """Return the weight of each sample's class in the loss, over the mean weight.

    Args:
        untrained: float32 (N,), losses of the untrained model; NaN where there is none.
        plain: float32 (N,), the cross entropies of the same samples, from :func:`plain_losses`.
        labels: int64 (N,), the class of each sample; -1 where it is not known.

    Returns:
        float32 (N,): for class c the sum of its losses over that of its cross entropies, divided by the same ratio of
        all samples. It is 1 for a loss without class weights, and for classes of which none was seen or none counts.

    Example:
        >>> losses, plain = torch.tensor([1.0, 6.0, torch.nan]), torch.tensor([2.0, 3.0, torch.nan])
        >>> class_scale(losses, plain, torch.tensor([0, 1, 1]))
        tensor([0.3571, 1.4286, 1.4286])
    """
    known = ~(untrained.isnan() | plain.isnan())
    places = labels + 1
    n_places = int(places.max()) + 1 if len(places) else 1
    weighed, unweighed = (
        torch.zeros(n_places, dtype=torch.float64).index_add_(0, places[known], losses[known].double())
        for losses in (untrained, plain)
    )
    scale = (weighed / unweighed) / (weighed.sum() / unweighed.sum())
    return torch.where((scale > 0) & scale.isfinite(), scale, 1.0)[places].float()


def prior_scale(labels: Tensor, plain: Tensor) -> Tensor:
    """Return what the loss of a sample is when no more than the shares of the classes are known, in L; at most 1.

    Where nine in ten samples are of one of two classes, a model that knows nothing else loses a seventh of L on them.

    Args:
        labels: int64 (N,), the class of each sample; -1 where it is not known.
        plain: float32 (N,), the cross entropies of the untrained model, from :func:`plain_losses`; NaN where not known.

    Returns:
        float32 (N,): ``-log`` of the share of the sample's class, over the mean of ``plain``.

    Example:
        >>> prior_scale(torch.tensor([0, 0, 0, 1]), torch.full((4,), 0.7))
        tensor([0.4110, 0.4110, 0.4110, 1.0000])
    """
    n = torch.bincount(labels + 1).double()
    n[0] = 0
    scale = -(n / n.sum()).log() / float(plain.nanmean())
    return scale.clamp(max=1.0).nan_to_num(1.0).float()[labels + 1]
