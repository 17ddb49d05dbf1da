"""SeTa: a random subset, grouped by loss, and a window of groups that slides from easy to hard.

Zhou, Gao, Wang, "Scale Efficient Training for Large Datasets", CVPR 2025, arXiv 2503.13385.

For the t-th selection, with prune ratio ``r``, ``K`` groups and window scale ``alpha``:

    1. draw (1-r) N samples uniformly
    2. one-dimensional k-means of their losses into K groups, from easy to hard
    3. w = round(K alpha);  keep the groups  s .. s+w-1  with  s = t mod (K - w + 1)

From the share ``delta`` of the epochs on (``1 - anneal``): step 1 alone. ``round`` is that of the
authors' code (to even: 4.5 gives 4). The loss is not reweighted. Choices of our own: samples whose
loss is unknown are drawn first and always kept (the authors give them a made-up loss), so that the
first selection of a fit takes all groups as theirs does; k-means in
one dimension is solved by dynamic programming instead of from random centres; the number drawn is rounded to
the nearest instead of down. Where ``delta`` times the number of epochs is no whole number, theirs anneals from
the whole number below, here from the first epoch that begins at that share or later.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.ascending import ascending
from lightning_dataselect.numerics.kmeans import group_limits
from lightning_dataselect.numerics.masks import marked, positions
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import uniform_among
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Selection
from lightning_dataselect.utils.validation import check_count, check_share


def seta(
    losses: Tensor,
    prune_ratio: float,
    n_groups: int,
    window_scale: float,
    step: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the samples of one selection.

    Args:
        losses: float32 (N,), NaN = never measured; those are drawn first and kept.
        prune_ratio: Share dropped at random before the groups are made.
        n_groups: Number of groups.
        window_scale: Share of the groups that the window holds.
        step: 0-based selection, which places the window.
        generator: Source of the random numbers.

    Returns:
        int64 (n,), sorted.

    Example:
        >>> losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> seta(losses, 0.0, 5, 0.8, 1, torch.Generator().manual_seed(0)).tolist()
        [1, 2, 3, 4]
    """
    known = _known(losses)
    kept = _draw(known, prune_ratio, generator)
    ordered = ascending(losses, lambda part: kept[part] & known[part])
    if len(ordered):
        limits = group_limits(ordered, n_groups)
        del ordered
        width = max(round((len(limits) + 1) * window_scale), 1)
        start = step % (len(limits) + 2 - width)
        ends = torch.cat([limits.new_tensor([-torch.inf]), limits, limits.new_tensor([torch.inf])])
        least, most = float(ends[start]), float(ends[start + width])

        def is_kept(part: slice) -> Tensor:
            return kept[part] & (~known[part] | ((losses[part] > least) & (losses[part] <= most)))

        kept = marked(len(losses), is_kept, out=kept)
    return positions(kept)


def _known(losses: Tensor) -> Tensor:
    return marked(len(losses), lambda part: losses[part].isfinite())


def _draw(known: Tensor, prune_ratio: float, generator: torch.Generator) -> Tensor:
    """Draw the share that is kept, those that are not known first, bool (N,)."""
    k, n_unknown = keep_count(len(known), prune_ratio), len(known) - int(known.count_nonzero())
    if k <= n_unknown:
        return uniform_among(~known, k, generator)
    drawn = uniform_among(known, k - n_unknown, generator)
    return marked(len(known), lambda part: drawn[part] | ~known[part], out=drawn)


class SeTa(DataSelector):
    """Drop redundant samples at random, then those too easy or too hard for the stage.

    Args:
        prune_ratio: Share dropped at random; what lies outside the window is dropped on top.
            Default 0.1, the authors'.
        n_groups: Number of groups of like loss. Default 5, the authors'.
        window_scale: Share of the groups trained on. Default 0.9, the authors'.
        anneal: Share of the epochs at the end that train on a uniform subset, without groups.
            Default 0.125, the authors' ``delta = 0.875``.
        warmup_epochs: Epochs on all data at the start. Default 0.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> selector = SeTa(prune_ratio=0.0, window_scale=0.8)
        >>> losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> selector.select(2, losses, torch.Generator().manual_seed(0)).indices
        tensor([0, 1, 2, 3])
    """

    info: ClassVar[MethodInfo] = CATALOG["SeTa"]
    gives_weights: ClassVar[bool] = False
    other_words: ClassVar[Mapping[str, str]] = {"num_group": "n_groups", "num_groups": "n_groups"}

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.1,
        n_groups: int = 5,
        window_scale: float = 0.9,
        anneal: float = 0.125,
        warmup_epochs: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, anneal=anneal, warmup_epochs=warmup_epochs, **common)
        self.n_groups = check_count("n_groups", n_groups, minimum=1)
        self.window_scale = check_share("window_scale", window_scale)

    def trains_on_everything(self, epoch: int) -> bool:
        """Return whether ``epoch`` is in the warm-up; annealing takes a uniform subset."""
        return self.in_warmup(epoch)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Place the window by how many selections there were."""
        if self.in_annealing(epoch):
            return Selection(positions(_draw(_known(scores), self.prune_ratio, generator)))
        step = (epoch - self.first_epoch - self.warmup_epochs) // self.every_n_epochs
        chosen = seta(scores, self.prune_ratio, self.n_groups, self.window_scale, step, generator)
        return Selection(chosen)
