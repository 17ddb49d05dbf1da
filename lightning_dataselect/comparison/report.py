"""The report folder: `report.html`, the figures as PNG, `results.csv` and `results.json`."""

from __future__ import annotations

import base64
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from lightning_dataselect.comparison import table
from lightning_dataselect.comparison.records import RunFolder, RunRecord
from lightning_dataselect.comparison.runner import Outcome
from lightning_dataselect.report import figures
from lightning_dataselect.report.over_time import Curve, metric_over_time

if TYPE_CHECKING:
    from lightning_dataselect.comparison.result import Comparison


def write_report(comparison: Comparison, out: Path) -> Path:
    """Write all of it, over what an earlier report left there.

    Args:
        comparison: What was found.
        out: The folder, which is there.

    Returns:
        The path of `report.html`.
    """
    (out / "results.json").write_text(comparison.json())
    _runs_frame(comparison.outcome).to_csv(out / "results.csv", index=False)
    images = {}
    for name, figure in _figures(comparison).items():
        image = _png(figure)
        (out / f"{name}.png").write_bytes(image)
        images[name] = base64.b64encode(image).decode()
    loader = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = loader.from_string((files("lightning_dataselect.report") / "compare.html.j2").read_text())
    summary = comparison.summary
    columns = table.columns(summary, comparison.settings.monitor)
    page = template.render(
        summary=summary,
        header=[column.title for column in columns],
        rows=[[column.text(row) for column in columns] for row in summary.rows],
        outcome=comparison.outcome,
        images=images,
        galleries=_galleries(comparison.outcome, RunFolder(out)),
        described=comparison.described()["arguments"],
    )
    (out / "report.html").write_text(page)
    return out / "report.html"


def metric_figure(comparison: Comparison) -> Figure:
    """Return the metric over the cost of training."""
    return _figures(comparison)["metric_over_time"]


def fragment(comparison: Comparison) -> str:
    """Return what a notebook shows."""
    return f"<pre>{comparison!r}</pre>"


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


def _figures(comparison: Comparison) -> dict[str, Figure]:
    outcome, settings = comparison.outcome, comparison.settings
    full: dict[int, list[Curve]] = {}
    pruned: dict[str, list[RunRecord]] = {}
    for run in outcome.runs:
        if run.kept:
            pruned.setdefault(run.method, []).append(run)
        elif run.curve:
            full.setdefault(run.epochs, []).append(_over_time(run))
    first = {label: runs[0] for label, runs in pruned.items()}
    curves = {label: [_over_time(run) for run in runs if run.curve] for label, runs in pruned.items()}
    metric = metric_over_time(
        {label: runs for label, runs in curves.items() if runs},
        full,
        metric=settings.monitor,
        percent=comparison.summary.percent,
        maximize=settings.maximize,
    )
    return {
        "metric_over_time": metric,
        "kept_share": figures.kept_share({label: run.kept for label, run in first.items()}),
        "score_histogram": figures.score_histogram(
            {label: run.histogram for label, run in first.items() if run.histogram}
        ),
    }


def _galleries(outcome: Outcome, folder: RunFolder) -> dict[str, str]:
    """By method, the picture of its first run's samples."""
    galleries: dict[str, str] = {}
    for run in outcome.runs:
        path = folder.gallery(run.method, run.seed)
        if run.kept and run.method not in galleries and path.is_file():
            galleries[run.method] = base64.b64encode(path.read_bytes()).decode()
    return galleries


def _over_time(run: RunRecord) -> Curve:
    return [(point.seconds, point.value) for point in run.curve]


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
