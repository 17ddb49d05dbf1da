"""The pictures of a comparison: the metric over its cost and over time, what was saved, what became of the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from lightning_dataselect.comparison.plans.numbers import share, shown
from lightning_dataselect.comparison.plans.outcome import Outcome, spent
from lightning_dataselect.comparison.plans.spec import FULL, SHORT
from lightning_dataselect.comparison.runs import samples
from lightning_dataselect.comparison.runs.records import RunFolder, RunRecord
from lightning_dataselect.comparison.showing import decisions
from lightning_dataselect.comparison.showing.reported import Reported
from lightning_dataselect.report import svg
from lightning_dataselect.report.over_time import Curve, metric_over_time

# For the page on a phone and on anything wider, in pixels.
_WIDTHS = {"narrow": 350, "wide": 540}
_TERMS = (0.1, 0.5)  # of its epochs, a sample is dropped seldom up to the first, and often from the second on


def metric_figure(comparison: Reported) -> Figure:
    """Return the metric over the time of training."""
    outcome, settings = comparison.outcome, comparison.settings
    full: dict[int, list[Curve]] = {}
    curves: dict[str, list[Curve]] = {}
    for run in outcome.runs:
        if not run.curve:
            continue
        if run.kept:
            curves.setdefault(run.method, []).append(_over_time(run, outcome))
        else:
            full.setdefault(run.epochs, []).append(_over_time(run, outcome))
    clock = "CPU time" if outcome.clock == "cpu" else "wall-clock"
    return metric_over_time(
        curves,
        full,
        metric=settings.monitor,
        percent=comparison.summary.percent,
        maximize=settings.maximize,
        over=f"{clock} of training, seconds",
    )


def _over_time(run: RunRecord, outcome: Outcome) -> Curve:
    """Of a run on full data, at what an epoch typically takes: its line must not fold back on itself."""
    epoch = outcome.epoch_time()
    if not run.kept and epoch is not None:
        n_epochs = len(run.curve)
        return [(epoch * spent(run) * (i + 1) / n_epochs, point.value) for i, point in enumerate(run.curve)]
    by_cpu = outcome.clock == "cpu"
    return [(point.cpu_seconds if by_cpu else point.seconds, point.value) for point in run.curve]


def draw(comparison: Reported, folder: RunFolder) -> dict[str, Any]:
    """Draw what the page shows, by the names that its template knows it by.

    Args:
        comparison: What was found.
        folder: Holds what its runs have written of their samples.
    """
    summary, outcome, settings = comparison.summary, comparison.outcome, comparison.settings
    unit = f"{settings.monitor}{', %' if summary.percent else ''}"
    line, of_methods = places(comparison)
    methods = [row for row in summary.rows if not row.is_baseline and row.saved is not None]
    shares = {row.label: [row.saved or 0.0, row.saved_time or 0.0] for row in methods}
    clock = "CPU time" if outcome.clock == "cpu" else "time"
    told = {run.method: found for run in reversed(outcome.runs) if run.kept and (found := _samples(run, folder))}
    chosen = comparison.advice.label if comparison.advice.label in told else _leader(comparison, list(told))
    found = told.get(chosen or "", {})
    decided = _decided(comparison, told)
    dropped = [] if chosen in decided else [epoch for epoch in found.get("dropped", [])]
    return {
        "metric_over_cost": _both(
            lambda width: svg.metric_over_cost(
                line, of_methods, x_label=f"{clock} of training, of full data's", y_label=unit,
                maximize=settings.maximize, width=width,
            )
        ),
        "places": of_methods,
        "saved": _both(lambda width: svg.bars(shares, ["samples", clock], width=width)),
        "clock": clock,
        "chosen": chosen,
        "dropped": _both(lambda width: svg.stacked(dropped, y_label="share of all samples dropped", width=width))
        if any(sum(epoch.values()) for epoch in dropped) else "",
        "dropped_names": list(dropped[0]) if dropped else [],
        "decided": decided,
        "data_map": _data_map(found),
        "sure": found.get("sure", ""),
        "galleries": {name: each["specimens"] for name, each in told.items() if each.get("specimens")},
    }  # fmt: skip


def _both(draw: Callable[[int], str]) -> str:
    """The same picture for a phone and for a wider page."""
    pictures = {name: draw(width) for name, width in _WIDTHS.items()}
    return "".join(f'<div class="{name}">{picture}</div>' for name, picture in pictures.items() if picture)


def places(comparison: Reported) -> tuple[list[svg.Place], list[svg.Place]]:
    """Return where full data for fewer epochs lies in the picture of the metric over its cost, and where methods do."""
    outcome, summary = comparison.outcome, comparison.summary
    full = summary.row(FULL)
    # of a full run as it was, which something may have stopped early
    of = fmean(spent(run) for run in outcome.runs if run.method == FULL) if full else float(outcome.epochs)
    line: list[svg.Place] = []
    of_methods: list[svg.Place] = []
    for row in summary.rows:
        deviation = row.value.std if row.value.n > 1 else 0.0
        if row.is_baseline:
            # the whole line by one figure of what an epoch takes, so that it never folds back
            at = fmean(spent(run) for run in outcome.runs if run.method == row.method and _is_of(run, row.label)) / of
            # and by differences within seeds, so that a row of few seeds does not bend it
            value = full.value.mean + row.vs_full.mean if full and row.vs_full else row.value.mean
            line.append(svg.Place(at, value, deviation, f"{row.label}: {shown(row.value)}"))
        else:
            at = 1 - row.saved_time if row.saved_time is not None else 1.0
            text = f"{row.label}: {shown(row.value)} in {share(at)} of the time"
            of_methods.append(svg.Place(at, row.value.mean, deviation, text))
    return line, of_methods


def _is_of(run: RunRecord, label: str) -> bool:
    return run.method != SHORT or label.startswith(f"{SHORT}, {run.epochs} epoch")


def _samples(run: RunRecord, folder: RunFolder) -> dict[str, Any]:
    return samples.read(folder.samples(run.method, run.seed))


def _leader(comparison: Reported, known: list[str]) -> str | None:
    """The method that comes nearest to being recommended."""
    sign = 1 if comparison.settings.maximize else -1
    verdicts = comparison.summary.verdicts
    rows = [row for row in comparison.summary.rows if row.label in known and row.vs_short is not None]
    rows = [row for row in rows if verdicts.get(row.label) != "worse"] or rows
    if not rows:
        return known[0] if known else None
    return max(rows, key=lambda row: sign * row.vs_short.mean if row.vs_short else 0.0).label


def _decided(comparison: Reported, told: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By method, what it has decided in its first run."""
    made = {}
    for name, found in told.items():
        if found.get("decisions"):
            run = next(run for run in comparison.outcome.runs if run.method == name)
            made[name] = _shown(decisions.explain(found["decisions"], run.kept, run.n_total))
    return made


def _shown(explained: decisions.Explained) -> dict[str, Any]:
    y_label = "share of all samples not trained on"
    picture = _both(lambda width: svg.stacked(explained.epochs, y_label=y_label, width=width))
    return {
        "titles": explained.titles,
        "rows": explained.rows,
        "has_held_back": decisions.HELD_BACK in explained.titles,
        "has_held_out": decisions.HELD_OUT in explained.titles,
        "picture": picture,
        "names": list(explained.epochs[0]),
    }


def _data_map(found: dict[str, Any]) -> str:
    points = found.get("map", [])
    seldom, often = _TERMS
    groups = [
        [(deviation, sure) for sure, deviation, dropped in points if low <= dropped < high]
        for low, high in ((0.0, seldom), (seldom, often), (often, 1.1))
    ]
    if not points:
        return ""
    axes = {"x_label": "how much it varied over the epochs", "y_label": f"mean {found['sure']}"}
    return _both(lambda width: svg.scatter(groups, width=width, **axes))
