"""The report folder: `report.html`, `metric_over_time.png`, `results.csv` and `results.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import jinja2
import pandas as pd
import yaml
from matplotlib.figure import Figure

from lightning_dataselect.comparison import decisions, samples, table
from lightning_dataselect.comparison.advice import Advice
from lightning_dataselect.comparison.numbers import share, shown
from lightning_dataselect.comparison.outcome import Outcome, spent
from lightning_dataselect.comparison.records import RunFolder, RunRecord
from lightning_dataselect.comparison.settings import Settings
from lightning_dataselect.comparison.spec import FULL, SHORT
from lightning_dataselect.comparison.summary import Summary
from lightning_dataselect.comparison.task import Task
from lightning_dataselect.report import svg
from lightning_dataselect.report.over_time import Curve, metric_over_time

# For the page on a phone and on anything wider, in pixels.
_WIDTHS = {"narrow": 350, "wide": 540}
_TERMS = (0.1, 0.5)  # of its epochs, a sample is dropped seldom up to the first, and often from the second on


class Reported(Protocol):
    """A comparison as its report needs it."""

    @property
    def task(self) -> Task:
        """The task that was compared on."""

    @property
    def settings(self) -> Settings:
        """The methods, seeds and metric."""

    @property
    def outcome(self) -> Outcome:
        """The runs, and those that failed."""

    @property
    def summary(self) -> Summary:
        """The rows and what they mean."""

    @property
    def advice(self) -> Advice:
        """The recommendation."""

    def described(self) -> dict[str, Any]:
        """Return everything as plain values."""

    def json(self) -> str:
        """Return the same as JSON."""


def write_report(comparison: Reported, out: Path) -> Path:
    """Write all of it, over what an earlier report left there.

    Args:
        comparison: What was found.
        out: The folder, which is there.

    Returns:
        The path of `report.html`.
    """
    (out / "results.json").write_text(comparison.json())
    _runs_frame(comparison.outcome).to_csv(out / "results.csv", index=False)
    metric_figure(comparison).savefig(out / "metric_over_time.png", format="png")
    page = _template("compare.html.j2").render(**_answer(comparison), **_pictures(comparison, RunFolder(out)))
    (out / "report.html").write_text(page, encoding="utf-8")
    return out / "report.html"


def fragment(comparison: Reported) -> str:
    """Return what a notebook shows: what to do, and the table."""
    return _template("compare_answer.html.j2").render({**_answer(comparison), "in_notebook": True})


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


def _template(name: str) -> jinja2.Template:
    folder = files("lightning_dataselect.report")
    loader = jinja2.FunctionLoader(lambda wanted: (folder / wanted).read_text(encoding="utf-8"))
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(name)


def _answer(comparison: Reported) -> dict[str, Any]:
    summary = comparison.summary
    columns = table.columns(summary, comparison.settings.monitor) if summary.rows else []
    rows = [
        {
            "cells": [(column.text(row), column.rank(row)) for column in columns],
            "kind": "short" if row.method == SHORT else "full" if row.is_baseline else "method",
            "verdict": summary.verdicts.get(row.label, ""),
            "best": row.label == comparison.advice.label,
        }
        for row in summary.rows
    ]
    return {
        "advice": comparison.advice,
        "summary": summary,
        "columns": columns,
        "rows": rows,
        "outcome": comparison.outcome,
        "in_notebook": False,
    }


def _pictures(comparison: Reported, folder: RunFolder) -> dict[str, Any]:
    summary, outcome, settings = comparison.summary, comparison.outcome, comparison.settings
    unit = f"{settings.monitor}{', %' if summary.percent else ''}"
    line, places = _places(comparison)
    methods = [row for row in summary.rows if not row.is_baseline and row.saved is not None]
    shares = {row.label: [row.saved or 0.0, row.saved_time or 0.0] for row in methods}
    clock = "CPU time" if outcome.clock == "cpu" else "time"
    told = {run.method: found for run in reversed(outcome.runs) if run.kept and (found := _samples(run, folder))}
    chosen = comparison.advice.label if comparison.advice.label in told else _leader(comparison, list(told))
    found = told.get(chosen or "", {})
    decided = _decided(comparison, told)
    dropped = [] if chosen in decided else [epoch for epoch in found.get("dropped", [])]
    return {
        "title": f"Which selection method pays? {settings.monitor} on {_task_name(comparison)}",
        "metric_over_cost": _both(
            lambda width: svg.metric_over_cost(
                line, places, x_label=f"{clock} of training, of full data's", y_label=unit,
                maximize=settings.maximize, width=width,
            )
        ),
        "places": places,
        "saved": _both(lambda width: svg.bars(shares, ["samples", clock], width=width)),
        "clock": clock,
        "chosen": chosen,
        "dropped": _both(lambda width: svg.stacked(dropped, y_label="share of all samples dropped", width=width))
        if any(sum(epoch.values()) for epoch in dropped) else "",
        "dropped_names": list(dropped[0]) if dropped else [],
        "decided": decided,
        "decided_titles": decisions.TITLES,
        "data_map": _data_map(found),
        "sure": found.get("sure", ""),
        "galleries": {name: each["specimens"] for name, each in told.items() if each.get("specimens")},
        "arguments": _arguments(comparison),
        "config": yaml.safe_dump(_plain(comparison.task.described()), sort_keys=False),
        "environment": comparison.described()["environment"],
    }  # fmt: skip


def _both(draw: Callable[[int], str]) -> str:
    """The same picture for a phone and for a wider page."""
    pictures = {name: draw(width) for name, width in _WIDTHS.items()}
    return "".join(f'<div class="{name}">{picture}</div>' for name, picture in pictures.items() if picture)


def _places(comparison: Reported) -> tuple[list[svg.Place], list[svg.Place]]:
    outcome, summary = comparison.outcome, comparison.summary
    full = summary.row(FULL)
    # of a full run as it was, which something may have stopped early
    of = fmean(spent(run) for run in outcome.runs if run.method == FULL) if full else float(outcome.epochs)
    line: list[svg.Place] = []
    places: list[svg.Place] = []
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
            places.append(svg.Place(at, row.value.mean, deviation, text))
    return line, places


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
    return {"rows": explained.rows, "picture": picture, "names": list(explained.epochs[0])}


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


def _task_name(comparison: Reported) -> str:
    described = comparison.task.described()
    model = described.get("model") or described.get("make_module") or "the task"
    name = model.get("class_path", "the task") if isinstance(model, dict) else model
    return str(name).rpartition(".")[2]


def _arguments(comparison: Reported) -> dict[str, str]:
    settings = comparison.settings
    return {
        "methods": ", ".join(spec.label for spec in settings.methods),
        "seeds": ", ".join(map(str, settings.seeds)),
        "epochs of a full run": str(comparison.task.epochs),
        "prune_ratio": str(settings.prune_ratio),
        "metric": f"{settings.monitor}, {'more' if settings.maximize else 'less'} is better",
        "folder": str(settings.out),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else escape(repr(value))


def _runs_frame(outcome: Outcome) -> pd.DataFrame:
    columns = [
        *("method", "seed", "epochs", "epochs_done", "ended_by", "value", "best", "seconds", "cpu_seconds"),
        *("waiting_seconds", "gpu_busy", "validation_seconds", "n_total", "n_forward", "n_backward", "dropped"),
    ]
    rows = [
        {
            **{name: getattr(run, name) for name in columns},
            "short_epochs": outcome.short_epochs(run) if run.kept else None,
            "status": "finished",
        }
        for run in outcome.runs
    ]
    rows += [{"method": f.method, "seed": f.seed, "status": f"failed: {f.message}"} for f in outcome.failures]
    frame = pd.DataFrame(rows, columns=[*columns, "short_epochs", "status"])
    whole = ["epochs", "epochs_done", "n_total", "n_forward", "n_backward"]
    return frame.astype(dict.fromkeys(whole, "Int64"))
