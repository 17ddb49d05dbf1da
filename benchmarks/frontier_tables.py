"""Frontier's gain over the same budget spent on everything for fewer epochs: its tables, and a picture."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from matplotlib.figure import Figure

from benchmarks import held_out_tasks, stress_tasks
from lightning_dataselect.report.figures import COLOURS, blank_figure

RESULTS = Path(__file__).parent / "results"
Row = Mapping[str, Any]
ERRORS = 2
_SLACK = 0.02
TEXTS = ("ag_news", "ag_news_20", "text_features", "text_features_20")
TASKS = {
    "fashion": "Fashion-MNIST, perceptron",
    "fashion_5": "Fashion-MNIST, perceptron, 5 % of labels flipped",
    "fashion_20": "Fashion-MNIST, perceptron, 20 % of labels flipped",
    "fashion_40": "Fashion-MNIST, perceptron, 40 % of labels flipped",
    "fashion_imbalanced": "Fashion-MNIST, perceptron, classes 100 to 1",
    "fashion_duplicates": "Fashion-MNIST, perceptron, half near duplicates",
    "convolutions": "Fashion-MNIST, convolutions",
    "convolutions_60k": "Fashion-MNIST, convolutions, all 60,000 images",
    "convolutions_long": "Fashion-MNIST, convolutions, 100 epochs",
    "convolutions_20": "Fashion-MNIST, convolutions, 20 % of labels flipped",
    "convolutions_pairs": "Fashion-MNIST, convolutions, 30 % labelled as the next class",
    "convolutions_imbalanced": "Fashion-MNIST, convolutions, classes 100 to 1",
    "cifar10": "CIFAR-10, perceptron",
    "cifar10_people": "CIFAR-10, perceptron, 40 % wrong by people",
    "cifar10_people_convolutions": "CIFAR-10, convolutions, 40 % wrong by people",
    "residual": "CIFAR-10, ResNet-8",
    "residual_worse": "CIFAR-10, ResNet-8, 40 % wrong by people",
    "image_features": "CIFAR-10, pretrained features",
    "image_features_aggre": "CIFAR-10, pretrained features, 9 % wrong by people",
    "image_features_random1": "CIFAR-10, pretrained features, 17 % wrong by people",
    "image_features_worse": "CIFAR-10, pretrained features, 40 % wrong by people",
    "adult": "Adult, perceptron",
    "adult_20": "Adult, perceptron, 20 % of labels flipped",
    "adult_rare": "Adult, perceptron, a tenth of one class",
    "overlapping": "made up, perceptron, classes that overlap",
    "ag_news": "AG News, bag of words",
    "ag_news_20": "AG News, bag of words, 20 % of labels flipped",
    "text_features": "AG News, pretrained features",
    "text_features_20": "AG News, pretrained features, 20 % of labels flipped",
    "digits": "digits, perceptron",
    "digits_20": "digits, perceptron, 20 % of labels flipped",
    "regression": "regression",
    "heavy_tails": "regression, heavy tails",
}


def frontier_table() -> str:
    """Return what Frontier gains, a row a task."""
    return _table_of_gains(_rows(), TASKS)


def stress_table() -> str:
    """Return what Frontier gains on the stress tasks, which led to the last change of its rule, a row a task."""
    return _table_in_order("frontier_stress", stress_tasks.TITLES)


def held_out_table() -> str:
    """Return what Frontier gains on the held-out tasks, which had no part in its rule, a row a task."""
    return _table_in_order("frontier_held_out", held_out_tasks.TITLES)


def _table_in_order(study: str, titles: Mapping[str, str]) -> str:
    rows = json.loads((RESULTS / f"{study}.json").read_text())["rows"]
    return _table_of_gains(sorted(rows, key=lambda row: list(titles).index(row["task"])), titles)


def _table_of_gains(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    heads = (
        "task",
        "`FewerEpochs`",
        "`Frontier`",
        "spent",
        "saved",
        "CPU time",
        "at equal time",
        "log loss",
        "left out",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        digits = 3 if row["lower_is_better"] else 2
        cells = (
            titles[row["task"]] + (", lower is better" if row["lower_is_better"] else ""),
            f"{row['fewer_epochs']:.{digits}f}",
            f"{row['difference']:+.{digits}f} ± {row['standard_error']:.{digits}f}",
            f"{row['spent']:.0%}",
            saved(row),
            f"{row['cpu_time']:.2f}",
            f"{row['at_equal_time']:+.{digits}f} ± {row['at_equal_time_error']:.{digits}f}",
            f"{row['log_loss_rise']:+.3f} ± {row['log_loss_error']:.3f}" if "log_loss" in row else "–",
            ", ".join(kind for kind in ("learnt", "contradicted") if kind in row["left_out"]) or "nothing",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def saved(row: Row) -> str:
    """Return what Frontier saved, as far as that is known where twice the compute gains nothing.

    Example:
        >>> row = {"saved": None, "difference": 0.0, "standard_error": 0.1, "spent": 0.625}
        >>> [saved({**row, **change}) for change in ({}, {"difference": 0.5}, {"difference": -0.5}, {"spent": 1.0})]
        ['38% or more', '69% or more', '–', '–']
    """
    if row["saved"] is not None:
        return f"{row['saved']:.0%} ± {row['saved_error']:.0%}"
    least = saved_at_least(row)
    return "–" if least is None else f"{least:.0%} or more"


def saved_at_least(row: Row) -> float | None:
    """Return the share of full data's compute that was saved at the least; None if nothing is known of it.

    Where full data gains nothing by twice the compute, it cannot reach with that what is measurably above it; and what
    is not measurably below it was reached with the share that was spent.
    """
    if row["saved"] is not None:
        return float(row["saved"])
    sure = row["difference"] / row["standard_error"]
    if sure > ERRORS:
        return 1 - row["spent"] / 2
    return 1 - row["spent"] if row["spent"] < 1 - _SLACK and sure >= -ERRORS else None


def draw_frontier() -> Path:
    """Draw the picture of the README; return where it lies."""
    target = RESULTS / "frontier.png"
    frontier_picture().savefig(target, format="png", metadata={"Software": None})
    return target


def frontier_picture() -> Figure:
    """Draw the gain on each classification, with two standard errors, at equal compute and at equal CPU time."""
    rows = sorted((row for row in _rows() if not row["lower_is_better"]), key=lambda row: row["difference"])
    figure = blank_figure(8.0, 0.6 + 0.25 * len(rows))
    axes = figure.subplots()
    axes.grid(axis="x", alpha=0.4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.axvline(0, color="black", lw=1)
    for place, row in enumerate(rows):
        gain, error = row["difference"], 2 * row["standard_error"]
        colour = "grey" if abs(gain) <= error else COLOURS[2] if gain > 0 else COLOURS[1]
        axes.errorbar(gain, place, xerr=error, color=colour, marker="o", ms=6, capsize=2, lw=1.5)
        axes.plot(row["at_equal_time"], place, color=colour, marker="d", ms=6, mfc="white", ls="none")
    axes.plot([], [], color="black", marker="o", ls="none", label="with the same budget, ± 2 standard errors")
    axes.plot([], [], color="black", marker="d", mfc="white", ls="none", label="at equal CPU time")
    axes.set_yticks(range(len(rows)), [TASKS[row["task"]] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("points of test accuracy above full data for half of the epochs", loc="right")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.6), frameon=False, handlelength=1, fontsize="small")
    return figure


def frontier_streams_table() -> str:
    """Return what Frontier gains on a stream, and by index, over the same budget spent on everything."""
    study = json.loads((RESULTS / "frontier_streams.json").read_text())
    lines = ["| task | `FewerEpochs` | `Frontier` | with an index | passes |", "|---|---|---|---|---|"]
    for row in study["rows"]:
        gains = [f"{mean:+.2f} ± {error:.2f}" for mean, error in (row["frontier"], row["frontier_by_index"])]
        cells = [TASKS[row["task"]], f"{row['fewer_epochs'][0]:.2f}", *gains, f"{row['passes']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    n_seeds = study["rows"][0]["seeds"]
    return "\n".join([*lines, "", f"{n_seeds} seeds: `python -m benchmarks.frontier_streams --data-dir DIR`."])


def rivals_table() -> str:
    """Return what other ways to spend the same compute gain over all classifications, beside Frontier."""
    heads = ("half of the compute", "points above `FewerEpochs`", "better on", "worse on", "at worst", "CPU time")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, every in widely_measured().items():
        rows = list(every.values())
        gains = [row["difference"] for row in rows]
        worst = min(rows, key=lambda row: row["difference"])
        cells = (
            name,
            f"{mean(gains):+.2f} ± {stdev(gains) / math.sqrt(len(gains)):.2f}",
            f"{sum(row['difference'] > 2 * row['standard_error'] for row in rows)} of {len(rows)}",
            str(sum(row["difference"] < -2 * row["standard_error"] for row in rows)),
            f"{worst['difference']:+.2f} ± {worst['standard_error']:.2f}, {TASKS[worst['task']]}",
            f"{median(row['cpu_time'] for row in rows):.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def texts_table() -> str:
    """Return what every method that was run on texts gains over FewerEpochs of the same compute."""
    lines = [f"| half of the compute | {' | '.join(TASKS[name] for name in TEXTS)} |", "|---" * (len(TEXTS) + 1) + "|"]
    for rival, rows in _by_rival().items():
        if set(TEXTS) <= set(rows):
            cells = [f"{rows[name]['difference']:+.2f} ± {rows[name]['standard_error']:.2f}" for name in TEXTS]
            lines.append(f"| {rival} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_rival() -> dict[str, dict[str, Row]]:
    """Return the rows of Frontier and of all that is measured on its tasks, by name and by task."""
    ours = {row["task"]: row for row in _rows() if not row["lower_is_better"]}
    found: dict[str, dict[str, Row]] = {"`Frontier`": ours}
    for row in json.loads((RESULTS / "frontier_rivals.json").read_text())["rows"]:
        name = row["rival"] if " batches " in row["rival"] else f"`{row['rival']}`"
        found.setdefault(name, {})[row["task"]] = row
    return found


def widely_measured() -> dict[str, dict[str, Row]]:
    """Return the rows of what was run on more than texts, on the tasks that all of these were run on."""
    wide = {name: rows for name, rows in _by_rival().items() if not set(rows) <= set(TEXTS)}
    common = set.intersection(*(set(rows) for rows in wide.values()))
    return {name: {task: row for task, row in rows.items() if task in common} for name, rows in wide.items()}


def recipes_table() -> str:
    """Return what Frontier gains over FewerEpochs under other recipes, a column a task."""
    return _grid(json.loads((RESULTS / "frontier_recipes.json").read_text())["rows"], "recipe")


def budgets_table() -> str:
    """Return what FewerEpochs and Frontier reach by smaller budgets, a line a task."""
    rows = json.loads((RESULTS / "frontier_budgets.json").read_text())["rows"]
    budgets = sorted({row["budget"] for row in rows})
    heads = [f"`budget={budget:g}`: `FewerEpochs` | `Frontier`" for budget in budgets]
    lines = [f"| task | {' | '.join(heads)} |", "|---" * (2 * len(budgets) + 1) + "|"]
    for name in dict.fromkeys(row["task"] for row in rows):
        of_task = sorted((row for row in rows if row["task"] == name), key=lambda row: row["budget"])
        gains = [
            f"{row['fewer_epochs']:.1f} | {row['difference']:+.2f} ± {row['standard_error']:.2f}" for row in of_task
        ]
        lines.append(f"| {TASKS[name]} | {' | '.join(gains)} |")
    return "\n".join(lines)


def rates_table() -> str:
    """Return what is gained over FewerEpochs at the learning rate that suits it best, a row a task."""
    given = {row["task"]: row["fewer_epochs"] for row in _rows()}
    rows = json.loads((RESULTS / "frontier_rates.json").read_text())["rows"]
    methods = list(rows[0]["gains"])
    heads = " | ".join(f"`{method}`" for method in methods)
    lines = [f"| task | rate | `FewerEpochs` | by the rate alone | {heads} |", "|---" * (4 + len(methods)) + "|"]
    for row in rows:
        gains = " | ".join("{:+.2f} ± {:.2f}".format(*row["gains"][method]) for method in methods)
        by_rate = row["fewer_epochs"] - given[row["task"]]
        lines.append(
            f"| {TASKS[row['task']]} | × {row['factor']:g} | {row['fewer_epochs']:.2f} | {by_rate:+.2f} | {gains} |"
        )
    return "\n".join(lines)


def ablation_table() -> str:
    """Return what Frontier gains or loses without each ingredient of its rule, a column a task that any changes."""
    return _grid(json.loads((RESULTS / "ablations.json").read_text())["rows"], "left_out")


def _grid(rows: list[Row], kind: str) -> str:
    """Return a table with a line a kind and a column a task; where there is no row, nothing has changed."""
    names = list(dict.fromkeys(row["task"] for row in rows))
    found = {(row[kind], row["task"]): row for row in rows}
    lines = [f"| | {' | '.join(TASKS[name] for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for each in dict.fromkeys(row[kind] for row in rows):
        cells = [found.get((each, name)) for name in names]
        shown = [f"{cell['difference']:+.2f} ± {cell['standard_error']:.2f}" if cell else "same" for cell in cells]
        lines.append(f"| {each} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _rows() -> list[Row]:
    rows = json.loads((RESULTS / "frontier.json").read_text())["rows"]
    return sorted(rows, key=lambda row: list(TASKS).index(row["task"]))
