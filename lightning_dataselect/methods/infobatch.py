"""InfoBatch: drop easy samples at random and give their weight to the easy ones that stay.

Qin, Wang, Zheng, Gu, Peng, Xu, Zhou, Shang, Sun, Xie, You, "InfoBatch: Lossless Training Speed Up by
Unbiased Dynamic Data Pruning", ICLR 2024, arXiv 2303.04947.

With ``l_i`` the last loss of sample i, ``m`` the mean of those known, and ``r`` the prune ratio:

    l_i >= m or unknown : kept, weight 1
    l_i <  m            : dropped with probability r, else weight 1 / (1 - r)

so that the expected weighted sum is the sum over all samples. From the share ``delta`` of the epochs
on (``1 - anneal``) everything is trained on with weight 1. As in the authors' code the number of easy
samples dropped is fixed, not binomial; each is still dropped with probability ``r``, up to rounding.

What differs from that code. It rounds the number of easy samples kept down, here it is rounded to the nearest; it
keeps a tenth of them whatever ``r`` says, here they are as few as ``r`` leaves. Where ``delta`` times the number of
epochs is no whole number, it anneals from the whole number below, here from the first epoch that begins at that share
or later; and it then leaves the last pruned epoch's weights on, here they are 1.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import marked, positions
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import placement
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import uniform_among
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Selection

_PART = 1 << 20  # whose sums are added up


def infobatch(losses: Tensor, prune_ratio: float, generator: torch.Generator) -> Selection:
    """Drop the share ``prune_ratio`` of the samples whose loss is below the mean.

    Args:
        losses: float32 (N,); values that are not finite count as unknown and are kept.
        prune_ratio: Share of the samples below the mean that is dropped, in [0, 1).
        generator: Source of the random numbers.

    Returns:
        The samples kept, with weights ``1 / (1 - prune_ratio)`` below the mean, 1 elsewhere.

    Example:
        >>> losses = torch.tensor([0.0, 0.0, 9.0, float("nan")])
        >>> infobatch(losses, 0.5, torch.Generator().manual_seed(0)).weights
        tensor([2., 1., 1.])
    """
    below, weight_of = _below_mean(losses), torch.tensor([1.0, 1 / (1 - prune_ratio)])
    n_kept = keep_count(int(below.count_nonzero()), prune_ratio)
    indices = positions(uniform_among(below, n_kept, generator).logical_or_(~below))
    weights = placement().empty((len(indices),), torch.float32)
    for part in parts(len(indices)):
        of_easy = below.index_select(0, indices[part]).int()
        torch.index_select(weight_of, 0, of_easy, out=weights[part])
    return Selection(indices, weights)


def _below_mean(losses: Tensor) -> Tensor:
    total, n_known = torch.zeros((), dtype=torch.float64), 0
    for part in losses.split(_PART):
        known = part.isfinite()
        total += torch.where(known, part, 0.0).sum(dtype=torch.float64)
        n_known += int(known.sum())
    mean = float(total) / n_known if n_known else math.nan
    return marked(len(losses), lambda part: (losses[part] < mean) & losses[part].isfinite())


class InfoBatch(DataSelector):
    """Drop samples below the mean loss at random and reweigh the rest of that group.

    Args:
        prune_ratio: Share of the samples *below the mean loss* that is dropped (the paper's ``r``),
            so that the share dropped of all samples is smaller. Default 0.5, the paper's.
        anneal: Share of the epochs at the end on all data. Default 0.125, the paper's
            ``delta = 0.875``.
        warmup_epochs: Epochs on all data at the start. Default 0: samples without a loss are kept,
            so the first epoch takes everything anyway.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If `DataSelector` refuses an argument.

    Example:
        >>> selector = InfoBatch(prune_ratio=0.5)
        >>> losses = torch.tensor([0.1, 0.1, 0.1, 0.1, 9.0])
        >>> selector.select(1, losses, torch.Generator().manual_seed(0)).weights
        tensor([2., 2., 1.])
    """

    info: ClassVar[MethodInfo] = CATALOG["InfoBatch"]

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        anneal: float = 0.125,
        warmup_epochs: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, anneal=anneal, warmup_epochs=warmup_epochs, **common)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Choose by the last losses, which are the scores."""
        return infobatch(scores, self.prune_ratio, generator)
