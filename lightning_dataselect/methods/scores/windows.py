"""The last few numbers of each sample, and a score that sums their windows up as these slide over the presentations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.state.store import ScoreStore


def push(store: ScoreStore, name: str, width: int, indices: Tensor, values: Tensor) -> Tensor:
    """Add one number a sample to its window, which lets go of its oldest.

    Args:
        store: Holds the windows in a column of vectors, which is added where it is not there.
        name: Of the column.
        width: Numbers a window holds.
        indices: int64 (B,).
        values: float32 (B,); NaN stands for nothing measured.

    Returns:
        float32 (B, width), the windows, the newest number last; NaN where nothing is yet.

    Example:
        >>> store = ScoreStore(1)
        >>> for value in (1.0, 2.0, 3.0):
        ...     window = push(store, "window", 2, torch.tensor([0]), torch.tensor([value]))
        >>> window
        tensor([[2., 3.]])
    """
    if name not in store:
        store.add_vectors(name, width, torch.float32)
    window = torch.cat([store[name][indices, 1:], values.float().unsqueeze(1)], 1)
    store[name][indices] = window
    return window


def add_window(
    store: ScoreStore, indices: Tensor, window: Tensor, value: Tensor, join: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    """Join what a window has shown to the score; needs the columns of a `WindowedScore`.

    Before a window is full, the score is what there is: the value of the window so far.

    Args:
        store: Holds the scores.
        indices: int64 (B,).
        window: float32 (B, W), NaN where nothing is.
        value: float32 (B,), what the window shows.
        join: Called with the scores, the values and the number of full windows, this one included, float32 (B,) each;
            returns the scores of samples that had a full window before.

    Example:
        >>> store = ScoreStore(1, {"windows": 0.0})
        >>> for value in (1.0, 2.0):
        ...     window = push(store, "window", 1, torch.tensor([0]), torch.tensor([value]))
        ...     add_window(store, torch.tensor([0]), window, window[:, 0], lambda score, value, n: score + value)
        >>> store.column("score"), store.column("windows")
        (tensor([3.]), tensor([2.]))
    """
    score, n_before = store["score"][indices], store["windows"][indices]
    is_full = (~window.isnan()).all(1)
    n_full = n_before + is_full
    joined = torch.where(n_before > 0, join(score, value, n_full), value)
    store["score"][indices] = torch.where(is_full | (n_before == 0), joined, score)
    store["windows"][indices] = n_full


def known_moments(window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many numbers each window holds, their mean, and the sum of their squared distances from it.

    Args:
        window: float32 (B, W), NaN where nothing is.

    Returns:
        Three float32 tensors (B,); the mean of an empty window is NaN.

    Example:
        >>> known_moments(torch.tensor([[float("nan"), 1.0, 3.0]]))
        (tensor([2.]), tensor([2.]), tensor([2.]))
    """
    known = ~window.isnan()
    count = known.sum(1).float()
    mean = torch.where(known, window, 0.0).sum(1) / count
    squares = torch.where(known, window - mean.unsqueeze(1), 0.0).square().sum(1)
    return count, mean, squares


@dataclass(frozen=True)
class WindowedScore(Score):
    """The base of scores that sum up windows of a sample's last presentations.

    Args:
        window: Presentations a window holds.
    """

    window: int = 10

    @property
    def fewest_epochs(self) -> int:
        """The window."""
        return self.window

    def columns(self) -> dict[str, float]:
        """Name the column in which `add_window` counts full windows."""
        return {"windows": 0.0}
