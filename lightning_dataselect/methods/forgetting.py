"""Forgetting: how often a sample is unlearnt.

Toneva, Sordoni, Tachet des Combes, Trischler, Bengio, Gordon, "An Empirical Study of Example
Forgetting during Deep Neural Network Learning", ICLR 2019, arXiv 1812.05159.

    forgetting_i = number of presentations at which i is wrong, and was right at the one before

Samples never right count as most forgotten. The paper counts over a whole training, then trains anew
without the least forgotten; for that give ``scores=`` the export of a run. Here the first
``warmup_epochs`` epochs of the fit itself count by default, which then goes on with a fixed subset.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.parts import make_sampler
from lightning_dataselect.methods.samplers.base import Sampler
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.forgetting import ForgettingScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource


class Forgetting(ScoredSelector):
    """Keep the samples that are forgotten most often or never learnt, once for the whole fit.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        warmup_epochs: Epochs on all data in which events are counted, at least 2. Default 20, our
            choice; 0 if ``scores`` are given.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from
            `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        sampler: What is kept of the scored samples: ``"highest"`` (default), or another of `lightning-dataselect list`.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch,
            if there is no classification loss.

    Example:
        >>> import torch
        >>> selector = Forgetting(scores=torch.tensor([0.0, 3.0, 1.0, 0.0]))
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([1, 2])
    """

    info: ClassVar[MethodInfo] = CATALOG["Forgetting"]

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        sampler: str | Sampler = "highest",
        **common: Any,
    ) -> None:
        self.score, self.sampler = ForgettingScore(), make_sampler(sampler)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
