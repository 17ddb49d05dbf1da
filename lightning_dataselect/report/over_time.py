"""A metric over the wall-clock of training: what a method reaches, and what full data reaches in as long."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_dataselect.report.figures import legend_outside, new_figure, style

Curve = Sequence[tuple[float, float]]

_ROOM = 0.05  # of the picture's width, what a number of epochs takes


def metric_over_time(
    curves: Mapping[str, Sequence[Curve]],
    full: Mapping[int, Sequence[Curve]],
    *,
    metric: str,
    percent: bool,
    maximize: bool,
    over: str = "wall-clock of training, seconds",
) -> Figure:
    """The metric over the cost of training, over all seeds, with the spread at the end.

    What full data reaches in each of several numbers of epochs makes a line: a method pays where it
    ends above it (or below, for a loss).

    Args:
        curves: By method, and for each seed, (seconds so far, metric) after each epoch.
        full: The same for full data, by the number of epochs.
        metric: Its name.
        percent: Whether it is a share, to be shown in percent.
        maximize: Whether more of it is better.
        over: What the first number of each pair is, if not seconds.
    """
    figure, axes = new_figure()
    scale = 100.0 if percent else 1.0
    ends: list[float] = []
    for i, (label, runs) in enumerate(curves.items()):
        look = style(i)
        mean = _mean_curve(runs) * (1.0, scale)
        axes.plot(*mean.T, alpha=0.45, lw=1.2, color=look["color"], ls=look["linestyle"])
        ends += _end(axes, runs, scale, label=label, **look)
    for epochs, runs in sorted(full.items()):
        named = {"label": "full data, by epochs"} if epochs == max(full) else {}
        ends += _end(axes, runs, scale, color="black", marker="x", linestyle="--", **named)
    if full:
        line = {epochs: _mean_curve(runs)[-1] * (1.0, scale) for epochs, runs in sorted(full.items())}
        axes.plot(*np.transpose(list(line.values())), color="black", ls="--", lw=1.2)
        last = max(run[-1][0] for runs in [*curves.values(), *full.values()] for run in runs)
        _number(axes, line, _ROOM * last)
    if ends:
        # The climb of the first epochs would flatten the differences that matter.
        low, high = min(ends), max(ends)
        room = (high - low) or abs(high) or 1.0
        below, above = (1.2, 0.25) if maximize else (0.25, 1.2)
        axes.set_ylim(low - below * room, high + above * room)
    axes.set(xlabel=over, ylabel=f"{metric}, %" if percent else metric)
    axes.set_title(f"{metric} over {over.split(',')[0]} (bars: spread over seeds)", loc="left")
    axes.set_xlim(left=0)
    legend_outside(figure, axes)
    return figure


def _number(axes: Axes, line: Mapping[int, np.ndarray], room: float) -> None:
    """Write the epochs beside the points, as far as there is room."""
    end = -np.inf
    for epochs, at in line.items():
        if at[0] >= end:
            axes.annotate(str(epochs), tuple(at), xytext=(7, 5), textcoords="offset points")
            end = at[0] + room


def _mean_curve(runs: Sequence[Curve]) -> np.ndarray:
    """(epochs, 2): median seconds and mean metric by epoch, of runs of maybe unlike length."""
    length = min(len(run) for run in runs)
    points = np.array([run[len(run) - length :] for run in runs])
    return np.stack([np.median(points[..., 0], axis=0), points[..., 1].mean(axis=0)], axis=1)


def _end(axes: Axes, runs: Sequence[Curve], scale: float, **look: Any) -> list[float]:
    """Mark where the runs end, and return the highest and the lowest of it."""
    seconds, values = np.array([run[-1] for run in runs]).T
    values = values * scale
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    mean = values.mean()
    axes.errorbar(np.median(seconds), mean, yerr=spread, capsize=3, ms=7, lw=1.4, **look)
    return [float(mean - spread), float(mean + spread)]
