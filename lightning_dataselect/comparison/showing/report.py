"""The report folder: `report.html`, `metric_over_time.png`, `results.csv` and `results.json`."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.spec import SHORT
from lightning_dataselect.comparison.runs.records import RunFolder
from lightning_dataselect.comparison.showing import pictures, table
from lightning_dataselect.comparison.showing.earlier import name_of
from lightning_dataselect.comparison.showing.reported import Reported
from lightning_dataselect.utils.writing import written_whole


def write_report(comparison: Reported, out: Path) -> Path:
    """Write all of it, over what an earlier report left there.

    Args:
        comparison: What was found.
        out: The folder, which is there.

    Returns:
        The path of `report.html`.

    Raises:
        UnwritableFileError: If the disk is full, say; an earlier report then stays as it was, all of its files.
    """
    page = _template("compare.html.j2").render(
        **_answer(comparison), **_about(comparison), **pictures.draw(comparison, RunFolder(out))
    )
    runs, figure = _runs_frame(comparison.outcome), pictures.metric_figure(comparison)
    with (
        written_whole(out / "results.json") as values,
        written_whole(out / "results.csv") as table_of_runs,
        written_whole(out / "metric_over_time.png") as picture,
        written_whole(out / "report.html") as report,
    ):
        values.write_text(comparison.json())
        runs.to_csv(table_of_runs, index=False)
        figure.savefig(picture, format="png")
        report.write_text(page, encoding="utf-8")
    return out / "report.html"


def fragment(comparison: Reported) -> str:
    """Return what a notebook shows: what to do, and the table."""
    return _template("compare_answer.html.j2").render({**_answer(comparison), "in_notebook": True})


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
        "legend": table.LEGEND,
        "in_notebook": False,
    }


def _about(comparison: Reported) -> dict[str, Any]:
    on_task = f"{comparison.settings.monitor} on {name_of(comparison.task.described())}"
    return {
        "title": f"Which selection method pays? {on_task}",
        "arguments": _arguments(comparison),
        "config": yaml.safe_dump(_plain(comparison.task.described()), sort_keys=False),
        "environment": comparison.described()["environment"],
    }


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
