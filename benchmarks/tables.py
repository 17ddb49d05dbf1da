"""Write the README's tables from the results of the studies and from the methods' own facts.

    python -m benchmarks.tables [--check]

Each table stands between `<!-- NAME -->` and `<!-- end NAME -->`. With --check nothing is written, and the exit code is
1 if the README is not what the results say.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lightning_dataselect import list_methods

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def overhead_table() -> str:
    """Ratios of `benchmarks.overhead`, with where they were measured."""
    study = _read("overhead.json")
    rows = ["| | ratio | the pairs | goal, at most |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {row['ratio']:.3f} | {min(row['ratios']):.2f} to {max(row['ratios']):.2f} | {row['limit']:.2f} |"
        for name, row in study["results"].items()
    ]
    return "\n".join([*rows, "", _measured_on(study, "benchmarks.overhead")])


def scale_table() -> str:
    """Seconds and bytes a sample of `benchmarks.selection_scale`."""
    study = _read("selection_scale.json")
    rows = ["| method | samples | seconds | bytes a sample | and for its state |", "|---|---|---|---|---|"]
    rows += [
        f"| {row['method']} | {row['n']:,} | {row['seconds']:.2f} | {row['bytes_per_sample']:.1f}"
        f" | {row['state_bytes_per_sample']:.1f} |"
        for row in study["results"]
        if row["n"] >= 10**6
    ]
    return "\n".join([*rows, "", _measured_on(study, "benchmarks.selection_scale")])


def method_table() -> str:
    """Every method with its paper and what its authors report."""
    rows = ["| method | paper | kind | needs | published by its authors |", "|---|---|---|---|---|"]
    rows += [
        f"| `{method.name}` | [{method.paper}]({method.url}), {method.year} | {method.kind} | {method.needs}"
        f" | {method.published} |"
        for method in list_methods()
    ]
    return "\n".join(rows)


TABLES = {"overhead": overhead_table, "scale": scale_table, "methods": method_table}


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())  # type: ignore[no-any-return]


def _measured_on(study: dict[str, Any], module: str) -> str:
    where = study["environment"]
    device = where["gpu"] or f"{where['cpu']}, {where['cpu_count']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return f"`python -m {module}` on {device}; {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the README is stale")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    before = text = readme.read_text()
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        head, rest = text.split(start)
        text = f"{head}{start}\n{table()}\n{end}{rest.split(end)[1]}"
    if args.check:
        sys.exit(text != before)
    readme.write_text(text)


if __name__ == "__main__":
    main()
