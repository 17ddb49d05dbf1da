"""DUAL: spread times difficulty of the target's probability; see `lightning_dataselect.methods.dual`."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_dataselect.methods.classification import logits_and_targets, target_probability
from lightning_dataselect.methods.scores.windows import WindowedScore, add_window, known_moments, push
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.validation import check_count


def window_value(window: Tensor) -> Tensor:
    """Return the standard deviation of each window times one minus its mean.

    Args:
        window: float32 (B, J), probabilities of the target; NaN where nothing is.

    Returns:
        float32 (B,); NaN for fewer than two numbers.

    Example:
        >>> import torch
        >>> window_value(torch.tensor([[0.0, 0.5, 1.0]]))
        tensor([0.2500])
    """
    count, mean, squares = known_moments(window)
    value = (squares / (count - 1).clamp(min=1)).sqrt() * (1 - mean)
    return value.masked_fill(count < 2, math.nan)


def _average(score: Tensor, value: Tensor, n: Tensor) -> Tensor:
    return score + (value - score) / n.clamp(min=1)


@dataclass(frozen=True)
class DUALScore(WindowedScore):
    """Score by spread x (1 - mean) of the target's probability, averaged over every window of ``window`` presentations.

    A sample presented less often is scored by what there is, from the second presentation on. Takes ``4 * window``
    bytes a sample while it measures.

    Args:
        window: Presentations a window holds, J, at least 2. Default 10, the authors'.
    """

    measuring_epochs: ClassVar[int] = 30
    vectors: ClassVar[tuple[str, ...]] = ("window",)

    def __post_init__(self) -> None:
        check_count("window", self.window, minimum=2)

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Move the windows on, and average."""
        i = seen.indices
        window = push(store, "window", self.window, i, target_probability(*logits_and_targets(seen, "DUAL")))
        add_window(store, i, window, window_value(window), _average)
