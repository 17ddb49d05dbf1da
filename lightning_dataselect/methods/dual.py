"""DUAL: spread times difficulty of the target's probability, drawn by a Beta density that follows the ratio.

Cho, Shin, Kang, Yun, "Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
Uncertainty", ICML 2025, arXiv 2502.06905.

With ``p_i(t)`` the probability of sample i's target at its t-th presentation, ``J`` the window, ``T`` the epochs
measured, ``r`` the prune ratio:

    score_i = mean over the windows of  std(p_i(t .. t+J-1)) (1 - mean(p_i(t .. t+J-1)))     J = 10, T = 30     (code)
    b = C (1 - m) (1 - r^c_D),   a = C + 1 - b                                               C = 15, c_D = 4    (code)
    keep (1 - r) N samples, drawn without replacement by  score_i x Beta(a, b) density at m_i                   (code)

``m_i`` is the mean of ``p_i`` over the T epochs, ``m`` that of the ten samples of highest score (code). ``std`` has
J - 1 in its denominator (code); a factor of 10 in the code changes nothing and is left out. The authors score in a
training of its own and begin anew; here the fit goes on with the subset.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.samplers.beta import Beta
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.dual import DUALScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource


class DUAL(ScoredSelector):
    """Draw hard and uncertain samples, and easier ones the more are dropped, once for the whole fit.

    Until the samples are scored, each presentation in the window takes 4 bytes per sample.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        window: Presentations a window holds, J, at least 2. Default 10, the authors'.
        exponent: Of the prune ratio in the Beta density, c_D: the higher, the later it moves to easy samples. Default
            4, that of the authors' code.
        warmup_epochs: Epochs on all data in which samples are scored, T, at least ``window``. Default 30, the authors';
            1 if ``scores`` are given, in which only the target's mean probability is measured.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from `export`, or ``.pt``), or
            a list of them, which is averaged. Default None: measure.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch, if there is no
            classification loss.

    Example:
        >>> DUAL(prune_ratio=0.7, window=5).sampler
        Beta(exponent=4.0, concentration=15.0)
    """

    info: ClassVar[MethodInfo] = CATALOG["DUAL"]
    other_words: ClassVar[Mapping[str, str]] = {"window_size": "window", "c_d": "exponent"}

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        window: int = 10,
        exponent: float = 4.0,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        **common: Any,
    ) -> None:
        self.score, self.sampler = DUALScore(window), Beta(exponent)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
