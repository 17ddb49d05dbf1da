"""CCS: evenly from strata of a score, without the hardest.

Zheng, Liu, Lai, Prakash, "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023, arXiv 2210.15809.

With ``k`` of ``N`` samples kept, ``s_i`` the score and ``b`` the cutoff:

    1. drop the b N hardest samples                                                  (code)
    2. cut the range of the remaining scores into 50 strata of equal width           (code)
    3. from the stratum with the fewest samples to that with the most: take
       min(its size, what is left of k / strata left), drawn uniformly               (code)

The score is AUM on probabilities, as in the authors' code. They take it from a whole training of 200 epochs, then train
anew; here it is averaged over the first ``warmup_epochs`` epochs of the fit itself, which then goes on with a fixed
subset; for the authors' way give ``scores=`` the export of an earlier run. They tune ``b`` for each ratio (0.3 for
CIFAR-10 at 90 %); the default of 0.1 is our choice. Where more than ``N - k`` would be cut off, fewer are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.samplers.by_order import Stratified
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.margin import AUMScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource


class CCS(ScoredSelector):
    """Cover easy and hard samples evenly, except for the hardest, by their margins, once for the whole fit.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.7: the method is for high ratios.
        cutoff: Share of the samples that is dropped first, those with the highest scores. Default 0.1, our choice.
        n_strata: Number of strata of the score. Default 50, the authors'.
        on: What margins are taken of: ``"probabilities"`` (default, the authors' code) or ``"logits"``.
        warmup_epochs: Epochs on all data in which margins are averaged. Default 20, our choice; 0 if ``scores`` are
            given.
        scores: Scores measured before, by any method, the higher the harder: a tensor (N,), a path (``.csv`` or
            ``.parquet`` from `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch, if there is no
            classification loss.

    Example:
        >>> import torch
        >>> selector = CCS(scores=torch.tensor([0.0, 0.1, 0.2, 0.9, 1.0]), prune_ratio=0.6, cutoff=0.2, n_strata=2)
        >>> 3 in selector.select(0, torch.zeros(5), torch.Generator()).indices
        True
    """

    info: ClassVar[MethodInfo] = CATALOG["CCS"]
    other_words: ClassVar[Mapping[str, str]] = {"strata": "n_strata", "mis_ratio": "cutoff", "beta": "cutoff"}

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.7,
        cutoff: float = 0.1,
        n_strata: int = 50,
        on: Literal["probabilities", "logits"] = "probabilities",
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        **common: Any,
    ) -> None:
        self.score, self.sampler = AUMScore(on), Stratified(n_strata, cutoff)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
