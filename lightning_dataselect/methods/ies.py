"""IES: stop training on a sample once the second differences of its loss are near 0.

Yuan, Lin, Feng, Han, Liu, "Instance-dependent Early Stopping", ICLR 2025, arXiv 2502.07547. With ``l_i(t)`` the loss of
sample i in epoch t:

    d_i(t) = l_i(t) - 2 l_i(t-1) + l_i(t-2)
    sample i is mastered if  mean(|d_i(t)|, |d_i(t-1)|, ..., |d_i(t-w+1)|) < delta

Mastered samples are left out of the next epoch. Their losses go on: after the epoch they are measured by a forward
pass, so that a sample whose loss starts to move again is trained on again. The loss is not reweighted. That a sample is
mastered by second differences near 0 is stated in the paper; the window, its mean of absolute values and the defaults
w = 3 (``moving_average_rate``; of such means one counts, ``k``) and delta = 1e-3 (CIFAR-10; twice that on CIFAR-100)
are those of the authors' code, which recommends a delta between 1e-5 and 1e-1. The code wants one difference more than
its window before it stops a sample, hence ``w + 3`` epochs of warm-up.

As in the code a loss is that of the training step for samples that are trained on, and that of eval mode for the
others. Choices of our own: a sample without enough losses, or with one that was not finite, is trained on; where all
samples are mastered the one whose loss moves most is trained on, where the code fails or keeps its last choice.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import marked, positions
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_count, check_number, refuse_arguments


def not_mastered(changes: Tensor, threshold: float) -> Tensor:
    """Return the samples that are still trained on.

    Args:
        changes: float32 (N,), the mean absolute second difference of each sample's last losses; NaN = not known.
        threshold: Of a mastered sample.

    Returns:
        int64 (n,), sorted; the sample of the greatest change where all are mastered.

    Example:
        >>> not_mastered(torch.tensor([0.1, 0.0, float("nan")]), 0.01)
        tensor([0, 2])
    """
    kept = marked(len(changes), lambda part: ~(changes[part] < threshold))
    if not bool(kept.any()):
        kept[changes.argmax()] = True
    return positions(kept)


class IES(DataSelector):
    """Leave out samples whose loss has stopped changing, and keep measuring them by a forward pass.

    Args:
        threshold: Mean absolute second difference below which a sample is mastered (the paper's ``delta``); 0 for none.
            Default 1e-3, that of the authors' CIFAR-10 runs.
        window: Number ``w`` of second differences that are averaged. Default 3, the authors'.
        warmup_epochs: Epochs on all data at the start. Default None: ``window + 3``, as in the authors' code.
        **common: Arguments of `DataSelector` but ``prune_ratio``, ``every_n_epochs`` and ``balance``, which have no
            effect here.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here; if the module optimizes manually, so that
            it cannot be run without training.
        ValueError: If an argument is out of its range.

    Example:
        >>> IES(window=2).warmup_epochs
        5
    """

    rescores = True
    unused: ClassVar[frozenset[str]] = frozenset({"prune_ratio", "every_n_epochs", "balance"})
    info: ClassVar[MethodInfo] = CATALOG["IES"]
    gives_weights: ClassVar[bool] = False
    chosen_by = "threshold"
    other_words: ClassVar[Mapping[str, str]] = {"moving_average_rate": "window", "delta": "threshold"}

    def __init__(
        self,
        *,
        threshold: float = 1e-3,
        window: int = 3,
        warmup_epochs: int | None = None,
        **common: Any,
    ) -> None:
        why = "each epoch leaves out what is mastered by then, as `threshold` says"
        refuse_arguments(type(self).__name__, self.unused, common, why)
        self.threshold = check_number("threshold", threshold)
        if not 0 <= self.threshold < math.inf:
            raise InvalidArgumentError(f"threshold={threshold!r} must be finite and 0 or more: 1e-3 is the authors'.")
        self.window = check_count("window", window, minimum=1)
        super().__init__(
            prune_ratio=0.0,
            every_n_epochs=1,
            balance=None,
            warmup_epochs=self.window + 3 if warmup_epochs is None else warmup_epochs,
            **common,
        )

    def columns(self) -> dict[str, float]:
        """Name the last two losses, and the absolute second differences of the window, the latest first."""
        return {"latest": math.nan, "previous": math.nan, **dict.fromkeys(self._changes, math.nan)}

    @property
    def _changes(self) -> list[str]:
        return [f"change_{age}" for age in range(self.window)]

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Take the second difference, and average those of the window, which is the score."""
        i, latest = seen.indices, store["latest"][seen.indices]
        change = (seen.losses - 2 * latest + store["previous"][i]).abs()
        store["previous"][i], store["latest"][i] = latest, seen.losses
        total = torch.zeros_like(change)
        for name in self._changes:
            store[name][i], change = change, store[name][i]
            total += store[name][i]
        store["score"][i] = total / self.window

    def trains_on_everything(self, epoch: int) -> bool:
        """Return whether ``epoch`` is in the warm-up or the annealing."""
        return self.threshold == 0 or self.in_warmup(epoch) or self.in_annealing(epoch)

    def samples_to_rescore(self, epoch: int) -> Tensor:
        """Return the samples that the epoch that has ended left out."""
        return self.state.plan.left_out(self.store.n)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Take what is not mastered."""
        return Selection(not_mastered(scores, self.threshold))
