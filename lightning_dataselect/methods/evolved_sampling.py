"""Evolved sampling: draw a part of each batch by the losses and by how they have changed.

Cheng, Li, Bian, "Data-Efficient Training by Evolved Sampling", 2025, arXiv 2509.23461. Each sample has a weight ``w``
and a memory ``s``; with its present loss ``l``, both from the *old* memory:

    w <- b1 s + (1 - b1) l
    s <- b2 s + (1 - b2) l,      s = 1 / N at first

which makes ``w`` the loss plus its decayed differences: ``w = s + (b2 - b1) sum_k b2^(t-k) (l(k) - l(k-1))``.

    ES   : of each batch of B, draw b without replacement, p ~ w, and train on these with the plain mean loss
    ESWP : also keep only (1-r) N of the samples each epoch, drawn by the stored w; dropped ones keep theirs

Annealing: the first and the last epochs train on whole batches of all samples, and renew ``w`` and ``s`` all the same.
Where losses are below zero, as of a Gaussian that fits well, samples are drawn by what their weights are above the
least loss that they have met in their batches: a choice of our own, too. In a stream, whose N is unknown, ``s = 0``
at first; without keys (``sample_id``) every batch is the first, and ``w`` is the loss.

Defaults: b1 = 0.2, b2 = 0.9, b/B = 1/4 and annealing for 5 % of the epochs at each end are the paper's; r = 0.2 is a
reconstruction. Choices of our own: an epoch anneals if the whole of it lies within the share, but at the start at least
``warmup_epochs`` do, so that every sample has a weight before any is dropped; a sample whose loss was not finite keeps
its memory and is drawn first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import weighted_subset
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_sequence, check_share

# beyond the logarithm of any float32, and of any exponential draw
_FIRST, _LAST = 1e3, -1e3


def evolve(memory: Tensor, losses: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return the new weights and the new memory of some samples.

    Args:
        memory: float32 (B,), ``s``.
        losses: float32 (B,), ``l``; NaN where it was not finite.
        betas: ``(b1, b2)``.

    Returns:
        ``w``, float32 (B,), NaN where the loss is, and ``s``, float32 (B,), unchanged there.

    Example:
        >>> evolve(torch.tensor([1.0, 1.0]), torch.tensor([2.0, float("nan")]), (0.2, 0.9))
        (tensor([1.8000,    nan]), tensor([1.1000, 1.0000]))
    """
    b1, b2 = betas
    weights = b1 * memory + (1 - b1) * losses
    renewed = b2 * memory + (1 - b2) * losses
    return weights, torch.where(losses.isnan(), memory, renewed)


