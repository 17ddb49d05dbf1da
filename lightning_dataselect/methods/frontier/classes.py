"""The weight of a class in the loss and its share of the samples, so that neither is taken for what a model knows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_dataselect.numerics.masks import marked, places
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.state.selection import Observation

_LEAST_DIFFERENCE = 1e-3


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


def class_weights(untrained: Tensor, plain: Tensor, labels: Tensor) -> Tensor:
    """Return the weight of each class in the loss, over the mean weight of the samples.

    Args:
        untrained: float32 (N,), losses of the untrained model; NaN where there is none.
        plain: float32 (N,), the cross entropies of the same samples, from :func:`plain_losses`.
        labels: Whole numbers (N,), the class of each sample; -1 where it is not known.

    Returns:
        float32 (C + 1,), of class c at c + 1: the sum of its losses over that of its cross entropies, divided by the
        same ratio of all samples. It is 1 for a loss without class weights, and for classes not seen or without weight.

    Example:
        >>> losses, plain = torch.tensor([1.0, 6.0, torch.nan]), torch.tensor([2.0, 3.0, torch.nan])
        >>> class_weights(losses, plain, torch.tensor([0, 1, 1]))
        tensor([1.0000, 0.3571, 1.4286])
    """
    weighed, unweighed = torch.zeros(2, _n_places(labels), dtype=torch.float64)
    for part in parts(len(labels)):
        known = places(~(untrained[part].isnan() | plain[part].isnan()))
        of_known = labels[part].index_select(0, known).long() + 1
        for total, losses in ((weighed, untrained), (unweighed, plain)):
            total.index_add_(0, of_known, losses[part].index_select(0, known).double())
    weights = (weighed / unweighed) / (weighed.sum() / unweighed.sum())
    weights = torch.where((weights > 0) & weights.isfinite(), weights, 1.0)
    return torch.where((weights - 1).abs() < _LEAST_DIFFERENCE, 1.0, weights).float()


def without_weights(losses: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """Return losses divided by the weights of their classes, float32 (N,); the same tensor where all are 1.

    Example:
        >>> without_weights(torch.tensor([1.0, 6.0]), torch.tensor([1.0, 0.5, 1.5]), torch.tensor([0, 1]))
        tensor([2., 4.])
    """
    if bool((weights == 1).all()):
        return losses
    divided = torch.empty_like(losses)
    for part in parts(len(losses)):
        divided[part] = losses[part] / weights.index_select(0, labels[part].long() + 1)
    return divided


def class_priors(labels: Tensor, plain: Tensor) -> Tensor:
    """Return what is lost on a sample of each class by knowing no more than the shares of the classes, in L; at most 1.

    Where nine in ten samples are of one of two classes, a model that knows nothing else loses a seventh of L on them.

    Args:
        labels: Whole numbers (N,), the class of each sample; -1 where it is not known.
        plain: float32 (N,), the cross entropies of the untrained model, from :func:`plain_losses`; NaN where not known.

    Returns:
        float32 (C + 1,), of class c at c + 1: ``-log`` of its share of the samples, over the mean of ``plain``.

    Example:
        >>> class_priors(torch.tensor([0, 0, 0, 1]), torch.full((4,), 0.7))
        tensor([1.0000, 0.4110, 1.0000])
    """
    n = torch.zeros(_n_places(labels), dtype=torch.int64)
    for part in parts(len(labels)):
        n += torch.bincount(labels[part].long() + 1, minlength=len(n))
    n[0] = 0
    priors = -(n / n.sum()).double().log() / mean_of_known(plain)
    return priors.clamp(max=1.0).nan_to_num(1.0).float()


def mean_of_known(values: Tensor) -> float:
    """Return the mean of what is not NaN, as ``nanmean`` does, which takes eight bytes a sample more.

    Example:
        >>> mean_of_known(torch.tensor([1.0, torch.nan, 3.0]))
        2.0
    """
    n = sum(len(values[part]) - int(values[part].isnan().count_nonzero()) for part in parts(len(values)))
    return float(values.nansum() / torch.tensor(n))


def below(values: Tensor, level: float, priors: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
    """Return which values are below a level that is multiplied by the prior of their class, bool (N,).

    Example:
        >>> below(torch.tensor([0.1, 0.3, 0.6]), 0.5, torch.tensor([1.0, 0.1, 1.0]), torch.tensor([0, 1, 1]))
        tensor([False,  True, False])
    """
    if priors is None or labels is None:
        return values < level
    levels = level * priors
    return marked(len(values), lambda part: values[part] < levels.index_select(0, labels[part].long() + 1))


def _n_places(labels: Tensor) -> int:
    return int(labels.max()) + 2 if len(labels) else 1
