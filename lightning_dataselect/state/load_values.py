"""Load one number per sample that was measured elsewhere, from a tensor or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.utils.arguments import short_text
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, MissingFileError
from lightning_dataselect.utils.extras import require_report_extra
from lightning_dataselect.utils.reading import reading

if TYPE_CHECKING:
    import pandas as pd

ValueSource: TypeAlias = str | Path | Tensor
"""A tensor (N,), or the path of a ``.pt``, ``.npy``, ``.csv`` or ``.parquet`` file, such as ``export`` writes."""


def load_values(source: ValueSource, *, column: str, argument: str) -> Tensor:
    """Read one number per sample, in the order of the data set.

    Args:
        source: A tensor, or a file. A table is sorted by its column ``index``, if it has one.
        column: The column of the table with the numbers.
        argument: Name of the caller's argument, for messages.

    Returns:
        float32 (N,), on the CPU.

    Raises:
        TypeError: If ``source`` is neither a tensor nor a path.
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of an unknown kind, has no such column, leaves out samples, or the numbers are not
            one-dimensional.

    Example:
        >>> load_values(torch.tensor([1, 2]), column="loss", argument="holdout_losses")
        tensor([1., 2.])
    """
    if not isinstance(source, str | Path | Tensor):
        raise ArgumentTypeError(
            f"{argument} holds {short_text(source)}: give a tensor of one number a sample, as"
            " torch.as_tensor(values) makes it, or the path of a file."
        )
    values = source if isinstance(source, Tensor) else _read(Path(source), column, argument)
    if not isinstance(values, Tensor) or values.dim() != 1:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InvalidArgumentError(
            f"{argument}={_named(source)} holds {found}: one number a sample, of shape (N,), is needed."
        )
    return values.detach().float().cpu()


def _named(source: ValueSource) -> str:
    return "tensor" if isinstance(source, Tensor) else repr(str(source))


def _read(path: Path, column: str, argument: str) -> Tensor:
    if path.suffix not in (".pt", ".npy", ".csv", ".parquet"):
        raise InvalidArgumentError(f"{argument}={str(path)!r} must end in .pt, .npy, .csv or .parquet.")
    if not path.is_file():
        raise MissingFileError(f"{argument}={str(path)!r}: there is no such file.")
    named = f"{argument}={str(path)!r}"
    if path.suffix in (".pt", ".npy"):
        with reading(named):
            loaded: Tensor = (
                torch.load(path, map_location="cpu", weights_only=True)
                if path.suffix == ".pt"
                else torch.from_numpy(np.load(path))
            )
        return loaded
    require_report_extra(named, "pandas")
    import pandas as pd

    with reading(named):
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return _of_table(frame, path, column, argument)


def _of_table(frame: pd.DataFrame, path: Path, column: str, argument: str) -> Tensor:
    if column not in frame.columns:
        raise InvalidArgumentError(
            f"{argument}={str(path)!r} has the columns {list(frame.columns)}, but none is called {column!r}: give a"
            " file that a selector's export() has written, or a table with that column."
        )
    if "index" in frame.columns:
        frame = frame.sort_values("index")
        if not np.array_equal(frame["index"].to_numpy(), np.arange(len(frame))):
            raise InvalidArgumentError(
                f"{argument}={str(path)!r} must name each sample once, from 0 to the last, in its column 'index', but"
                f" its {len(frame)} rows do not. Add the samples that are missing, and leave none twice."
            )
    return torch.tensor(frame[column].to_numpy(dtype="float32"))
