"""Evenly from strata of equal width: coverage of all scores, however many samples each of them has."""

import math

import torch
from torch import Tensor

from lightning_dataselect.numerics.groups import top_of_groups
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import placement


def strata(scores: Tensor, n_strata: int) -> Tensor:
    """Return in which of ``n_strata`` intervals of equal width, from the least to the greatest, each score lies.

    Args:
        scores: float32 (n,), n of at least 1, finite but for -inf, which counts as the least.
        n_strata: Number of intervals.

    Returns:
        int32 (n,), 0 to ``n_strata - 1``; the greatest score lies in the last, unless all are equal.

    Example:
        >>> strata(torch.tensor([0.0, 0.4, 0.5, 1.0]), 2)
        tensor([0, 0, 1, 1], dtype=torch.int32)
    """
    places, (least, greatest) = torch.zeros(len(scores), dtype=torch.int32), _finite_range(scores)
    if not greatest > least:
        return places
    for part in parts(len(scores)):
        values = scores[part].double().clamp_(min=least)
        places[part] = values.sub_(least).div_(greatest - least).mul_(n_strata).int().clamp_(max=n_strata - 1)
    return places


def _finite_range(scores: Tensor) -> tuple[float, float]:
    least, greatest = math.inf, -math.inf
    for part in parts(len(scores)):
        values = scores[part]
        if not bool(torch.stack(values.aminmax()).isfinite().all()):
            values = values[values.isfinite()]
        if len(values):
            least, greatest = min(least, float(values.min())), max(greatest, float(values.max()))
    return least, greatest


def even_budgets(sizes: Tensor, k: int) -> Tensor:
    """Share ``k`` as evenly as the sizes allow: the smallest first, what they cannot take goes to the others.

    Args:
        sizes: int64 (s,).
        k: Number to share, at most their sum.

    Returns:
        int64 (s,), none above its size, ``k`` in all.

    Example:
        >>> even_budgets(torch.tensor([1, 9, 5]), 9)
        tensor([1, 4, 4])
    """
    budgets, left = torch.zeros_like(sizes), k
    by_size = sizes.sort(stable=True)
    for place, (size, stratum) in enumerate(zip(by_size.values.tolist(), by_size.indices.tolist(), strict=True)):
        budgets[stratum] = min(size, left // (len(sizes) - place))
        left -= int(budgets[stratum])
    return budgets


def stratified_subset(scores: Tensor, k: int, n_strata: int, generator: torch.Generator) -> Tensor:
    """Draw ``k`` samples as evenly as can be from strata of the scores, uniformly within each.

    Args:
        scores: float32 (n,), finite but for -inf.
        k: Number to draw, ``0 <= k <= n``.
        n_strata: Number of strata, of equal width.
        generator: Source of the random numbers.

    Returns:
        bool (n,), True for those drawn.

    Example:
        >>> scores = torch.tensor([0.0, 0.1, 0.1, 0.2, 1.0])
        >>> stratified_subset(scores, 2, 2, torch.Generator().manual_seed(0))[4].item()
        True
    """
    if len(scores) == 0:
        return torch.zeros(0, dtype=torch.bool)
    of_sample = strata(scores, n_strata)
    sizes = torch.zeros(n_strata, dtype=torch.int64)
    for part in parts(len(scores)):
        sizes += torch.bincount(of_sample[part], minlength=n_strata)
    keys = placement().empty((len(scores),), torch.int32).random_(generator=generator)
    return top_of_groups(keys, lambda part: of_sample[part].long(), even_budgets(sizes, k))
