"""Write tables from the results of the studies and from the methods' own facts.

    python -m benchmarks.tables [--check]

The README and the pages of docs/ take the tables that they have a place for, between `<!-- NAME -->` and
`<!-- end NAME -->`; every row of every study is in benchmarks/RESULTS.md, and the README's pictures are
benchmarks/results/frontier.png and recommended.png. With --check nothing is written, and the exit code is 1 if a text
is not what the results say.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.frontier_tables import (
    ablation_table,
    budgets_table,
    draw_frontier,
    frontier_streams_table,
    frontier_table,
    held_out_table,
    rates_table,
    recipes_table,
    rivals_table,
    stress_table,
    texts_table,
)
from benchmarks.headlines import HEADLINES, headline_table
from benchmarks.methods import every_method
from benchmarks.originals.table import originals_table, reasons_list
from benchmarks.rank_scale import is_fitted_on
from benchmarks.recommended import choices_table, draw_recommended, recommended_table
from lightning_dataselect import list_methods
from lightning_dataselect.comparison.findings.rows import short_label

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NOT_STUDIES = (
    "ablations",
    "frontier",
    "frontier_budgets",
    "frontier_held_out",
    "frontier_rates",
    "frontier_recipes",
    "frontier_rivals",
    "frontier_streams",
    "frontier_stress",
    "kept",
    "label_errors",
    "originals",
    "overhead",
    "rank_scale",
    "scratch",
    "selection_scale",
    "short_comparisons",
)
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
NO_TABLES = ("run",)  # a code block that is run by the tests
Row = Mapping[str, Any]


def label_error_table() -> str:
    """Return the AUROC of each ranking against people's wrong labels, a column a part, over seeds."""
    study = _read("label_errors")
    parts: dict[str, list[Row]] = {}
    for row in study["rows"]:
        parts.setdefault(row["part"], []).append(row)
    heads = []
    for name, rows in parts.items():
        wrong = 100 * fmean(row["wrong"] for row in rows)
        heads.append(f"{name}: {rows[0]['n']:,} images, {rows[0]['epochs']} epochs, {wrong:.0f} % wrong")
    lines = ["| ranked by | trainings | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for key in study["rows"][0]["auroc"]:
        cells = []
        for rows in parts.values():
            first = fmean(row["wrong_among_first"][key] for row in rows)
            cells.append(f"{fmean(row['auroc'][key] for row in rows):.3f} ({100 * first:.0f} %)")
        trainings = "1" if not key.startswith("cleanlab") else f"{study['folds']} folds"
        lines.append(f"| {key} | {trainings} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _measured_on(study["environment"], "label_errors")])


def short_comparison_table() -> str:
    """Return each method's points at equal compute in the full task, and in less of it."""
    study = _read("short_comparisons")
    titles = ["method", "the full task", *study["settings"]]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for label, full in study["full"].items():
        cells = [full, *(setting[label] for setting in study["settings"].values())]
        lines.append(f"| `{label}` | " + " | ".join(_signed(cell, 2) for cell in cells) + " |")
    return "\n".join(
        [*lines, "", _measured_on(study["environment"], "short_comparisons", *map(repr, study["settings"]))]
    )


def overhead_table() -> str:
    """Return the ratios of `benchmarks.overhead`, and where they were measured."""
    study = _read("overhead")
    rows = ["| | ratio | the pairs | goal, at most |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {row['ratio']:.3f} | {min(row['ratios']):.2f} to {max(row['ratios']):.2f} | {row['limit']:.2f} |"
        for name, row in study["results"].items()
    ]
    return "\n".join([*rows, "", _measured_on(study["environment"], f"overhead --clock {study['clock']}")])


def scale_table() -> str:
    """Return the seconds and the bytes a sample of `benchmarks.selection_scale`."""
    study = _read("selection_scale")
    rows = ["| method | samples | seconds | bytes a sample | and for its state |", "|---|---|---|---|---|"]
    for row in sorted(study["results"], key=lambda row: row["n"]):
        seconds = f"{row['seconds']:.2f}{_whole(row, 'select')}{' *' if row.get('beside_other_work') else ''}"
        own = f"{row['bytes_per_sample']:.1f}{_whole(row, 'memory')}" if "bytes_per_sample" in row else ""
        state = f"{row['state_bytes_per_sample']:.1f}" if "state_bytes_per_sample" in row else ""
        rows.append(f"| {row['method']} | {row['n']:,} | {seconds} | {own} | {state} |")
    where = [_measured_on(study["environment"], "selection_scale --only select")]
    if (shared := study.get("environment_beside_other_work")) is not None:
        alone = next(row["seconds"] for row in study["results"] if (row["method"], row["n"]) == ("UCB", 10**8))
        where.append(
            f"\\* CPU time on {shared['cpu']}, torch {shared['versions']['torch']}, while other work kept both cores"
            f" busy, which lengthens it: UCB at 100,000,000 samples took {shared['UCB_seconds_at_100_million']:.1f} s"
            f" there, and {alone:.1f} s on the other, both before choosing was made faster, which is measured at"
            " 100,000,000 samples on the busy one alone."
        )
    where.append(_measured_on(study["memory_environment"], "selection_scale --only memory"))
    if any(_whole(row, part) for row in study["results"] for part in ("select", "memory")):
        where.append(
            "† Rounded to whole batches of 96 samples, as in a fit, which takes longer, and more memory if samples have"
            " weights. The rest was measured before, without rounding."
        )
    return "\n\n".join(["\n".join(rows), *where])


def _whole(row: Mapping[str, Any], part: str) -> str:
    return " †" if f"{part}_batch_size" in row else ""


def scratch_table() -> str:
    """Return what choosing takes with the state on the disk, beside memory, of `benchmarks.scratch`."""
    study = _read("scratch")
    rows = [
        "| method | samples | state in | seconds of CPU | memory for the choice | and for the state | on the disk |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in study["results"]:
        memory = f"{row['own_bytes'] / 1e9:.2f} GB, {row['own_bytes'] / row['n']:.1f} bytes a sample"
        state, disk = (f"{row[name] / 1e9:.2f} GB" for name in ("state_own_bytes", "disk_bytes"))
        cells = [row["method"], f"{row['n']:,}", row["where"], f"{row['cpu_seconds']:.1f}", memory, state, disk]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", _measured_on(study["environment"], "scratch")])


def merge_table() -> str:
    """Return the seconds of CPU time in which ranks exchange what they measured, of `benchmarks.selection_scale`."""
    study = _read("selection_scale")
    by_size: dict[int, dict[int, Row]] = {}
    for row in study["merges"]:
        by_size.setdefault(row["n"], {})[row["ranks"]] = row
    ranks = sorted(next(iter(by_size.values())))
    lines = [
        f"| samples | {' | '.join(f'{n} ranks' if n > 1 else '1 rank' for n in ranks)} |",
        "|---" * len(ranks) + "|---|",
    ]
    for n, row_of in by_size.items():
        cells = [
            f"{row_of[r]['cpu_seconds']:.3f} s of CPU, {row_of[r]['bytes_per_sample']:.0f} bytes a sample"
            for r in ranks
        ]
        lines.append(f"| {n:,} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _measured_on(study["merge_environment"], "selection_scale --only merge")])


def rank_model_table() -> str:
    """Return what the model of `benchmarks.rank_scale` predicts beside what was measured of it."""
    study = _read("rank_scale")
    rows = [
        "| ranks | samples | history | sent by a rank, MB | merging, s of CPU | choosing | ordering | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in study["results"]:
        if row["ranks"] == 1 or row["n"] < 10**6 or row["share"] < 1:
            continue
        sent = f"{row['predicted']['merge_sent'] / 1e6:.1f} / {row['merge_sent'] / 1e6:.1f}"
        cells = [f"{row['predicted'][part]:.2f} / {row[part]:.2f}" for part in ("merge", "choose", "order")]
        used = "fitted" if is_fitted_on(row, study["quick"]) else "predicted"
        rows.append(f"| {row['ranks']} | {row['n']:,} | {row['kind']} | {sent} | {' | '.join(cells)} | {used} |")
    return "\n".join([*rows, "", _measured_on(study["environment"], "rank_scale")])


def rank_scale_table() -> str:
    """Return what comes at more ranks and samples than were measured, of `benchmarks.rank_scale`."""
    rows = [
        "| ranks | samples | history | state of a rank, GB | it receives, GB | CPU, s | network, s"
        " | 1 % of an epoch from, ms a sample | checkpoint, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _read("rank_scale")["extrapolated"]:
        network = " / ".join(f"{seconds:.2g}" for seconds in row["network_seconds"].values())
        least = " / ".join(f"{1e3 * each:.2g}" for each in row["seconds_a_sample_for_one_percent"].values())
        rows.append(
            f"| {row['ranks']:,} | {row['n']:,} | {row['kind']} | {row['state_bytes'] / 1e9:.2g}"
            f" | {row['received_bytes'] / 1e9:.2g} | {sum(row['cpu_seconds'].values()):.1f} | {network} | {least}"
            f" | {row['checkpoint_bytes'] / 1e9:.2g} |"
        )
    return "\n".join(rows)


def method_table() -> str:
    """Return every method with its card, its paper and what its authors report."""
    rows = ["| method | kind | needs | published by its authors | paper |", "|---|---|---|---|---|"]
    rows += [
        f"| [{method.name}]({method.name}.md) | {method.kind} | {method.needs} | {method.published}"
        f" | {f'[{method.paper}]({method.url})' if method.url else method.paper}, {method.year} |"
        for method in list_methods()
    ]
    return "\n".join(rows)


def study_table(name: str, part: str, every_row: bool = False) -> str:
    """Return one part of a study: what each method reached, against what costs the same, and what it cost.

    Args:
        name: Of the study.
        part: Of it.
        every_row: Whether to show what is not in the part's headline, too.
    """
    table = _read(name)["parts"][part]
    digits = 2 if table["percent"] else 3
    unit = ", %" if table["percent"] else ""
    clock = "CPU time" if table["clock"] == "cpu" else "time"
    titles = [
        "",
        f"{table['metric']}{unit}",
        "against equal compute (epochs)",
        f"against equal {clock}",
        "against full",
        "forward / backward, of full",
        f"{clock}, of full",
        "saved of what the counts allow",
        "at full's value after",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in table["rows"]:
        if every_row or row["label"] in ("full", *table["headline"]) or _is_partner(row, table):
            lines.append(f"| {' | '.join(_cells(row, table, digits))} |")
    seeds = f"{table['seeds']} seed{'s' * (table['seeds'] != 1)}"
    measured = _measured_on(table["environment"], name, part)
    title = f"**{table['title']}** ({seeds}). {table['note']}".strip()
    said = f"{table['sentence']} {table.get('remark', '')}".strip() if table["headline"] else ""
    return "\n".join([title, "", *lines, "", *([said, ""] if said else []), measured])


def _cells(row: Row, table: Mapping[str, Any], digits: int) -> list[str]:
    full = next((other for other in table["rows"] if other["label"] == "full"), row)
    counts = f"{row['n_forward'] / full['n_forward']:.2f} / {row['n_backward'] / full['n_backward']:.2f}"
    against = _signed(row["vs_short"], digits)
    verdict = f", **{row['verdict']}**" if row["verdict"] else ""
    saved = row.get("saved_of_allowed")
    reached = row.get("time_to_full")
    return [
        f"`{row['label']}`" if row["short"] else row["label"],
        _plain(row["value"], digits),
        f"{against} ({row['short']:.1f}){verdict}" if row["short"] else "",
        _signed(row.get("vs_time"), digits),
        _signed(row["vs_full"], digits),
        counts,
        _time(row, table["clock"]),
        "" if saved is None else f"{saved:.0%}",
        f"{reached:.2f} of its time" if reached is not None else "never",
    ]


def _time(row: Row, clock: str) -> str:
    if "time" not in row:
        return ""
    seconds = row["cpu_seconds"] if clock == "cpu" else row["seconds"]["mean"]
    return f"1 ({seconds:.0f} s)" if row["label"] == "full" else f"{row['time']:.2f}"


def _is_partner(row: Row, table: Mapping[str, Any]) -> bool:
    """Return whether a row is full data, in all seeds, at about the cost of a method of the headline."""
    held = [other["short"] for other in table["rows"] if other["label"] in table["headline"] and other["short"]]
    near = {short_label(epochs) for short in held for epochs in (math.floor(short), math.ceil(short))}
    return row["label"] in near and row["value"]["n"] == table["seeds"]


def noise_table() -> str:
    """Return what each method reaches as labels get worse, and how far that is from equal compute."""
    parts = _read("noisy_labels")["parts"]
    shown = [name for name in ("flipped_0", "flipped_20", "flipped_40") if name in parts]
    first = parts[shown[0]]
    lines = _side_by_side(
        {f"{name.split('_')[1]} % flipped": parts[name] for name in shown},
        [(label, [label] * len(shown)) for label in ["full", *first["headline"]]],
    )
    seeds = min(parts[name]["seeds"] for name in shown)
    said = (
        f"Test accuracy in %, {_AGAINST}, over {seeds} seeds; training labels are flipped, those of the test are true."
    )
    return "\n".join([*lines, "", said, "", _measured_on(first["environment"], "noisy_labels", *shown)])


def text_table() -> str:
    """Return what each method reaches on the GLUE tasks, and how far that is from equal compute."""
    parts = _read("text")["parts"]
    first = next(iter(parts.values()))
    lines = _side_by_side(
        {name.removesuffix("_small").upper(): part for name, part in parts.items()},
        [(label, [label] * len(parts)) for label in ["full", *first["headline"]]],
    )
    seeds = min(part["seeds"] for part in parts.values())
    said = f"Accuracy on the official dev set in %, {_AGAINST}, over {seeds} seeds."
    return "\n".join([*lines, "", said, "", _measured_on(first["environment"], "text", *parts)])


def ratio_table() -> str:
    """Return what each method reaches as more is dropped, and how far that is from equal compute."""
    part = _read("images")["parts"]["fashion_mnist"]
    ratios = (0.3, 0.5, 0.7)
    rows = [(labels[0].split("(")[0].split(".")[-1], labels) for labels in zip(*map(every_method, ratios), strict=True)]
    lines = _side_by_side({f"{ratio:.0%} dropped": part for ratio in ratios}, [("full", ["full"] * 3), *rows])
    said = (
        f"Test accuracy in %, {_AGAINST}, over {part['seeds']} seeds. What a method is told to drop is not what it"
        " saves: the samples forwarded and back-propagated of every row are in RESULTS.md."
    )
    return "\n".join([*lines, "", said, "", _measured_on(part["environment"], "images", "fashion_mnist")])


_AGAINST = "and in brackets the points against full data at equal compute"


def _side_by_side(columns: Mapping[str, Row], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Put parts of studies side by side; each row is a name and the label of its method in every column."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    found = [{row["label"]: row for row in part["rows"]} for part in columns.values()]
    for name, labels in rows:
        if not any(label in by_label for by_label, label in zip(found, labels, strict=True)):
            continue  # a method that came after the study
        cells = [_reached(by_label.get(label)) for by_label, label in zip(found, labels, strict=True)]
        lines.append(f"| {name if name == 'full' else f'`{name}`'} | {' | '.join(cells)} |")
    return lines


def _reached(row: Row | None) -> str:
    if row is None:
        return "no result"
    against = f" ({_signed(row['vs_short'], 2)}{_mark(row)})" if row["short"] else ""
    return f"{_plain(row['value'], 2)}{against}"


def _mark(row: Row) -> str:
    return f", **{row['verdict']}**" if row["verdict"] else ""


def results_page() -> str:
    """Return the page of all rows of all studies."""
    said = [
        "# Results",
        "Written by `python -m benchmarks.tables` from `benchmarks/results/*.json`; do not edit.",
        "± is the standard deviation over seeds. *Against equal compute* is the difference, seed by seed, from full "
        "data for the number of epochs that costs the same, its schedule fitted to them (a sample forwarded costs one "
        "third, one back-propagated two thirds); between two whole numbers, from the line between both. **better** and "
        "**worse** stand where a t-test at 5 %, corrected for the number of methods, calls the difference real. "
        "*Against equal CPU time* is the same for what was measured in place of counted, with all that the method "
        "itself costs; empty where the table has no run of full data that is as cheap. *Saved of what the counts "
        "allow* is the measured saving over the saving that these counts of samples would give. *At full's value "
        "after* is the time until the metric on the validation split first was what full data ended with, in most "
        "of the seeds. CPU time is of one process with one thread: the machine was shared, which moves the "
        "wall-clock much and CPU time less. In each seed `full` runs first and `short` last: where the machine grew "
        "quieter meanwhile, `short` seems to save more than its counts allow, and by as much the methods' savings "
        "are uncertain. What is reported of the test set was measured once, after the last epoch.",
    ]
    for name in studies():
        said.append(f"## {name}")
        for part in _read(name)["parts"]:
            said += [f"### {name}: {part}", study_table(name, part, every_row=True)]
    return "\n\n".join(said) + "\n"


def studies() -> list[str]:
    """Return the names of the studies that have results."""
    return sorted(path.stem for path in RESULTS.glob("*.json") if path.stem not in NOT_STUDIES)


def tables() -> dict[str, Callable[[], str]]:
    """Return the makers of the tables that a page may show, by name; a part of a study is called ``STUDY_PART``."""
    made: dict[str, Callable[[], str]] = {
        "overhead": overhead_table,
        "scale": scale_table,
        "rank_model": rank_model_table,
        "rank_scale": rank_scale_table,
        "scratch": scratch_table,
        "methods": method_table,
        "recommended": recommended_table,
        "choices": choices_table,
        "ablations": ablation_table,
        "frontier": frontier_table,
        "frontier_budgets": budgets_table,
        "frontier_held_out": held_out_table,
        "frontier_rates": rates_table,
        "frontier_recipes": recipes_table,
        "frontier_rivals": rivals_table,
        "frontier_texts": texts_table,
        "frontier_streams": frontier_streams_table,
        "frontier_stress": stress_table,
        "headlines": lambda: headline_table({one.study: _read(one.study) for one in HEADLINES}),
        "label_errors": label_error_table,
        "short_comparisons": short_comparison_table,
        "originals": lambda: originals_table(_read("originals")),
        "originals_reasons": lambda: reasons_list(_read("originals")),
    }
    for name in studies():
        for part in _read(name)["parts"]:
            made[f"{name}_{part}"] = lambda name=name, part=part: study_table(name, part)  # type: ignore[misc]
    if "merges" in _read("selection_scale"):
        made["merge"] = merge_table
    if "fashion_mnist" in _read("images")["parts"]:
        made["images_ratios"] = ratio_table
    if "text" in studies():
        made["text"] = text_table
    if "noisy_labels" in studies():
        made["noisy_labels"] = noise_table
    return made


def filled_in(text: str) -> str:
    """Return a page with each table in its place.

    Raises:
        ValueError: If a place is for a table that there is not, or has no end.
    """
    known = tables()
    for name in re.findall(r"<!-- (?!end )(\w+) -->", text):
        if name in NO_TABLES:
            continue
        if name not in known:
            raise ValueError(f"<!-- {name} --> in a page: there is no such table; there are {', '.join(known)}.")
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        head, rest = text.split(start)
        if end not in rest:
            raise ValueError(f"<!-- {name} --> in a page has no {end}.")
        text = f"{head}{start}\n{known[name]()}\n{end}{rest.split(end)[1]}"
    return text


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def _plain(spread: Mapping[str, Any], digits: int) -> str:
    text = f"{spread['mean']:.{digits}f}"
    return text if spread["std"] is None else f"{text} ± {spread['std']:.{digits}f}"


def _signed(spread: Mapping[str, Any] | None, digits: int) -> str:
    if spread is None:
        return ""
    text = f"{spread['mean']:+.{digits}f}"
    return text if spread["std"] is None else f"{text} ± {spread['std']:.{digits}f}"


def _measured_on(where: Mapping[str, Any], module: str, *parts: str) -> str:
    device = where["gpu"] or f"{where['cpu']}, {where['cpu_count']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    command = f"python -m benchmarks.{module}"
    if parts:
        command += f" --data-dir DIR --only {' '.join(parts)}"
    return f"`{command}` on {device}; {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a text is stale")
    args = parser.parse_args()
    pages = {**dict.fromkeys(PAGES, filled_in), ROOT / "benchmarks" / "RESULTS.md": lambda _: results_page()}
    stale = []
    for page, write in pages.items():
        before = page.read_text() if page.exists() else ""
        text = write(before)
        if text != before:
            stale.append(page.name)
            if not args.check:
                page.write_text(text)
    if args.check:
        print(f"Stale: {', '.join(stale)}" if stale else "Tables are what the results say.")
        sys.exit(bool(stale))
    print(draw_recommended().relative_to(ROOT), draw_frontier().relative_to(ROOT))


if __name__ == "__main__":
    main()