def draw(weights: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw ``k`` positions without replacement, one after another in proportion to ``weights``.

    The largest of ``log w + Gumbel noise``, on the device of ``weights`` and without waiting for it. Weights of zero
    come only when nothing else is left, NaN comes first; ties are broken at random.

    Args:
        weights: float32 (B,), not negative.
        k: Number to draw, at most B.
        generator: On the device of ``weights``.

    Returns:
        int64 (k,).

    Example:
        >>> weights = torch.tensor([0.0, 2.0, float("nan"), 1.0])
        >>> sorted(draw(weights, 3, torch.Generator().manual_seed(0)).tolist())
        [1, 2, 3]
    """
    waits = torch.empty_like(weights).exponential_(generator=generator)
    noise = -waits.clamp(min=torch.finfo(weights.dtype).tiny).log()
    logs = weights.log().nan_to_num(nan=_FIRST, posinf=_FIRST)
    return (torch.where(weights <= 0, _LAST, logs) + noise).topk(k).indices


class _Evolving(BatchSelector):
    """The base of both methods of the paper."""

    gives_weights: ClassVar[bool] = False
    other_words: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("beta", "beta1", "beta2", "beta_1", "beta_2"), "betas, the pair (beta1, beta2)"
    )

    def __init__(self, *, betas: tuple[float, float], **common: Any) -> None:
        super().__init__(**common)
        if len(check_sequence("betas", betas, "(0.2, 0.9)")) != 2:
            raise InvalidArgumentError(f"betas={betas!r} must be two shares, as in (0.2, 0.9).")
        self._said_shift = False
        self.betas = (check_share("betas[0]", betas[0]), check_share("betas[1]", betas[1]))

    def in_warmup(self, epoch: int) -> bool:
        """Return whether ``epoch`` is one of the first ``warmup_epochs``, or wholly in the first ``anneal`` share."""
        ends = self.progress(epoch + 1)
        return (ends is not None and round(ends, 9) <= round(self.anneal, 9)) or super().in_warmup(epoch)

    def columns(self) -> dict[str, float]:
        """The memory ``s``, NaN for 1 / N; and the least loss below zero that a sample's batches have shown."""
        return {"s": math.nan, "lowest": 0.0}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Renew ``w``, which is the score, ``s``, and the least loss."""
        memory = store["s"][seen.indices].nan_to_num(1 / store.n_samples)
        store["score"][seen.indices], store["s"][seen.indices] = evolve(memory, seen.losses, self.betas)
        lowest = torch.minimum(store["lowest"][seen.indices], seen.losses.nan_to_num(0)).amin()
        store["lowest"].index_fill_(0, seen.indices, lowest)

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Draw ``k`` samples by ``w``."""
        return draw(self._above_lowest(seen.indices), k, generator)

    def _above_lowest(self, indices: Tensor) -> Tensor:
        """``w`` of some samples, shifted by the least loss that they have met if that is below zero."""
        return self.store["score"][indices] - self.store["lowest"][indices].amin()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say once that losses were below zero, and close the epoch."""
        if self.run_state.has_begun and not self._said_shift and bool((self.store["lowest"] < 0).any()):
            self._said_shift = True
            rank_zero_warn(
                f"{type(self).__name__} draws samples in proportion to a moving average of their losses, and losses"
                f" down to {float(self.store['lowest'].min()):.3g} were seen: the smallest loss is subtracted from all"
                " of them. A method that only ranks, such as SelectiveBackprop, needs no such shift."
            )
        super().on_train_epoch_end(trainer, pl_module)


class EvolvedSampling(WithinBatches, _Evolving):
    """Score each batch, and train on a part of it drawn by evolved weights (ES).

    Args:
        batch_ratio: Share of each batch that is trained on, in (0, 1]. Default 1/4, the paper's.
        betas: ``(b1, b2)``, each in [0, 1]. Default (0.2, 0.9), the paper's; (0, 0) draws by the present loss, equal
            ones by a plain moving average.
        anneal: Share of the epochs at the start *and* at the end that trains on whole batches. Default 0.05, the
            paper's.
        warmup_epochs: Least number of such epochs at the start. Default 1.
        **common: Arguments of `BatchSelector` but ``prune_ratio``, ``every_n_epochs`` and ``balance``: that is `ESWP`.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range.

    Example:
        >>> EvolvedSampling(betas=(0.2, 0.8)).betas
        (0.2, 0.8)
    """

    info: ClassVar[MethodInfo] = CATALOG["EvolvedSampling"]

    def __init__(
        self,
        *,
        batch_ratio: float = 0.25,
        betas: tuple[float, float] = (0.2, 0.9),
        anneal: float = 0.05,
        warmup_epochs: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(
            batch_ratio=batch_ratio,
            betas=betas,
            anneal=anneal,
            warmup_epochs=warmup_epochs,
            **common,
        )


class ESWP(_Evolving):
    """Evolved sampling with pruning: also draws the samples of each epoch by their weights.

    Args:
        batch_ratio: Share of each batch that is trained on, in (0, 1]. Default 1/4, the paper's.
        betas: ``(b1, b2)``, each in [0, 1]. Default (0.2, 0.9), the paper's.
        prune_ratio: Share of the samples dropped before each epoch. Default 0.2, a reconstruction.
        anneal: Share of the epochs at the start *and* at the end that trains on everything. Default 0.05, the paper's.
        warmup_epochs: Least number of such epochs at the start. Default 1.
        **common: Arguments of `BatchSelector`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> selector = ESWP(prune_ratio=0.5)
        >>> selector.select(1, torch.tensor([0.0, 2.0, 1.0, 0.0]), torch.Generator().manual_seed(0)).indices
        tensor([1, 2])
    """

    info: ClassVar[MethodInfo] = CATALOG["ESWP"]

    def __init__(
        self,
        *,
        batch_ratio: float = 0.25,
        betas: tuple[float, float] = (0.2, 0.9),
        prune_ratio: PruneRatio = 0.2,
        anneal: float = 0.05,
        warmup_epochs: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(
            batch_ratio=batch_ratio,
            betas=betas,
            prune_ratio=prune_ratio,
            anneal=anneal,
            warmup_epochs=warmup_epochs,
            **common,
        )

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Draw the samples of an epoch by their stored weights."""
        scores = scores - scores.nan_to_num(0).min().clamp(max=0)
        return Selection(weighted_subset(scores, keep_count(len(scores), self.prune_ratio), generator))
