"""Everything that an earlier fit knew about its samples, read from the file that its selector's ``export`` wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.state.stream_store import Key
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, MissingFileError
from lightning_dataselect.utils.extras import require_report_extra
from lightning_dataselect.utils.reading import reading

OWN = "method."
"""Prefix of the names of a method's own columns in the file."""
ABOUT = "fit"
"""The column that describes the fit, as JSON in its first row: the method, and a fingerprint of the data set."""


@dataclass(frozen=True)
class EarlierScores:
    """The knowledge that one fit passes on to the next.

    Attributes:
        source: Path of the file.
        columns: float32 (m,) each: ``"loss"``, ``"score"`` and the method's own, NaN for a sample never measured.
        index: int64 (m,), the positions of the samples in their data set; None for a stream.
        keys: The keys of the samples, if they have any.
        method: The method whose scores they are; None in a table from another source.
        samples: A fingerprint of a few samples of the data set; empty if nothing is known.
        keys_are_text: True if the file contains only text, so that a key 7 is written "7".
    """

    source: str
    columns: Mapping[str, Tensor]
    index: Tensor | None
    keys: Sequence[Key] | None
    method: str | None = None
    samples: dict[int, dict[str, int]] = field(default_factory=dict)
    keys_are_text: bool = False

    def rows_by_key(self, keys: Sequence[Key]) -> Tensor:
        """Return the row of the file for each sample, int64 (n,); -1 for a sample that is not in it.

        Args:
            keys: Of the samples.
        """
        assert self.keys is not None
        rows = {key: row for row, key in enumerate(self.keys)}
        wanted = map(str, keys) if self.keys_are_text else keys
        return torch.tensor([rows.get(key, -1) for key in wanted], dtype=torch.int64)

    def rows_by_index(self, n: int) -> Tensor:
        """Return the row of the file for each of ``n`` samples, int64 (n,); -1 for a sample that is not in it."""
        assert self.index is not None
        rows = torch.full((n,), -1, dtype=torch.int64)
        rows[self.index] = torch.arange(self.index.numel())
        return rows


def read_earlier_scores(source: str | Path) -> EarlierScores:
    """Read a file that ``export`` wrote, or a table with the columns ``index`` or ``key``, and ``loss``.

    Args:
        source: Ends in ``.csv`` or ``.parquet``.

    Raises:
        MissingFileError: If there is no such file.
        MissingExtraError: If a ``.parquet`` file cannot be read without another package.
        InvalidArgumentError: If it has none of these columns, or names a sample twice.
    """
    path, named = Path(source), f"start_from={str(source)!r}"
    _check_columns(path, named)
    with reading(named):
        table = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    if not any(len(column) for column in table.values()):
        raise InvalidArgumentError(f"{named} has no row: give a file that a selector's export() has written.")
    about = _about(table)
    columns = {name: _numbers(table[name]) for name in table if name in ("loss", "score") or name.startswith(OWN)}
    index = torch.tensor([int(i) for i in table["index"]], dtype=torch.int64) if "index" in table else None
    keys = table.get("key")
    for of_samples in (keys, None if index is None else index.tolist()):
        if of_samples is not None and len(set(of_samples)) < len(of_samples):
            raise InvalidArgumentError(f"{named} names a sample twice: give each sample one row.")
    samples = {int(i): parts for i, parts in about.get("samples", {}).items()}
    is_text = path.suffix == ".csv"
    return EarlierScores(str(source), columns, index, keys, about.get("method"), samples, is_text)


def about_fit(method: str, samples: Mapping[int, Mapping[str, int]]) -> str:
    """Return the description of a fit from the first row of the column :data:`ABOUT`.

    Example:
        >>> about_fit("InfoBatch", {0: {".1": 7}})
        '{"method": "InfoBatch", "samples": {"0": {".1": 7}}}'
    """
    return json.dumps({"method": method, "samples": samples})


def check_start(source: object) -> str | Path | None:
    """Return ``source`` if it is the path of a file to start from, as far as the first bytes show.

    Raises:
        ArgumentTypeError: If it is not a path.
        MissingFileError: If there is no such file.
        MissingExtraError: If a ``.parquet`` file cannot be read without another package.
        InvalidArgumentError: If the file is of another kind, or a table without the necessary columns.

    Example:
        >>> check_start("a.txt")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: start_from='a.txt' must end in .csv or .parquet, as \
what export() writes.
    """
    if source is None:
        return None
    if not isinstance(source, str | Path):
        raise ArgumentTypeError(f"start_from={source!r} must be the path of a file that export() has written.")
    if Path(source).suffix not in (".csv", ".parquet"):
        resumes = Path(source).suffix in (".ckpt", ".pt", ".pth")
        raise InvalidArgumentError(
            f"start_from={str(source)!r} must end in .csv or .parquet, as what export() writes."
            + f" To resume a fit: trainer.fit(..., ckpt_path={str(source)!r})." * resumes
        )
    _check_columns(Path(source), f"start_from={str(source)!r}")
    return source


def _check_columns(path: Path, named: str) -> None:
    if not path.is_file():
        raise MissingFileError(f"{named}: there is no such file.")
    with reading(named):
        names = _columns_of_csv(path) if path.suffix == ".csv" else _columns_of_parquet(path, named)
    if not {"index", "key"} & set(names) or not {"loss", "score"} & set(names):
        raise InvalidArgumentError(
            f"{named} has the columns {names}: give a file that a selector's export() has written, or a table with a"
            " column 'index' or 'key', and 'loss' or 'score'."
        )


def _columns_of_csv(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _columns_of_parquet(path: Path, named: str) -> list[str]:
    require_report_extra(named, "pyarrow")
    import pyarrow.parquet

    names: list[str] = pyarrow.parquet.read_schema(path).names
    return names


def _about(table: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    first = next(iter(table.get(ABOUT, ())), None)
    found = json.loads(first) if first else {}
    return found if isinstance(found, dict) else {}


def _read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = csv.reader(file)
        names = next(rows, [])
        wanted = [i for i, name in enumerate(names) if _is_wanted(name)]
        values = [[row[i] for i in wanted] for row in _whole(rows, len(names), path)]
    return {names[i]: list(column) for i, column in zip(wanted, zip(*values, strict=True), strict=False)}


def _whole(rows: Iterable[list[str]], n_columns: int, path: Path) -> Iterator[list[str]]:
    for number, row in enumerate(rows, 2):
        if len(row) != n_columns:
            raise InvalidArgumentError(
                f"start_from={str(path)!r} has {len(row)} entries in line {number}, not {n_columns}: the file is cut"
                " short, or no table. Export it anew."
            )
        yield row


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    table = file.read(columns=[name for name in file.schema_arrow.names if _is_wanted(name)])
    return {
        name: table[name].to_numpy() if _is_number(table[name]) else table[name].to_pylist()
        for name in table.column_names
    }


def _is_number(column: Any) -> bool:
    return str(column.type) in ("float", "double", "int64", "int32")


def _is_wanted(name: str) -> bool:
    return name in ("index", "key", "loss", "score", ABOUT) or name.startswith(OWN)


def _numbers(values: Sequence[Any]) -> Tensor:
    if len(values) and isinstance(values[0], str):
        values = [float(value) if value else float("nan") for value in values]
    return torch.from_numpy(np.array(values, dtype=np.float32))
