"""Dynamic data pruning by uncertainty: epsilon-greedy and upper confidence bound.

Raju, Daruwalla, Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", 2021, arXiv
2111.12621. Both renew the kept set every T epochs and train on it with the plain loss. With ``u_i``
the sample's uncertainty when it is trained on, ``k`` the share kept, and ``a`` the rate alpha:

    eps-greedy : s_i <- (1-a) s_i + a u_i
                 S = the (1-eps) k N highest s, and eps k N drawn uniformly from the rest
    UCB        : v_i <- (1-a) v_i + a (u_i - m_i)^2,   then   m_i <- (1-a) m_i + a u_i
                 S = the k N highest m + c v

Defaults T = 10, eps = 0.1, alpha = 0.8, c = 1 are those of public re-implementations. Choices of
our own: the first observation sets ``s`` and ``m`` to ``u`` and ``v`` to 0, in place of averaging with
a made-up start; samples never measured are kept first, even if that takes more than the (1-eps) part.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.classification import logits_and_targets, output_error
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import positions
from lightning_dataselect.numerics.placement import placement
from lightning_dataselect.numerics.sampling import top_k, top_mask, uniform_among
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_choice, check_flag, check_number, check_share

Uncertainty = Literal["cross_entropy", "el2n"]


def moving_average(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """Return ``(1 - alpha) * old + alpha * new``, and ``new`` where ``old`` is NaN (nothing known yet).

    Args:
        old: (B,).
        new: (B,).
        alpha: Weight of the new value, in [0, 1].

    Example:
        >>> moving_average(torch.tensor([1.0, float("nan")]), torch.tensor([2.0, 2.0]), 0.8)
        tensor([1.8000, 2.0000])
    """
    return torch.where(old.isnan(), new, (1 - alpha) * old + alpha * new)


def moving_moments(mean: Tensor, variance: Tensor, new: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Renew the moving mean and variance of each sample.

    Args:
        mean: (B,), NaN where nothing is known yet.
        variance: (B,).
        new: (B,), the values just seen.
        alpha: Weight of the new values, in [0, 1].

    Returns:
        The new mean and variance; the variance is taken about the old mean, and is 0 at first.

    Example:
        >>> moving_moments(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0]), 0.5)
        (tensor([1.5000]), tensor([0.5000]))
    """
    spread = (1 - alpha) * variance + alpha * (new - mean) ** 2
    return moving_average(mean, new, alpha), torch.where(mean.isnan(), 0.0, spread)


def epsilon_greedy(scores: Tensor, k: int, epsilon: float, generator: torch.Generator) -> Tensor:
    """Take the best ``(1 - epsilon) k`` samples, and draw ``epsilon k`` uniformly from the others.

    Args:
        scores: float32 (N,), NaN = never measured; these come first, even beyond ``(1-epsilon) k``.
        k: Number to choose.
        epsilon: Share of ``k`` that is drawn, in [0, 1]; its number is rounded half up.
        generator: Source of the random numbers.

    Returns:
        int64 (k,), sorted.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> epsilon_greedy(torch.arange(10.0), 3, 0.0, generator).tolist()
        [7, 8, 9]
    """
    unknown = int(scores.isnan().count_nonzero())
    n_best = max(k - math.floor(epsilon * k + 0.5), min(unknown, k))
    chosen = top_mask(scores, n_best, generator)
    return positions(chosen.logical_or(uniform_among(~chosen, k - n_best, generator)))


class _UncertaintySelector(DataSelector):
    gives_weights: ClassVar[bool] = False

    def __init__(
        self, *, alpha: float, uncertainty: Uncertainty, every_n_epochs: int, rescore: bool, **common: Any
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs, **common)
        self.alpha = check_share("alpha", alpha)
        self.rescores = check_flag("rescore", rescore)
        self.uncertainty = check_choice("uncertainty", uncertainty, ("cross_entropy", "el2n"))

    def samples_to_rescore(self, epoch: int) -> Tensor:
        """Return all samples; asked only with ``rescore``."""
        return placement().arange(self.store.n)

    def _uncertainty(self, seen: Observation) -> Tensor:
        if self.uncertainty == "cross_entropy":
            return seen.losses
        user = f"{type(self).__name__}(uncertainty='el2n')"
        return output_error(*logits_and_targets(seen, user)).norm(dim=1)


