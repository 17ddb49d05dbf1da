"""Dynamic random pruning: a fresh random subset each epoch.

Okanovic, Waleffe, Mageirakos, Nikolakakis, Karbasi, Kalogerias, Gurel, Rekatsinas, "Repeated Random
Sampling for Minimizing the Time-to-Accuracy of Learning" (RS2), ICLR 2024, arXiv 2305.18424.

With ``N`` samples and ``k`` kept (the share ``1 - prune_ratio``), epoch ``e`` trains on

    fresh: S_e = k of N, uniformly, drawn anew
    walk:  S_e = { pi[(e k + j) mod N] : j = 0 .. k-1 },  pi a permutation of the N samples

The walk goes through a shuffled set without repetition until it is used up, then again. The paper
shuffles anew after each pass; here that happens where a whole number of epochs makes a whole number
of passes, so that no sample can be taken twice in an epoch, whatever the ratio.

The paper's loss is not reweighted. ``rescale=True``, for comparison with methods that do, weighs each
kept sample ``1 / (1 - prune_ratio)``: the sum over an epoch then estimates the sum over all samples.
"""

from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import mask_of, positions
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import uniform_subset
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.numerics.shuffle import random_order
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Selection
from lightning_dataselect.utils.errors import InvalidArgumentError, UnexpectedArgumentError
from lightning_dataselect.utils.validation import check_choice, check_flag

_LONGEST_PERIOD = 100


def walk(n: int, k: int, step: int, seed: int) -> Tensor:
    """Return the ``k`` samples of step ``step`` of a walk through the shuffled set.

    A pure function of its arguments. No sample comes again before all others have come. The set is
    shuffled anew after the least number of steps that makes whole passes; where that would be more
    than ``max(100, n / k)`` steps, after the number that comes nearest, and then up to ``n / 100``
    samples have come once more or less than the others.

    Args:
        n: Number of samples.
        k: Samples a step, ``1 <= k <= n``.
        step: 0-based step.
        seed: Seed of the shuffles.

    Returns:
        int64, shape (k,), sorted, unique.

    Example:
        >>> sorted(walk(6, 3, 0, seed=0).tolist() + walk(6, 3, 1, seed=0).tolist())
        [0, 1, 2, 3, 4, 5]
    """
    longest = max(_LONGEST_PERIOD, -(-n // k))
    period = Fraction(k, n).limit_denominator(longest).denominator
    order = random_order(n, epoch_generator(seed, step // period, "walk"))
    start = (step % period) * k % n
    taken = mask_of(n, order[start : start + k]).logical_or_(mask_of(n, order[: max(start + k - n, 0)]))
    return positions(taken)


class RandomPruning(DataSelector):
    """Train on a random subset each epoch: the baseline that every other method has to beat.

    Args:
        prune_ratio: Share of the samples dropped each epoch. Default 0.5.
        mode: ``"fresh"`` (default) draws a new subset each epoch; ``"walk"`` goes through the shuffled set,
            so that every sample is seen equally often.
        warmup_epochs: Epochs on all data at the start. Default 0: there is nothing to measure.
        rescale: Multiply the loss of each kept sample by ``1 / (1 - prune_ratio)``. Default False, as in
            the paper. Needs per-sample losses.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If ``mode`` is unknown, ``"walk"`` is given a ratio that changes, or `DataSelector` refuses a common
            argument.

    Example:
        >>> selector = RandomPruning(prune_ratio=0.75)
        >>> len(selector.select(0, torch.zeros(8), torch.Generator().manual_seed(0)).indices)
        2
    """

    needs_losses: ClassVar[bool] = False
    info: ClassVar[MethodInfo] = CATALOG["RandomPruning"]

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        mode: Literal["fresh", "walk"] = "fresh",
        warmup_epochs: int = 0,
        rescale: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, **common)
        self.mode = check_choice("mode", mode, ("fresh", "walk"))
        if self.mode == "walk" and self.ratio_schedule is not None:
            raise InvalidArgumentError(
                f"prune_ratio={prune_ratio!r} changes from epoch to epoch, but mode='walk' goes through the set in"
                " equal steps: give a number, or mode='fresh'."
            )
        self.rescale = check_flag("rescale", rescale)
        if self.logged_loss == "weighted" and not rescale:
            raise UnexpectedArgumentError(
                f"{type(self).__name__} has no use for logged_loss='weighted' without rescale=True: no sample is"
                " weighted then, so both values log the same loss. Leave it out, or rescale."
            )
        # Weights that cannot reach the loss must be an error, not a warning.
        self.needs_losses = rescale  # type: ignore[misc]

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Draw the epoch's samples; ``scores`` only says how many there are."""
        n = len(scores)
        k = keep_count(n, self.prune_ratio)
        if self.mode == "walk":
            step = (epoch - self.first_epoch - self.warmup_epochs) // self.every_n_epochs
            indices = walk(n, k, step, self.draw_seed)
        else:
            indices = uniform_subset(n, k, generator)
        weights = torch.full((k,), 1 / (1 - self.prune_ratio)) if self.rescale else None
        return Selection(indices, weights)
