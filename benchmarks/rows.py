"""From the runs of one part of a study to the rows of its table: what was reached, and at what cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

from lightning_dataselect.comparison.findings.rows import short_label
from lightning_dataselect.comparison.findings.summary import summarise
from lightning_dataselect.comparison.plans.numbers import spread
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import FULL, SHORT
from lightning_dataselect.comparison.runs.records import Point, RunRecord

Clock = Literal["wall", "cpu"]
DIGITS = 6


def summed_up(
    outcome: Outcome, settings: Settings, metric: str | None, metric_maximize: bool, clock: Clock
) -> dict[str, Any]:
    """Return the table of a part and what it means.

    Args:
        outcome: What has finished.
        settings: Of the comparison.
        metric: What is reported of the test set; None reports the monitored metric.
        metric_maximize: Whether more of it is better.
        clock: What time is measured by: the CPU time where the machine is shared, the wall on a GPU.

    Returns:
        ``rows``, one a method, with these beside what `compare` has: ``cost``, the compute in samples over that of
        full data, which is what the method's arithmetic allows; ``time``, the measured time over that of full data;
        ``saved_of_allowed``, the measured saving over the saving that ``cost`` allows; ``time_to_full``, the time
        until the monitored metric was first what full data ended with, over the time of full data; ``reached``, in how
        many seeds it ever was; ``vs_time``, the metric less that of full data after the same measured time;
        ``waiting``, the share of the time that was spent waiting for the loader.
    """
    reported, judged = outcome, settings
    if metric is not None:
        reported = replace(outcome, runs=[replace(run, value=run.tested[metric]) for run in outcome.runs])
        judged = replace(settings, monitor=metric, maximize=metric_maximize)
    summary = summarise(reported, judged)
    scale = 100.0 if summary.percent else 1.0
    rows = []
    for row in summary.rows:
        runs = [run for run in reported.runs if _label(run) == row.label]
        rows.append(
            {
                **asdict(row),
                **_costs(runs, reported, settings.maximize, clock),
                "vs_time": _against_time(runs, reported, clock, scale),
                "verdict": summary.verdicts.get(row.label),
            }
        )
    return {
        "metric": metric or settings.monitor,
        "monitor": settings.monitor,
        "maximize": settings.maximize,
        "metric_maximize": judged.maximize,
        "percent": summary.percent,
        "epochs": outcome.epochs,
        "n_train": outcome.runs[0].n_total,
        "seeds": len({run.seed for run in outcome.runs}),
        "clock": clock,
        "sentence": summary.sentence,
        "rows": _rounded(rows),
        "failures": [asdict(failure) | {"log": None} for failure in outcome.failures],
    }


def _label(run: RunRecord) -> str:
    return short_label(run.epochs) if run.method == SHORT else run.method


def _costs(runs: Sequence[RunRecord], outcome: Outcome, maximize: bool, clock: Clock) -> dict[str, Any]:
    pairs = [(run, full) for run in runs if (full := outcome.find(FULL, run.seed)) is not None]
    if not pairs:
        return {}
    cost = fmean(run.cost / full.cost for run, full in pairs)
    time = median(_total(run, clock) / _total(full, clock) for run, full in pairs)
    reached = [
        at / _total(full, clock) for run, full in pairs if (at := _time_to(run, full, maximize, clock)) is not None
    ]
    return {
        "cpu_seconds": median(run.cpu_seconds for run in runs),
        "cost": cost,
        "time": time,
        "kept": [fmean(shares) for shares in zip(*(run.kept for run in runs), strict=False)],
        "saved_of_allowed": (1 - time) / (1 - cost) if cost < 0.98 else None,
        "time_to_full": median(reached) if len(reached) > len(pairs) / 2 else None,
        "reached": len(reached),
    }


def _against_time(runs: Sequence[RunRecord], outcome: Outcome, clock: Clock, scale: float) -> dict[str, Any] | None:
    """Return what `runs` end with, less what full data reaches in the same time, interpolated between its runs.

    None where they took less time than any of these runs, or more than all.
    """
    differences = []
    for run in runs:
        full = [other for other in outcome.runs if other.seed == run.seed and other.method in (FULL, SHORT)]
        if not run.kept or not full:
            continue
        full.sort(key=lambda other: _total(other, clock))
        times, values = [_total(other, clock) for other in full], [other.value for other in full]
        if times[0] <= _total(run, clock) <= times[-1]:
            differences.append(scale * (run.value - float(np.interp(_total(run, clock), times, values))))
    return asdict(spread(differences)) if differences else None


def _total(run: RunRecord, clock: Clock) -> float:
    return run.cpu_seconds if clock == "cpu" else run.seconds


def _time_to(run: RunRecord, full: RunRecord, maximize: bool, clock: Clock) -> float | None:
    """Return the time at which `run` was first as good as `full` at its end, on the validation split, or None."""
    enough: Callable[[Point], bool]
    target = full.curve[-1].value if full.curve else math.nan
    enough = (lambda point: point.value >= target) if maximize else (lambda point: point.value <= target)
    first = next((point for point in run.curve if enough(point)), None)
    if first is None:
        return None
    return first.cpu_seconds if clock == "cpu" else first.seconds


def _rounded(value: Any) -> Any:
    """Round to six significant digits, more than any table shows, and replace NaN, which is no JSON, by None."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
