"""EL2N: the length of the error vector early in training.

Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in
Training", NeurIPS 2021, arXiv 2107.07075.

    EL2N_i = || softmax(f(x_i)) - y_i ||_2

The paper averages it over ten networks at one early epoch, then trains anew on the samples of highest
score. Here it is averaged over the first ``warmup_epochs`` epochs of the fit itself, which then goes
on with a fixed subset; for the paper's way give ``scores=`` a list of exports of earlier runs. Scores
are taken in the training step, with its dropout and augmentation.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.parts import make_sampler
from lightning_dataselect.methods.samplers.base import Sampler
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.el2n import EL2NScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource


class EL2N(ScoredSelector):
    """Keep the samples with the largest errors early in training, once for the whole fit.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        warmup_epochs: Epochs on all data in which scores are averaged. Default 10, in the range the
            paper scores at; 0 if ``scores`` are given.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from
            `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        sampler: What is kept of the scored samples: ``"highest"`` (default), or another of `lightning-dataselect list`.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch,
            if there is no classification loss.

    Example:
        >>> import torch
        >>> selector = EL2N(scores=torch.tensor([0.1, 0.9, 0.5, 0.2]))
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([1, 2])
    """

    info: ClassVar[MethodInfo] = CATALOG["EL2N"]

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        sampler: str | Sampler = "highest",
        **common: Any,
    ) -> None:
        self.score, self.sampler = EL2NScore(), make_sampler(sampler)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
