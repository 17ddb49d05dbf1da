"""OrderDP: a uniform subset, and of it the samples of the highest last loss.

Jin, Xu, Wang, Jia, Chen, Zeng, "OrderDP: A Theoretically Guaranteed Lossless Dynamic Data Pruning Framework",
ICLR 2026, arXiv 2606.08574. Before each epoch, of N samples with the last losses ``l_i``:

    1. draw s of N samples uniformly
    2. train on the q of them with the highest l_i

The number is exact in every epoch, and the loss is not reweighted: the paper shows that the mean gradient of such a
subset is that of a surrogate loss, in which a sample counts by its chance of being among the q, without bias. It prunes
in every epoch to the end; there is no annealing. All of this is as in the authors' code.

The authors give s / N and q / s. Here ``prune_ratio`` says what is dropped, ``q = (1 - prune_ratio) N``, and
``random_ratio`` is their s / N. The defaults, 0.4 and 0.75, are those of their ResNet-50 run on ImageNet (0.75 and
q / s = 0.8); their CIFAR example has s / N = 0.8 and q / s = 0.375, which drops 70 %.

Choices of our own: q and s are rounded to the nearest, where the code rounds down; ties are broken at random; samples
never measured come first, where the code gives them a loss of 3 (CIFAR) or 1 (ImageNet) to begin with, so that in
either case the first epoch is a uniform subset. Batches are filled up by chance.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import positions
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import top_among, uniform_among
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Selection
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_share

_RANDOM_RATIO = 0.75  # that of the authors' ImageNet run


def order_subset(losses: Tensor, drawn: int, kept: int, generator: torch.Generator) -> Tensor:
    """Return the ``kept`` samples of the highest loss among ``drawn`` that chance has picked.

    Args:
        losses: float32 (N,), NaN = never measured; those come first.
        drawn: Size of the uniform subset, ``kept <= drawn <= N``.
        kept: Size of the result.
        generator: Source of the random numbers.

    Returns:
        int64 (kept,), sorted.

    Example:
        >>> losses = torch.tensor([1.0, 4.0, 2.0, 3.0])
        >>> order_subset(losses, 4, 2, torch.Generator().manual_seed(0)).tolist()
        [1, 3]
    """
    subset = uniform_among(torch.ones(len(losses), dtype=torch.bool), drawn, generator)
    return positions(top_among(losses, subset, kept, generator))


class OrderDP(DataSelector):
    """Train on the highest losses of a random subset, drawn anew for each epoch.

    Args:
        prune_ratio: Share of the samples dropped in every epoch. Default 0.4, that of the authors' ImageNet run.
        random_ratio: Share of the samples that the first step draws, at least ``1 - prune_ratio``; with exactly that
            the subset is uniform, with 1 it has the highest losses of all. Default None: 0.75, the authors', or the
            share that an epoch keeps if that is more.
        warmup_epochs: Epochs on all data at the start. Default 0: what was never measured is drawn uniformly.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> selector = OrderDP(prune_ratio=0.5, random_ratio=1.0)
        >>> selector.select(1, torch.tensor([0.1, 3.0, 1.0, 2.0]), torch.Generator().manual_seed(0)).indices
        tensor([1, 3])
    """

    info: ClassVar[MethodInfo] = CATALOG["OrderDP"]
    gives_weights: ClassVar[bool] = False
    other_words: ClassVar[Mapping[str, str]] = {
        "random_len_ratio": "random_ratio",
        "top_q_ratio": "prune_ratio, which is 1 - random_len_ratio * top_q_ratio",
    }

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.4,
        random_ratio: float | None = None,
        warmup_epochs: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, **common)
        self.random_ratio = _RANDOM_RATIO if random_ratio is None else check_share("random_ratio", random_ratio)
        fewest = round(1 - self.prune_ratio, 9)
        if random_ratio is not None and self.ratio_schedule is None and random_ratio < fewest:
            raise InvalidArgumentError(
                f"random_ratio={random_ratio!r} draws fewer samples than prune_ratio={prune_ratio!r} keeps: give"
                f" random_ratio={fewest} or more, up to 1."
            )

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Draw, and take the highest of the last losses, which are the scores."""
        n = len(scores)
        kept = keep_count(n, self.prune_ratio)
        drawn = max(keep_count(n, round(1 - self.random_ratio, 9)), kept)
        return Selection(order_subset(scores, drawn, kept, generator))

    def line_up(self, scores: Tensor) -> Tensor:
        """Let chance decide who fills up a batch."""
        return torch.zeros_like(scores)
