"""All that a selector knows of each sample, as a table in a file, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_dataselect.results import Results

_SUFFIXES = (".csv", ".parquet")


def to_frame(scores: Tensor, losses: Tensor, selected: Tensor, weights: Tensor | None = None) -> pd.DataFrame:
    """One row a sample, in the order of the data set.

    Args:
        scores: float32 (N,), NaN = never measured.
        losses: float32 (N,), NaN = never seen.
        selected: int64 (n,), indices of the kept samples.
        weights: float32 (n,), their loss weights; None stands for 1.

    Returns:
        Columns `index` (int64), `score`, `loss` (float32), `selected` (bool) and `weight`
        (float32, 0 where a sample is not selected).

    Example:
        >>> frame = to_frame(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0]), torch.tensor([1]))
        >>> frame["selected"].tolist(), frame["weight"].tolist()
        ([False, True], [0.0, 1.0])
    """
    weight = torch.zeros(len(scores))
    weight[selected] = 1.0 if weights is None else weights
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[selected] = True
    columns = {
        "index": torch.arange(len(scores)),
        "score": scores,
        "loss": losses,
        "selected": kept,
        "weight": weight,
    }
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def write_samples(selector: Results, path: str | Path) -> Path:
    """Writes scores, losses, selection and weights of every sample.

    Args:
        selector: During or after a fit.
        path: Ends in `.csv` or `.parquet`.

    Returns:
        The path.

    Raises:
        ValueError: If the path ends in anything else.
    """
    path = Path(path)
    _check_suffix(path)
    frame = to_frame(selector.scores, selector.losses, selector.selected, selector.weights)
    write: Callable[..., None] = frame.to_csv if path.suffix == ".csv" else frame.to_parquet
    write(path, index=False)
    return path


def read_kept(path: str | Path) -> Tensor:
    """The indices that were selected when the file was written, to train on them alone.

    Args:
        path: Of a file by `DataSelector.export`.

    Returns:
        int64 (n,), sorted; `torch.utils.data.Subset(dataset, read_kept(path))` is a static run.

    Raises:
        ValueError: If the path does not end in `.csv` or `.parquet`, or the file is another's.
    """
    path = Path(path)
    _check_suffix(path)
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    missing = {"index", "selected"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"{path} has no column {' and no column '.join(sorted(missing))}: "
            "give a file that export() of a selector has written."
        )
    kept = frame.loc[frame["selected"].astype(bool), "index"]
    return torch.tensor(kept.to_numpy(), dtype=torch.int64).sort().values


def _check_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"export path {str(path)!r}: let it end in {' or '.join(_SUFFIXES)}.")
