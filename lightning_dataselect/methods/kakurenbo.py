"""KAKURENBO: hide samples that are learnt, and make up for the missing steps with longer ones.

Nguyen, Gerofi, Martinez-Noriega, Trahay, Wahib, "KAKURENBO: Adaptively Hiding Samples in Deep Neural Network
Training", NeurIPS 2023, arXiv 2310.10102.

Before each epoch, with ``F`` the share that may be hidden and ``p_i = max_c softmax(f(x_i))_c``:

    1. take the F N samples of the lowest losses
    2. move those back that are predicted wrong or with p_i < tau; the others are hidden, a share F* <= F
    3. train on the rest with the learning rate  eta / (1 - F*)

and after it renew loss, correctness and confidence of the hidden samples by a forward pass; those of the others are
as training last saw them. ``F`` falls: x1, then x0.8, x0.6 and x0.4 from the shares 0.3, 0.6 and 0.8 of the epochs
on, which is where the authors' CIFAR-100 and ImageNet runs lower it (epochs 60, 120, 160 of 200). Where the number of
epochs is unknown it stays. Their scripts take the softmax of ``p_i`` over the batch, so that few samples seem sure, and
divide the learning rate by ``1 - F``: here the softmax is over the classes, and ``F*`` what is hidden. Choices of our
own: ties in the loss are broken at random; a sample never measured is never hidden; no sample is hidden in an annealing
epoch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.classification import correct, logits_and_targets
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import marked, positions
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import top_mask
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_flag, check_sequence, check_share

_FALL = 0.2  # of F, at each phase


def certainty(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the probability of the predicted class where the prediction is right, else 0.

    Args:
        logits: (B, C), any float dtype.
        targets: int64 (B,), or soft (B, C), of which the largest entry counts.

    Returns:
        float32 (B,).

    Example:
        >>> certainty(torch.tensor([[0.0, 0.0], [-50.0, 50.0]]), torch.tensor([1, 1]))
        tensor([0., 1.])
    """
    confidence = logits.float().softmax(1).amax(1)
    return torch.where(correct(logits, targets), confidence, 0.0)


def hidden_samples(
    losses: Tensor, certainties: Tensor, prune_ratio: float, tau: float, generator: torch.Generator
) -> Tensor:
    """Return the samples to hide.

    Args:
        losses: float32 (N,), NaN = never measured.
        certainties: float32 (N,), of `certainty`.
        prune_ratio: Largest share to hide, in [0, 1).
        tau: Least certainty of a hidden sample, which is above 0 in any case.
        generator: Source of the random numbers for ties.

    Returns:
        bool (N,).

    Example:
        >>> losses, certain = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.9, 0.6, 0.9, 0.9])
        >>> hidden_samples(losses, certain, 0.5, 0.7, torch.Generator().manual_seed(0)).tolist()
        [True, False, False, False]
    """
    high = top_mask(losses, keep_count(len(losses), prune_ratio), generator)

    def is_hidden(part: slice) -> Tensor:
        certainty = certainties[part]
        # a wrong prediction's certainty, 0, reaches a tau of 0
        return ~high[part] & (certainty > 0) & (certainty >= tau) & losses[part].isfinite()

    return marked(len(losses), is_hidden)


class KAKURENBO(DataSelector):
    """Hide the samples with the lowest losses that are predicted correctly and confidently.

    Costs a forward pass over the hidden samples each epoch.

    Args:
        prune_ratio: Largest share hidden. Default 0.3, the paper's.
        tau: Least probability of the right class of a hidden sample, in [0, 1]; with 0 a correct prediction is enough.
            Default 0.7, the paper's.
        phases: Shares of the epochs at which ``prune_ratio`` falls by a fifth of its value, at most four. Default (0.3,
            0.6, 0.8), as in the authors' code. Give () with a ``prune_ratio`` that is a schedule, which would otherwise
            be lowered twice.
        scale_lr: Whether the learning rate is multiplied by ``1 / (1 - F*)`` during each optimizer step, as the paper
            does for SGD; schedulers and monitors see their own values. Default True.
        warmup_epochs: Epochs on all data at the start. Default 1: nothing is known before.
        **common: Arguments of `DataSelector`.

    Raises:
        TypeError: If the module optimizes manually, so that it cannot be run without training.
        ValueError: If an argument is out of its range; on the first batch, if there is no classification loss.

    Example:
        >>> selector = KAKURENBO(prune_ratio=0.5)
        >>> selector.max_epochs = 10
        >>> [round(selector.hidden_share(epoch), 2) for epoch in (0, 3, 6, 8, 9)]
        [0.5, 0.4, 0.3, 0.2, 0.2]
    """

    rescores = True
    info: ClassVar[MethodInfo] = CATALOG["KAKURENBO"]
    gives_weights: ClassVar[bool] = False
    other_words: ClassVar[Mapping[str, str]] = {
        "threshold": "tau",
        "confidence": "tau",
        "confidence_threshold": "tau",
        "static_epochs": "warmup_epochs",
    }

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.3,
        tau: float = 0.7,
        phases: Sequence[float] = (0.3, 0.6, 0.8),
        scale_lr: bool = True,
        warmup_epochs: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, **common)
        self.tau = check_share("tau", tau)
        check_sequence("phases", phases, "(0.3, 0.6, 0.8)")
        self.phases = tuple(check_share("phases", phase) for phase in phases)
        if len(self.phases) > 4 or list(self.phases) != sorted(self.phases):
            raise InvalidArgumentError(
                f"phases={phases!r} must be at most 4 shares of the epochs, ascending, say (0.3, 0.6, 0.8)."
            )
        self.scale_lr = check_flag("scale_lr", scale_lr)

    def columns(self) -> dict[str, float]:
        """Name the column of the right class's probability where it was predicted, else 0."""
        return {"certainty": math.nan}

    def hidden_share(self, epoch: int) -> float:
        """Return the largest share hidden in ``epoch``, F."""
        progress = self.progress(epoch)
        if progress is None:
            return self.prune_ratio
        # rounded, because shares are seldom exact in floating point
        begun = sum(round(progress, 9) >= round(phase, 9) for phase in self.phases)
        return round(1 - _FALL * begun, 9) * self.prune_ratio

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Keep the last loss and certainty of each sample."""
        super().observe(seen, store)
        store["certainty"][seen.indices] = certainty(*logits_and_targets(seen, "KAKURENBO"))

    def samples_to_rescore(self, epoch: int) -> Tensor:
        """Return the samples hidden in the epoch that has ended."""
        return self.state.plan.left_out(self.store.n)

    def lr_factor(self, epoch: int) -> float:
        """Return one over the share of the samples that ``epoch`` trains on."""
        return self.store.n / self.state.plan.indices.numel() if self.scale_lr else 1.0

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Take what is not hidden."""
        hidden = hidden_samples(scores, self.column("certainty"), self.hidden_share(epoch), self.tau, generator)
        return Selection(positions(~hidden))
