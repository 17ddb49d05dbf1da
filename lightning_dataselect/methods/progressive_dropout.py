"""DBPD, SRD, SMRD: train on less and less, by difficulty or at random, and on everything once more at the end.

M S, Hao, Hou, Lu, Sevilla-Lara, Arnab, Gowda, "Progressive Data Dropout: An Embarrassingly Simple Approach to Faster
Training", NeurIPS 2025, arXiv 2505.22342. With ``p_i`` the softmax probability of sample i's own class:

    DBPD (by difficulty)       : of a batch, train on the samples with  p_i < tau
    SMRD (its control)         : of a batch, train on as many samples as DBPD would, drawn at random
    SRD  (by a schedule)       : in epoch t = 0, 1, ...  train on  ceil(gamma^t N)  samples, drawn at random
    revision, of all three     : the last epoch trains on everything

The rules are stated in the paper and are those of the authors' code, which is where the defaults come from: tau = 0.3
and one epoch of revision are those of its examples (``--threshold 0.3 --start_revision 29`` of 30 epochs), gamma = 0.95
that of its first release; a later one has 0.99. The loss is not reweighted.

What differs from the authors' code. DBPD and SMRD score in eval mode, theirs in training mode, so that the scoring
pass moves no running statistics of BatchNorm; they skip a batch that has no sample below tau, here the samples that
come nearest are trained on: two, since BatchNorm cannot train on one, or one where ``tau`` of a batch is no more and
the module has no BatchNorm. SRD chooses before the epoch, as the paper writes it, so that what is dropped is not even
read; the code draws ``floor(gamma^t B)`` within each batch. The code's ``--threshold 0``, which trains on what is
predicted wrong, is left out.

The paper counts what is back-propagated ("effective epochs"). DBPD and SMRD forward every batch to choose from it; SRD
does not, and costs what it counts. How many samples DBPD and SMRD take is known on the device alone, and the batch
cannot be cut without that number: a step waits for it, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.classification import logits_and_targets, target_probability
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.sampling import uniform_subset
from lightning_dataselect.state.compute_budget import measured_sample_cost
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.validation import check_share, refuse_arguments, refuse_unused


def count_below(probabilities: Tensor, threshold: float, fewest: int) -> int:
    """Count the samples of a batch that are not learnt yet; waits for the device once.

    Args:
        probabilities: float32 (B,), of each sample's own class; NaN counts as not learnt.
        threshold: Of a sample that is learnt.
        fewest: The least number that is returned, at most B.

    Example:
        >>> count_below(torch.tensor([0.1, 0.9, float("nan")]), 0.3, fewest=1)
        2
    """
    return int((~(probabilities >= threshold)).sum().clamp(min=fewest))


def scheduled_count(n: int, decay: float, step: int) -> int:
    """Return ``ceil(decay ** step * n)``, at least 1.

    Example:
        >>> [scheduled_count(10, 0.9, step) for step in range(4)]
        [10, 9, 9, 8]
    """
    # rounded, because 0.9 ** 2 * 100 is above 81 in floating point
    return max(math.ceil(round(decay**step * n, 6)), 1)


class EndsInRevision(DataSelector):
    """Train on everything in the last epoch; named before the base class.

    Args:
        anneal: Share of the epochs at the end that train on everything. Default None: the last epoch alone, as in the
            paper's runs; 0 for none. Where the number of epochs is unknown there is no last one. Under a ``budget`` it
            begins once one more epoch would use up what is left.
        **common: Arguments of the next base class.
    """

    other_words: ClassVar[Mapping[str, str]] = {"start_revision": "anneal, the share of the epochs at the end"}

    def __init__(self, *, anneal: float | None = None, **common: Any) -> None:
        self._revises_last = anneal is None
        super().__init__(anneal=0.0 if anneal is None else anneal, **common)

    def in_annealing(self, epoch: int) -> bool:
        """Return whether ``epoch`` is the last one, or in the last ``anneal`` share if that was given."""
        if not self._revises_last:
            return super().in_annealing(epoch)
        done, done_after = self.progress(epoch), self.progress(epoch + 1)
        if done is None or done_after is None:
            return False
        # of a budget, an epoch to come counts as one on everything
        return round(done + self.dearest_epoch * (done_after - done), 9) >= 1

    @property
    def dearest_epoch(self) -> float:
        """The most that an epoch costs of a budget, next to one on everything."""
        return 1.0


class DBPD(EndsInRevision, WithinBatches, BatchSelector):
    """Score each batch, and train on the samples whose own class has a probability below a threshold.

    Args:
        threshold: Probability at which a sample counts as learnt (the paper's ``tau``), in (0, 1]; with 1 everything is
            trained on. Default 0.3, that of the authors' examples.
        warmup_epochs: Epochs on everything at the start. Default 0: the paper has none.
        **common: Arguments of `BatchSelector` but ``batch_ratio``, which follows from ``threshold``, and
            ``prune_ratio``, ``every_n_epochs`` and ``balance``, which have no effect here.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range; on the first batch, if there is no classification loss.

    Example:
        >>> selector = DBPD(threshold=0.5)
        >>> selector.max_epochs = 3
        >>> [selector.trains_on_whole_batches(epoch) for epoch in range(3)]
        [False, False, True]
    """

    unused: ClassVar[frozenset[str]] = WithinBatches.unused | {"batch_ratio"}
    chosen_by = "threshold"
    info: ClassVar[MethodInfo] = CATALOG["DBPD"]

    def __init__(self, *, threshold: float = 0.3, warmup_epochs: int = 0, **common: Any) -> None:
        name = type(self).__name__
        refuse_unused(name, {"batch_ratio"}, common, self.chosen_by)
        what = "the probability at which a sample counts as learnt, say 0.3"
        self.threshold = check_share("threshold", threshold, what, above_zero=True)
        super().__init__(batch_ratio=self.threshold, warmup_epochs=warmup_epochs, **common)

    def sample_cost(self, epoch: int) -> float:
        """Return what a sample in the batches of the last epoch cost: how many will be learnt is not known."""
        return 1.0 if self.trains_on_whole_batches(epoch) else measured_sample_cost(self.history)

    @property
    def dearest_epoch(self) -> float:
        """The most that an epoch costs of a budget: with the scoring more than everything, while little is learnt."""
        return 1.0 if self.run_state.compute is None else max(measured_sample_cost(self.history), 1.0)

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Write down how improbable each sample's own class is, which is the score."""
        probabilities = target_probability(*logits_and_targets(seen, type(self).__name__))
        store["score"][seen.indices] = 1 - probabilities

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Take those below the threshold, or the nearest to it where they are too few."""
        doubts = self.store["score"][seen.indices]
        return doubts.nan_to_num(1.0).topk(self._count(doubts, k)).indices

    def _count(self, doubts: Tensor, k: int) -> int:
        return count_below(1 - doubts, self.threshold, self.fewest(k))


class SMRD(DBPD):
    """Train on as many samples of each batch as `DBPD` would, drawn at random: the control of that method.

    Args:
        threshold: As in `DBPD`. Default 0.3.
        warmup_epochs: Epochs on everything at the start. Default 0: the paper has none.
        **common: As in `DBPD`.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range; on the first batch, if there is no classification loss.

    Example:
        >>> SMRD(threshold=0.5).threshold
        0.5
    """

    info: ClassVar[MethodInfo] = CATALOG["SMRD"]

    def __init__(self, *, threshold: float = 0.3, warmup_epochs: int = 0, **common: Any) -> None:
        super().__init__(threshold=threshold, warmup_epochs=warmup_epochs, **common)

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Count those below the threshold, and draw as many."""
        doubts = self.store["score"][seen.indices]
        chances = torch.rand(doubts.shape, generator=generator, device=doubts.device)
        return chances.topk(self._count(doubts, k)).indices


class SRD(EndsInRevision):
    """Train on a random subset that shrinks from epoch to epoch, and on everything in the last one.

    Args:
        decay: What the number of samples is multiplied by from one epoch to the next (the paper's ``gamma``), in
            (0, 1]; with 1 everything is trained on. Default 0.95, that of the authors' first release.
        warmup_epochs: Epochs on everything at the start, after which the number falls. Default 0: the first epoch
            takes everything anyway.
        **common: Arguments of `DataSelector` but ``prune_ratio``, which has no effect here.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range.

    Example:
        >>> selector = SRD(decay=0.5)
        >>> [len(selector.select(epoch, torch.zeros(8), torch.Generator()).indices) for epoch in range(4)]
        [8, 4, 2, 1]
    """

    needs_losses: ClassVar[bool] = False
    unused: ClassVar[frozenset[str]] = frozenset({"prune_ratio"})
    info: ClassVar[MethodInfo] = CATALOG["SRD"]
    gives_weights: ClassVar[bool] = False
    chosen_by = "decay"
    other_words: ClassVar[Mapping[str, str]] = {"gamma": "decay"}

    def __init__(self, *, decay: float = 0.95, warmup_epochs: int = 0, **common: Any) -> None:
        refuse_arguments("SRD", self.unused, common, "the number of samples falls by `decay` from epoch to epoch")
        what = "the share of the samples of an epoch that the next one keeps, say 0.95"
        self.decay = check_share("decay", decay, what, above_zero=True)
        super().__init__(prune_ratio=0.0, warmup_epochs=warmup_epochs, **common)

    def trains_on_everything(self, epoch: int) -> bool:
        """Return whether ``epoch`` is in the warm-up or the revision."""
        return self.decay == 1 or self.in_warmup(epoch) or self.in_annealing(epoch)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Draw as many samples as are left; ``scores`` only says how many there are."""
        n = len(scores)
        step = epoch - self.first_epoch - self.warmup_epochs
        return Selection(uniform_subset(n, scheduled_count(n, self.decay, step), generator))

    def line_up(self, scores: Tensor) -> Tensor:
        """Let chance decide who fills up a batch, too."""
        return torch.zeros_like(scores)
