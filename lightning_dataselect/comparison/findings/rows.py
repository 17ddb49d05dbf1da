"""From runs to rows: means, spreads and paired differences, and each row's place among the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from lightning_dataselect.comparison.plans.numbers import Spread, spread
from lightning_dataselect.comparison.plans.outcome import NEAR, Outcome, spent
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import FULL, SHORT
from lightning_dataselect.comparison.runs.records import RunRecord


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        label: The method; a `short` row names its epochs.
        method: The method as in `--methods`.
        value: The metric at the end, in `Summary.unit`.
        seconds: Wall-clock of training, without validation.
        n_forward: Mean samples forwarded.
        n_backward: Mean samples back-propagated.
        dropped: Share of the samples of its epochs that were not trained on; 0 for the baselines.
        saved: Share of the compute of `full` that was saved, or None without `full`.
        saved_time: Share of the time of `full` that was saved, by the clock that the verdict goes by; likewise.
        saved_wall: The same in wall-clock time.
        speedup: Wall-clock of `full` over this one's, the median over seeds, or None without `full`:
            a run that something else on the machine held up does not move it.
        vs_full: Metric minus that of `full` with the same seed, or None.
        vs_short: Metric minus that of full data at equal compute, or None.
        vs_time: Metric minus that of full data at equal time, by the clock that the verdict goes by, or None.
        short: The epochs of full data that cost as much, the mean over seeds, or None.
        short_time: The epochs of full data that take as long, likewise.
        dominated: Whether some run on full data ends as well or better, and takes no longer.
        pareto: Whether no other row ends as well or better, and takes no longer.
        ended: What has stopped its runs early, and after how many epochs; empty if nothing has.
    """

    label: str
    method: str
    value: Spread
    seconds: Spread
    n_forward: float
    n_backward: float
    dropped: float
    saved: float | None
    saved_time: float | None
    saved_wall: float | None
    speedup: float | None
    vs_full: Spread | None
    vs_short: Spread | None
    vs_time: Spread | None
    short: float | None
    short_time: float | None
    dominated: bool
    pareto: bool
    ended: str

    @property
    def is_baseline(self) -> bool:
        """True if it is trained on full data."""
        return self.method in (FULL, SHORT)


def short_label(epochs: int) -> str:
    """Return the row of `short` with that many epochs.

    Example:
        >>> short_label(1), short_label(2)
        ('short, 1 epoch', 'short, 2 epochs')
    """
    return f"{SHORT}, {epochs} epoch{'s' * (epochs != 1)}"


def make_rows(outcome: Outcome, settings: Settings, scale: float) -> list[Row]:
    """Return the rows of what has finished, in the order of the methods.

    Args:
        outcome: The runs.
        settings: What is compared.
        scale: Factor on every value and difference of the metric: 100 for percent.
    """
    rows: list[Row] = []
    groups: list[list[RunRecord]] = []
    for spec in settings.methods:
        runs = [run for run in outcome.runs if run.method == spec.label]
        by_epochs = sorted({run.epochs for run in runs}) if spec.label == SHORT else [None] if runs else []
        for epochs in by_epochs:
            group = [run for run in runs if epochs in (None, run.epochs)]
            label = spec.label if epochs is None else short_label(epochs)
            rows.append(_make_row(label, group, outcome, scale))
            groups.append(group)
    return _place(rows, groups, outcome, settings.maximize)


def _make_row(label: str, runs: Sequence[RunRecord], outcome: Outcome, scale: float) -> Row:
    method = runs[0].method
    full = [(run, other) for run in runs if (other := outcome.find(FULL, run.seed)) is not None]
    pruned = [run for run in runs if run.kept]
    by_compute = [(run, value) for run in pruned if (value := outcome.at_equal_compute(run)) is not None]
    by_time = [(run, value) for run, _ in by_compute if (value := outcome.at_equal_time(run)) is not None]
    epochs = [outcome.time_epochs(run) for run, _ in by_time]
    return Row(
        label=label,
        method=method,
        value=spread(scale * run.value for run in runs),
        seconds=spread(run.seconds for run in runs),
        n_forward=fmean(run.n_forward for run in runs),
        n_backward=fmean(run.n_backward for run in runs),
        dropped=fmean(run.dropped for run in pruned) if pruned else 0.0,
        saved=1 - fmean(run.cost / other.cost for run, other in full) if full else None,
        saved_time=1 - median(outcome.time_of(run) / outcome.time_of(other) for run, other in full) if full else None,
        saved_wall=1 - median(run.seconds / other.seconds for run, other in full) if full else None,
        speedup=median(other.seconds / run.seconds for run, other in full) if full else None,
        vs_full=spread(scale * (a.value - b.value) for a, b in full) if full and method != FULL else None,
        vs_short=spread(scale * (run.value - value) for run, value in by_compute) if by_compute else None,
        vs_time=spread(scale * (run.value - value) for run, value in by_time) if by_time else None,
        short=fmean(outcome.short_epochs(run) for run, _ in by_compute) if by_compute else None,
        short_time=fmean(each for each in epochs if each is not None) if epochs else None,
        dominated=False,
        pareto=False,
        ended=_ended(runs),
    )


def _ended(runs: Sequence[RunRecord]) -> str:
    early = [run for run in runs if run.ended_by]
    if not early:
        return ""
    done = sorted({run.epochs_done for run in early})
    epochs = f"{done[0]}" if len(done) == 1 else f"{done[0]} to {done[-1]}"
    of = "" if len(early) == len(runs) else f" in {len(early)} of {len(runs)} runs"
    return f"stopped by {' and '.join(sorted({run.ended_by for run in early}))} after {epochs} of {runs[0].epochs}{of}"


def _place(rows: Sequence[Row], groups: Sequence[Sequence[RunRecord]], outcome: Outcome, maximize: bool) -> list[Row]:
    """Return the rows again, each with its place among the others."""
    sign = 1 if maximize else -1
    epoch = outcome.epoch_time()
    places = []
    for row, group in zip(rows, groups, strict=True):
        if row.is_baseline:
            time = fmean(spent(run) for run in group)
        else:
            time = fmean(outcome.short_epochs(run) if epoch is None else outcome.time_of(run) / epoch for run in group)
        places.append((time, sign * row.value.mean, row))
    placed = []
    # rows of fewer seeds are no match for the others: what a seed is good for is in their means
    most = max((row.value.n for row in rows), default=0)
    for time, value, row in places:
        if row.value.n < most:
            placed.append(row)
            continue
        no_slower = [
            (v, other)
            for t, v, other in places
            if other is not row and other.value.n == most and t <= time * (1 + NEAR)
        ]
        dominated = not row.is_baseline and any(v >= value for v, other in no_slower if other.is_baseline)
        placed.append(replace(row, dominated=dominated, pareto=all(v < value for v, _ in no_slower)))
    return placed
