"""The pictures of a study, from the runs in its own output folder; `benchmarks.harness` draws them as runs finish."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_dataselect.comparison.runs.records import RunRecord
from lightning_dataselect.report.figures import legend_outside, new_figure, style
from lightning_dataselect.report.over_time import Curve, metric_over_time

# One or two of each family; the curves of all methods would hide one another.
SHOWN = ("random", "random_rescaled", "InfoBatch", "SeTa", "UCB", "SwiftLearn", "EL2N", "ESWP", "SelectiveBackprop")
OVER = {
    "time": "CPU time of training, seconds",
    "samples": "samples back-propagated, thousands",
}
Part = Mapping[str, Any]


def draw(part: Part, runs: Sequence[RunRecord], stem: Path) -> list[Path]:
    """Draw the pictures of one part of a study.

    Args:
        part: The part, as in the study's JSON.
        runs: Its finished runs.
        stem: The path of the pictures, to which ``_over_time.png`` and the like are added.

    Returns:
        The paths of the pictures; none where there is nothing to compare: no methods, or no full data in every seed.
    """
    full = [row for row in part["rows"] if row["label"] == "full" and row["value"]["n"] == part["seeds"]]
    if not part["headline"] or not full:
        return []
    figures = {f"over_{over}": metric_over(part, runs, over) for over in OVER}
    figures["against_cost"] = value_against_cost(part)
    paths = {kind: stem.with_name(f"{stem.name}_{kind}.png") for kind in figures}
    for kind, figure in figures.items():
        figure.savefig(paths[kind], format="png", metadata={"Software": None})
    return list(paths.values())


def metric_over(part: Part, runs: Sequence[RunRecord], over: str) -> Figure:
    """Draw the metric of the validation split after each epoch, over the time or over the samples that it took.

    Args:
        part: The part, as in the study's JSON.
        runs: Its finished runs.
        over: ``time`` or ``samples``.
    """
    label = OVER[over] if part["clock"] == "cpu" else OVER[over].replace("CPU time", "time")
    column = "n_backward" if over == "samples" else "cpu_seconds" if part["clock"] == "cpu" else "seconds"
    scale = 1e-3 if over == "samples" else 1.0
    full: dict[int, list[Curve]] = {}
    curves: dict[str, list[Curve]] = {}
    names = curve_names(part["headline"])
    for run in runs:
        curve = [(scale * getattr(point, column), point.value) for point in run.curve]
        if not run.kept:
            if run.epochs <= part["epochs"]:  # the methods that cost more than full data are not shown
                full.setdefault(run.epochs, []).append(curve)
        elif run.method in names:
            curves.setdefault(names[run.method], []).append(curve)
    return metric_over_time(
        curves,
        full,
        metric=part["monitor"],
        percent=part["maximize"] and all(0 <= point.value <= 1 for run in runs for point in run.curve),
        maximize=part["maximize"],
        over=label,
    )


def curve_names(labels: Sequence[str]) -> dict[str, str]:
    """Name the curve of each method shown: its name, and the arguments that others of that name lack."""
    shown = [label for label in labels if len(labels) <= len(SHOWN) or _short_name(label) in SHOWN]
    names = {}
    for label in shown:
        others = [set(_arguments(other)) for other in shown if _short_name(other) == _short_name(label)]
        own = [argument for argument in _arguments(label) if argument not in set.intersection(*others)]
        names[label] = _short_name(label) + (f"({', '.join(own)})" if own else "")
    return names


def _arguments(label: str) -> list[str]:
    return [argument for argument in label.partition("(")[2].removesuffix(")").split(", ") if argument]


def _short_name(label: str) -> str:
    """Return a method's name without its arguments and its package, for which a plot has no room."""
    return label.split("(")[0].split(".")[-1]


def value_against_cost(part: Part) -> Figure:
    """Draw what each method ends with over what it cost, beside full data for any number of epochs."""
    figure, axes = new_figure()
    lines: dict[str, list[tuple[float, float]]] = {}
    baseline = []
    for row in part["rows"]:
        if "time" not in row:
            continue
        at = (row["time"], row["value"]["mean"])
        if row["label"] == "full" or row["label"].startswith("short, "):
            if row["value"]["n"] < part["seeds"]:
                continue
            baseline.append((row["cost"], at, row["value"]["std"] or 0.0))
        else:
            lines.setdefault(_short_name(row["label"]), []).append(at)
    _, points, spreads = zip(*sorted(baseline), strict=True)
    x, y = zip(*points, strict=True)
    axes.errorbar(x, y, yerr=spreads, color="black", marker="x", ls="--", capsize=3, label="full data, by epochs")
    for i, (label, places) in enumerate(lines.items()):
        look = style(i)
        axes.plot(*zip(*sorted(places), strict=True), label=label, ms=7, lw=0.8, alpha=0.9, **look)
    clock = "CPU time" if part["clock"] == "cpu" else "time"
    axes.set(
        xlabel=f"{clock} of training, share of full data's",
        ylabel=f"{part['metric']}{', %' if part['percent'] else ''}",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    n_seeds = f"mean over {part['seeds']} seeds" if part["seeds"] > 1 else "one seed"
    axes.set_title(f"What each method ends with, over what it cost ({n_seeds})", loc="left")
    if part["metric_maximize"]:
        # one method that fails would flatten the differences between the others
        values = [*y, *(value for places in lines.values() for _, value in places)]
        height = (max(y) - min(y)) or 1.0
        bottom = max(min(values), min(y) - 2 * height) - 0.1 * height
        axes.set_ylim(bottom=bottom)
        below = [f"{label} {value:.1f}" for label, places in lines.items() for _, value in places if value < bottom]
        if below:
            text = fill(f"Below the picture: {', '.join(below)}", 80)
            axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=9)
    legend_outside(figure, axes)
    return figure
