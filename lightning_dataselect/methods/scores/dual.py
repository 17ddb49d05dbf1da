"""DUAL: spread times difficulty of the target's probability; see `lightning_dataselect.methods.dual`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_dataselect.methods.classification import logits_and_targets, target_probability
from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.methods.scores.windows import known_moments, push
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
        >>> window_value(torch.tensor([[0.0, 0.5, 1.0]]))
        tensor([0.2500])
    """
    count, mean, squares = known_moments(window)
    value = (squares / (count - 1).clamp(min=1)).sqrt() * (1 - mean)
    return value.masked_fill(count < 2, math.nan)


@dataclass(frozen=True)
class DUALScore(Score):
    """Score by spread x (1 - mean) of the target's probability, averaged over every window of ``window`` presentations.

    A sample presented less often is scored by what there is, from the second presentation on. Takes ``4 * window``
    bytes a sample.

    Args:
        window: Presentations a window holds, J, at least 2. Default 10, the authors'.
    """

    window: int = 10

    measuring_epochs: ClassVar[int] = 30

    def __post_init__(self) -> None:
        check_count("window", self.window, minimum=2)

    @property
    def fewest_epochs(self) -> int:
        """The window."""
        return self.window

    def columns(self) -> dict[str, float]:
        """Name the column that counts full windows."""
        return {"windows": 0.0}

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Move the windows on, and average."""
        i = seen.indices
        window = push(store, "window", self.window, i, target_probability(*logits_and_targets(seen, "DUAL")))
        value, score, n_before = window_value(window), store["score"][i], store["windows"][i]
        is_full = (~window.isnan()).all(1)
        n_full = n_before + is_full
        averaged = torch.where(n_before > 0, score + (value - score) / n_full.clamp(min=1), value)
        store["score"][i] = torch.where(is_full | (n_before == 0), averaged, score)
        store["windows"][i] = n_full
