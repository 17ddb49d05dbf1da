"""The command line and the file of rows that the studies of Frontier share."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import write_json
from benchmarks.frontier_tasks import FEATURES


def parser_of(description: str | None, out: Path, names: Sequence[str], *, seeds: int) -> argparse.ArgumentParser:
    """Return a parser of the arguments of a study, and let Lightning say no more than errors.

    Args:
        description: Of the study.
        out: The file of its rows.
        names: Of its tasks.
        seeds: The number of seeds by default.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--only", nargs="+", choices=names)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument(
        "--features", type=Path, default=FEATURES, help="where features of pretrained networks are kept"
    )
    return parser


class Rows:
    """Keep the rows of a file, of which those that are measured again take the places of their like.

    Args:
        path: Of the file, which may be missing.
        key: What tells rows apart.
        facts: What the file says besides.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.json"
        >>> Rows(path, ["task"]).put({"task": "adult", "difference": 1}, {"task": "digits", "difference": 2})
        {'task': 'adult', 'difference': 1}
        {'task': 'digits', 'difference': 2}
        >>> Rows(path, ["task"]).put({"task": "adult", "difference": 3})
        {'task': 'adult', 'difference': 3}
        >>> [row["difference"] for row in json.loads(path.read_text())["rows"]]
        [3, 2]
    """

    def __init__(self, path: Path, key: Sequence[str], **facts: Any) -> None:
        self._path, self._key, self._facts = path, key, facts
        known = json.loads(path.read_text())["rows"] if path.exists() else []
        self._rows = {self._key_of(row): row for row in known}

    def put(self, *rows: Mapping[str, Any]) -> None:
        """Print rows, and write them to the file."""
        print(*rows, sep="\n", flush=True)
        self._rows |= {self._key_of(row): row for row in rows}
        write_json(self._path, {**self._facts, "rows": list(self._rows.values())})

    def _key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)
