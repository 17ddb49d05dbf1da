"""TDDS: how unevenly the predicted distribution moves; see `lightning_dataselect.methods.tdds`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_dataselect.methods.classification import logits_and_targets
from lightning_dataselect.methods.scores.windows import WindowedScore, add_window, known_moments, push
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.validation import check_count, check_share

_TINY = 1e-8  # the authors', added to each probability before its logarithm


def movement(now: Tensor, before: Tensor) -> Tensor:
    """Return how far a predicted distribution has moved, ``sum_c |p_c (log p_c - log p'_c)|``.

    Args:
        now: float32 (B, C), probabilities.
        before: float32 (B, C), those of the presentation before; NaN where there was none.

    Returns:
        float32 (B,), NaN where there was none.

    Example:
        >>> movement(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]]))
        tensor([0.])
    """
    return (now * ((now + _TINY).log() - (before + _TINY).log())).abs().sum(1)


@dataclass(frozen=True)
class TDDSScore(WindowedScore):
    """Score by the spread of a sample's movements over a sliding window, averaged with weights that decay.

    Takes ``4 * (C + window - 1)`` bytes a sample, with C classes, while it measures.

    Args:
        window: Presentations a window holds, J, at least 3. Default 10, the authors'.
        decay: Weight of the newest window in the moving average, in (0, 1]. Default 0.9, the authors'.
    """

    decay: float = 0.9

    measuring_epochs: ClassVar[int] = 30
    vectors: ClassVar[tuple[str, ...]] = ("probabilities", "movements")

    def __post_init__(self) -> None:
        check_count("window", self.window, minimum=3)
        check_share("decay", self.decay, "the weight of the newest window, say 0.9", above_zero=True)

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Move the windows on, and average."""
        i = seen.indices
        now = logits_and_targets(seen, "TDDS")[0].float().softmax(1)
        if "probabilities" not in store:
            store.add_vectors("probabilities", now.shape[1], torch.float32)
        moved = movement(now, store["probabilities"][i])
        store["probabilities"][i] = now
        window = push(store, "movements", self.window - 1, i, moved)
        count, _, squares = known_moments(window)
        value = (self.decay * squares.sqrt()).masked_fill(count < 2, math.nan)
        add_window(store, i, window, value, lambda score, value, n: (1 - self.decay) * score + value)
