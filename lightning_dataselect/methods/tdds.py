"""TDDS: how unevenly a sample's predicted distribution moves in training.

Zhang, Du, Li, Xie, Zhou, "Spanning Training Progress: Temporal Dual-Depth Scoring (TDDS) for Enhanced Dataset Pruning",
CVPR 2024, arXiv 2311.13613.

With ``p(t)`` the predicted distribution of a sample at its t-th presentation, ``J`` the window, ``d`` the decay:

    D(t) = sum_c | p_c(t) (log p_c(t) - log p_c(t-1)) |                    1e-8 is added to each p_c in log     (code)
    v(k) = || D - mean(D) ||_2   over the J - 1 movements of window k                                           (code)
    s    = sum_k d (1 - d)^(K-k) v(k),   K the last window                 J = 10, d = 0.9, 30 epochs           (code)

The highest ``s`` are kept (code). As the sum is a moving average, ``s <- (1-d) s + d v``, it is kept as one (derived).
The number of epochs and the window are tuned by the authors for each data set and ratio; 30 and 10 are those of their
CIFAR-100 example. They score in a training of its own and begin anew; here the fit goes on with the subset. Their
training on the subset multiplies the mean loss of each batch by the mean of its samples' scores, which are scaled to
[0, 1] for it (code); that makes the steps shorter and does not tell the samples of a batch apart, and is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.parts import make_sampler
from lightning_dataselect.methods.samplers.base import Sampler
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.tdds import TDDSScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource


class TDDS(ScoredSelector):
    """Keep the samples whose predictions move most unevenly in training, once for the whole fit.

    Takes 4 bytes a sample for each class and for each presentation of the window: a million samples of 1000 classes
    take 4 GB on the module's device, and in each checkpoint, until they are scored.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        window: Presentations a window holds, J, at least 3. Default 10, the authors'.
        decay: Weight of the newest window, d, in (0, 1]. Default 0.9, the authors'.
        warmup_epochs: Epochs on all data in which samples are scored, at least ``window``. Default 30, the authors'; 0
            if ``scores`` are given.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from `export`, or ``.pt``), or
            a list of them, which is averaged. Default None: measure.
        sampler: What is kept of the scored samples: ``"highest"`` (default), or another of `lightning-dataselect list`.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch, if there is no
            classification loss.

    Example:
        >>> TDDS(window=5).score
        TDDSScore(window=5, decay=0.9)
    """

    info: ClassVar[MethodInfo] = CATALOG["TDDS"]
    other_words: ClassVar[Mapping[str, str]] = {"window_size": "window", "trajectory_len": "warmup_epochs"}

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        sampler: str | Sampler = "highest",
        window: int = 10,
        decay: float = 0.9,
        **common: Any,
    ) -> None:
        self.score, self.sampler = TDDSScore(window, decay), make_sampler(sampler)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
