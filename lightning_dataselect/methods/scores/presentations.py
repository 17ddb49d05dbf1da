"""The mean of a number over a sample's presentations."""

import torch
from torch import Tensor

from lightning_dataselect.state.store import ScoreStore


def average(store: ScoreStore, name: str, count_name: str, indices: Tensor, values: Tensor) -> None:
    """Average ``values`` (B,) into a column over presentations, which another column counts.

    A presentation that is not a number breaks the mean, and the next one begins it anew.

    Example:
        >>> store = ScoreStore(1, {"mean": float("nan"), "count": 0.0})
        >>> for value in (1.0, 2.0):
        ...     average(store, "mean", "count", torch.tensor([0]), torch.tensor([value]))
        >>> store.column("mean")
        tensor([1.5000])
    """
    old = store[name][indices]
    count = store[count_name][indices].masked_fill(old.isnan(), 0) + 1
    store[name][indices] = torch.where(old.isnan(), values, old + (values - old) / count)
    store[count_name][indices] = count


def add_to_mean(store: ScoreStore, indices: Tensor, values: Tensor) -> None:
    """Average ``values`` (B,) into the score over presentations; needs `mean_columns`.

    Example:
        >>> store = ScoreStore(1, mean_columns())
        >>> for value in (1.0, 2.0):
        ...     add_to_mean(store, torch.tensor([0]), torch.tensor([value]))
        >>> store.column("score")
        tensor([1.5000])
    """
    average(store, "score", "presentations", indices, values)


def mean_columns() -> dict[str, float]:
    """Name the column in which `add_to_mean` counts presentations since the mean began."""
    return {"presentations": 0.0}