class EpsilonGreedy(_UncertaintySelector):
    """Keep the most uncertain samples and, of the others, a few at random.

    Args:
        epsilon: Share of the kept samples drawn uniformly from the rest. Default 0.1, from public
            re-implementations.
        alpha: Weight of a new uncertainty in the moving average. Default 0.8, likewise.
        uncertainty: ``"cross_entropy"`` (default; whatever the per-sample loss is) or ``"el2n"``
            (norm of softmax minus target; needs a classification loss).
        every_n_epochs: Epochs between two selections. Default 10, likewise.
        rescore: Whether a pass without gradients over all samples renews them before each selection, too. Default
            False: only samples trained on are renewed.
        **common: Arguments of `DataSelector`, among them ``prune_ratio``.

    Raises:
        ValueError: If an argument is out of its range; on the first batch, if ``"el2n"`` finds no
            logits.

    Example:
        >>> selector = EpsilonGreedy(prune_ratio=0.5, epsilon=0.0)
        >>> selector.select(1, torch.arange(4.0), torch.Generator().manual_seed(0)).indices
        tensor([2, 3])
    """

    info: ClassVar[MethodInfo] = CATALOG["EpsilonGreedy"]

    def __init__(
        self,
        *,
        epsilon: float = 0.1,
        alpha: float = 0.8,
        uncertainty: Uncertainty = "cross_entropy",
        every_n_epochs: int = 10,
        rescore: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(alpha=alpha, uncertainty=uncertainty, every_n_epochs=every_n_epochs, rescore=rescore, **common)
        self.epsilon = check_share("epsilon", epsilon)

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Average the uncertainty of each sample over its presentations."""
        score, i = store["score"], seen.indices
        score[i] = moving_average(score[i], self._uncertainty(seen), self.alpha)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Keep the best, and explore."""
        k = keep_count(len(scores), self.prune_ratio)
        return Selection(epsilon_greedy(scores, k, self.epsilon, generator))


class UCB(_UncertaintySelector):
    """Keep the samples whose uncertainty may be highest: its mean plus ``c`` times its variance.

    Args:
        c: Weight of the variance. Default 1, from public re-implementations.
        alpha: Weight of a new uncertainty in the moving mean and variance. Default 0.8, likewise.
        uncertainty: ``"cross_entropy"`` (default; whatever the per-sample loss is) or ``"el2n"``
            (norm of softmax minus target; needs a classification loss).
        every_n_epochs: Epochs between two selections. Default 10, likewise.
        rescore: Whether a pass without gradients over all samples renews them before each selection, too. Default
            False: only samples trained on are renewed.
        **common: Arguments of `DataSelector`, among them ``prune_ratio``.

    Raises:
        ValueError: If an argument is out of its range; on the first batch, if ``"el2n"`` finds no
            logits.

    Example:
        >>> selector = UCB(prune_ratio=0.5)
        >>> selector.select(1, torch.arange(4.0), torch.Generator().manual_seed(0)).indices
        tensor([2, 3])
    """

    info: ClassVar[MethodInfo] = CATALOG["UCB"]
    other_words: ClassVar[Mapping[str, str]] = {"confidence": "c"}

    def __init__(
        self,
        *,
        c: float = 1.0,
        alpha: float = 0.8,
        uncertainty: Uncertainty = "cross_entropy",
        every_n_epochs: int = 10,
        rescore: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(alpha=alpha, uncertainty=uncertainty, every_n_epochs=every_n_epochs, rescore=rescore, **common)
        self.c = check_number("c", c)
        if not (math.isfinite(self.c) and self.c >= 0):
            raise InvalidArgumentError(f"c={c!r} must be finite and at least 0: 0 ranks by the mean alone.")

    def columns(self) -> dict[str, float]:
        """Name the columns of the moving mean and variance; the score is ``mean + c * variance``."""
        return {"mean": math.nan, "variance": math.nan}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Renew mean, variance and score of the samples seen."""
        i = seen.indices
        mean, variance = moving_moments(store["mean"][i], store["variance"][i], self._uncertainty(seen), self.alpha)
        store["mean"][i] = mean
        store["variance"][i] = variance
        store["score"][i] = mean + self.c * variance

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Keep the highest upper bounds."""
        return Selection(top_k(scores, keep_count(len(scores), self.prune_ratio), generator))
