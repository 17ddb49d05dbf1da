"""The last few numbers of each sample: what a score over a sliding window of presentations keeps."""

import torch
from torch import Tensor

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
