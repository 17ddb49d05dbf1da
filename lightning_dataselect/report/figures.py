"""Figures, each a pure function of numbers; no pyplot, so no global state and no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

if TYPE_CHECKING:
    from lightning_dataselect.selector import DataSelector

# Okabe and Ito's palette, which colour-blind readers can tell apart; yellow is left out on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP"

Curve = Sequence[tuple[float, float]]


def style(i: int) -> dict[str, Any]:
    """Colour, marker and dash of the i-th series; no two of the first 24 are alike."""
    dashes = ("-", "--", "-.", ":")
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
        "linestyle": dashes[i // len(COLOURS) % len(dashes)],
    }


def trained_share(history: Sequence[Mapping[str, float]]) -> list[float]:
    """By epoch, the share of all samples that was sent backward.

    Args:
        history: Records with `n_backward` and `n_total`, as `DataSelector.history` holds them.

    Example:
        >>> trained_share([{"n_backward": 50, "n_total": 100}])
        [0.5]
    """
    return [epoch["n_backward"] / epoch["n_total"] for epoch in history]


def bin_scores(scores: Tensor, bins: int = 40) -> dict[str, Any]:
    """A histogram small enough to be kept with a run.

    Args:
        scores: float32 (N,), NaN = never measured.
        bins: How many, of equal width, from the lowest to the highest finite score.

    Returns:
        `counts` (bins numbers), `edges` (bins + 1 numbers), `unmeasured` (how many are no number).

    Example:
        >>> bin_scores(torch.tensor([0.0, 1.0, float("nan")]), bins=2)
        {'counts': [1, 1], 'edges': [0.0, 0.5, 1.0], 'unmeasured': 1}
    """
    finite = scores[torch.isfinite(scores)].double().numpy()
    counts, edges = np.histogram(finite, bins=bins)
    unmeasured = len(scores) - len(finite)
    return {"counts": counts.tolist(), "edges": edges.tolist(), "unmeasured": unmeasured}


def kept_share(shares: Mapping[str, Sequence[float]]) -> Figure:
    """The share of the samples that each epoch trained on.

    Args:
        shares: By method, one number an epoch, 0 to 1.
    """
    figure, axes = _figure()
    for i, (label, share) in enumerate(shares.items()):
        # Lines that would hide one another are set apart by a hair.
        y = np.asarray(share) + 0.004 * (i - (len(shares) - 1) / 2)
        every = max(1, len(share) // 10)
        axes.plot(range(1, len(share) + 1), y, label=label, markevery=every, **style(i))
    axes.set(xlabel="epoch", ylabel="share of the samples trained on", ylim=(0, 1.06))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("Kept share by epoch", loc="left")
    _legend(figure, axes)
    return figure


def score_histogram(histograms: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The scores that methods rank by at the end, one panel a method.

    Args:
        histograms: By method, as `bin_scores` gives them.
    """
    columns = min(3, max(1, len(histograms)))
    rows = -(-max(1, len(histograms)) // columns)
    width = 7.5 if columns == 1 else 3.6 * columns
    figure = Figure(figsize=(width, 0.6 + 2.7 * rows), dpi=144, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (label, histogram) in enumerate(histograms.items()):
        panel = panels[i]
        unmeasured = histogram["unmeasured"]
        if sum(histogram["counts"]):
            panel.stairs(histogram["counts"], histogram["edges"], fill=True, color=style(i)["color"])
            # A few samples far out are what a method looks for: a linear axis would hide them.
            panel.set_yscale("log")
            panel.set_ylim(bottom=0.7)
        else:
            panel.text(0.5, 0.5, "keeps no scores", ha="center", transform=panel.transAxes)
        panel.set_title(f"{label}" + (f" ({unmeasured} unmeasured)" if unmeasured else ""), size=10)
        _plain(panel)
        panel.set_xlabel("score")
    for panel in panels[len(histograms) :]:
        panel.remove()
    for panel in panels[::columns]:
        panel.set_ylabel("samples (log)")
    figure.suptitle("Scores at the end", x=0.01, ha="left", size=12)
    return figure


def metric_over_time(
    curves: Mapping[str, Sequence[Curve]],
    full: Mapping[int, Sequence[Curve]],
    *,
    metric: str,
    percent: bool,
    maximize: bool,
) -> Figure:
    """The metric over the wall-clock of training; means over seeds, with the spread at the end.

    What full data reaches in each of several numbers of epochs makes a line: a method pays where it
    ends above it (or below, for a loss).

    Args:
        curves: By method, and for each seed, (seconds so far, metric) after each epoch.
        full: The same for full data, by the number of epochs.
        metric: Its name.
        percent: Whether it is a share, to be shown in percent.
        maximize: Whether more of it is better.
    """
    figure, axes = _figure()
    scale = 100.0 if percent else 1.0
    ends: list[float] = []
    for i, (label, runs) in enumerate(curves.items()):
        look = style(i)
        mean = _mean_curve(runs) * (1.0, scale)
        axes.plot(*mean.T, alpha=0.45, lw=1.2, color=look["color"], ls=look["linestyle"])
        ends += _end(axes, runs, scale, label=label, **look)
    for epochs, runs in sorted(full.items()):
        label = "full data, by epochs" if epochs == max(full) else None
        ends += _end(axes, runs, scale, label=label, color="black", marker="x", linestyle="--")
        at = _mean_curve(runs)[-1] * (1.0, scale)
        axes.annotate(str(epochs), at, xytext=(0, 7), textcoords="offset points", ha="center")
    if full:
        line = [_mean_curve(runs)[-1] * (1.0, scale) for _, runs in sorted(full.items())]
        axes.plot(*np.transpose(line), color="black", ls="--", lw=1.2)
    if ends:
        # The climb of the first epochs would flatten the differences that matter.
        low, high = min(ends), max(ends)
        room = (high - low) or abs(high) or 1.0
        below, above = (1.2, 0.25) if maximize else (0.25, 1.2)
        axes.set_ylim(low - below * room, high + above * room)
    axes.set(xlabel="wall-clock of training, seconds", ylabel=f"{metric}, %" if percent else metric)
    axes.set_title(f"{metric} over training time (bars: spread over seeds)", loc="left")
    axes.set_xlim(left=0)
    _legend(figure, axes)
    return figure


def _mean_curve(runs: Sequence[Curve]) -> np.ndarray:
    """(epochs, 2): seconds and metric by epoch, averaged over runs of maybe unlike length."""
    length = min(len(run) for run in runs)
    return np.array([run[len(run) - length :] for run in runs]).mean(axis=0)


def _end(axes: Axes, runs: Sequence[Curve], scale: float, **look: Any) -> list[float]:
    """Marks where the runs end, and returns the highest and the lowest of it."""
    seconds, values = np.array([run[-1] for run in runs]).T
    values = values * scale
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    mean = values.mean()
    axes.errorbar(seconds.mean(), mean, yerr=spread, capsize=3, ms=7, lw=1.4, **look)
    return [float(mean - spread), float(mean + spread)]


def plot_selector(selector: DataSelector, kind: str) -> Figure:
    """What one selector has done: the figure behind `DataSelector.plot`.

    Args:
        selector: During or after a fit.
        kind: `kept_share` or `score_histogram`.

    Raises:
        ValueError: If there is no such kind.
    """
    name = type(selector).__name__
    if kind == "kept_share":
        return kept_share({name: trained_share(selector.history)})
    if kind == "score_histogram":
        return score_histogram({name: bin_scores(selector.scores)})
    raise ValueError(f"plot({kind!r}): the kinds are 'kept_share' and 'score_histogram'.")


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.0, 4.8), dpi=144, layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
