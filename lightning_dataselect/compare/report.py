"""The report folder: `report.html`, the figures as PNG, `results.csv` and `results.json`."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from io import BytesIO
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from lightning_dataselect.compare import environment, table
from lightning_dataselect.compare.comparison import Outcome, Settings
from lightning_dataselect.compare.records import RunFolder, RunRecord
from lightning_dataselect.compare.summary import Summary
from lightning_dataselect.compare.task import Task
from lightning_dataselect.report import figures
from lightning_dataselect.report.over_time import Curve, metric_over_time


def write_report(task: Task, settings: Settings, outcome: Outcome, summary: Summary) -> None:
    """Writes all of it into `settings.out`, over what an earlier report left there.

    Args:
        task: What was compared on.
        settings: What was compared.
        outcome: What has finished and failed.
        summary: Made of it.
    """
    out = settings.out
    described = {
        "arguments": _arguments(task, settings),
        "environment": environment.describe(),
    }
    results = {
        **described,
        "sentence": summary.sentence,
        "interrupted": outcome.interrupted,
        "summary": [asdict(row) for row in summary.rows],
        "failures": [asdict(failure) for failure in outcome.failures],
        "runs": [asdict(run) for run in outcome.runs],
    }
    text = json.dumps(_without_nan(results), indent=1, allow_nan=False, default=repr)
    (out / "results.json").write_text(text)
    _runs_frame(outcome).to_csv(out / "results.csv", index=False)
    images = {}
    for name, figure in _figures(settings, outcome, summary).items():
        image = _png(figure)
        (out / f"{name}.png").write_bytes(image)
        images[name] = base64.b64encode(image).decode()
    loader = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = loader.from_string((files("lightning_dataselect.report") / "compare.html.j2").read_text())
    page = template.render(
        summary=summary,
        header=table.header(summary, settings.monitor),
        rows=[table.cells(row, summary) for row in summary.rows],
        outcome=outcome,
        images=images,
        galleries=_galleries(outcome, RunFolder(out)),
        described=described,
    )
    (out / "report.html").write_text(page)


def _arguments(task: Task, settings: Settings) -> dict[str, Any]:
    return {
        "methods": [spec.label for spec in settings.methods],
        "seeds": list(settings.seeds),
        "prune_ratio": settings.prune_ratio,
        "epochs": task.epochs,
        "monitor": settings.monitor,
        "mode": "max" if settings.maximize else "min",
        "out": str(settings.out),
        "config": task.config,
    }


def _runs_frame(outcome: Outcome) -> pd.DataFrame:
    columns = [
        *("method", "seed", "epochs", "value", "best", "seconds", "cpu_seconds", "waiting_seconds", "gpu_busy"),
        "validation_seconds",
        *("n_total", "n_forward", "n_backward"),
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
    whole = ["epochs", "n_total", "n_forward", "n_backward"]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _figures(settings: Settings, outcome: Outcome, summary: Summary) -> dict[str, Figure]:
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
        percent=summary.percent,
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


def _without_nan(value: Any) -> Any:
    """NaN is no JSON: null stands for it."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
