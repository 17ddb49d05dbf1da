"""Figures, each a pure function of numbers; no pyplot, so no global state and no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from lightning_dataselect.state.suspects import averages
from lightning_dataselect.utils.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lightning_dataselect.state.fit_state import EpochRecord
    from lightning_dataselect.state.results import Results

# Okabe and Ito's palette, which colour-blind readers can tell apart; yellow is left out on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP"
MAX_POINTS = 10_000
_CSS_PIXELS_PER_INCH = 96


class _ShownFigure(Figure):
    """Without pyplot no notebook knows how to show a figure, so this one says so itself."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The pixels, and the size to show them at: IPython's protocol for rich output."""
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        width, height = self.get_size_inches() * _CSS_PIXELS_PER_INCH
        return buffer.getvalue(), {"width": round(width), "height": round(height)}


def blank_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, which shows itself as the last value of a notebook's cell."""
    return _ShownFigure(figsize=(width, height), dpi=144, layout="constrained")


def style(i: int) -> dict[str, Any]:
    """Colour, marker and dash of the i-th series; no two of the first 24 are alike."""
    dashes = ("-", "--", "-.", ":")
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
        "linestyle": dashes[i // len(COLOURS) % len(dashes)],
    }


def trained_share(history: Sequence[EpochRecord]) -> list[float]:
    """By epoch, the share that was sent backward of what would have been with nothing dropped.

    Args:
        history: Records with `n_backward` and `n_full`, as `DataSelector.history` holds them.

    Example:
        >>> trained_share([{"n_backward": 50, "n_full": 100}])
        [0.5]
    """
    return [epoch["n_backward"] / max(epoch["n_full"], 1) for epoch in history]


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
    figure, axes = new_figure()
    for i, (label, share) in enumerate(shares.items()):
        # Lines that would hide one another are set apart by a hair.
        y = np.asarray(share) + 0.004 * (i - (len(shares) - 1) / 2)
        every = max(1, len(share) // 10)
        axes.plot(range(1, len(share) + 1), y, label=label, markevery=every, **style(i))
    axes.set(xlabel="epoch", ylabel="share of the samples trained on", ylim=(0, 1.06))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("Kept share by epoch", loc="left")
    legend_outside(figure, axes)
    return figure


def score_histogram(histograms: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The scores that methods rank by at the end, one panel a method.

    Args:
        histograms: By method, as `bin_scores` gives them.
    """
    columns = min(3, max(1, len(histograms)))
    rows = -(-max(1, len(histograms)) // columns)
    width = 7.5 if columns == 1 else 3.6 * columns
    figure = blank_figure(width, 0.6 + 2.7 * rows)
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
        title = label + (f" ({unmeasured} unmeasured)" if unmeasured else "")
        panel.set_title(fill(title, 36), size=10)
        _plain(panel)
        panel.set_xlabel("score")
    for panel in panels[len(histograms) :]:
        panel.remove()
    for panel in panels[::columns]:
        panel.set_ylabel("samples (log)")
    figure.suptitle("Scores at the end", x=0.01, ha="left", size=12)
    return figure


def class_map(variability: Tensor, confidence: Tensor, selected: Tensor) -> Figure:
    """Every sample by how sure the model was of its label over the epochs, the map of Dataset Cartography.

    Args:
        variability: float32 (N,), standard deviation of the probability of the label, NaN = never classified.
        confidence: float32 (N,), its mean.
        selected: int64 (n,), indices of the kept samples.
    """
    figure, axes = new_figure()
    _scatter(axes, variability, confidence, selected)
    axes.set(xlabel="variability of that probability", ylabel="mean probability of the label", ylim=(-0.03, 1.03))
    for at, text in ((0.97, "easy"), (0.5, "ambiguous"), (0.03, "hard, or labelled wrong")):
        x, side = (0.98, "right") if text == "ambiguous" else (0.02, "left")
        axes.text(x, at, text, transform=axes.transAxes, ha=side, va="center", size=9, color="#555555")
    axes.set_title("Data map", loc="left")
    legend_outside(figure, axes)
    return figure


def data_map(losses: Tensor, values: Tensor, selected: Tensor, name: str = "score") -> Figure:
    """Every sample by its last loss and by something else, and whether it was kept.

    Args:
        losses: float32 (N,), NaN = never seen.
        values: float32 (N,), NaN = never measured; such samples are left out. Or integers, how often something was:
            samples of the same number are spread, or they would hide one another.
        selected: int64 (n,), indices of the kept samples.
        name: What the values are.
    """
    figure, axes = new_figure()
    counts = not values.is_floating_point()
    if counts:
        values = values + 0.7 * (torch.rand(len(values), generator=torch.Generator().manual_seed(0)) - 0.5)
    known = _scatter(axes, losses, values, selected)
    # most samples are easy: linear below the median and logarithmic above shows these and the few far out
    axes.set_xscale("symlog", linthresh=_typical(losses[known]))
    if counts:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_yscale("symlog", linthresh=_typical(values[known]))
    axes.set(xlabel="last loss", ylabel=name)
    axes.set_title("Data map", loc="left")
    legend_outside(figure, axes)
    return figure


def _scatter(axes: Axes, x: Tensor, y: Tensor, selected: Tensor) -> Tensor:
    """Draw the samples of which both are known, those of the last epoch apart, and return which they are."""
    kept = torch.zeros(len(y), dtype=torch.bool)
    kept[selected] = True
    known = torch.isfinite(x) & torch.isfinite(y)
    groups = [("kept in the last epoch", kept & known, 1), ("dropped in the last epoch", ~kept & known, 0)]
    if kept.all():  # by a method that chooses within batches, too
        groups = [("all samples", known, 1)]
    for label, group, i in groups:
        shown = group.nonzero()[:, 0]
        # more points than this are one blot, and take minutes to draw
        shown = shown[:: max(1, len(shown) // MAX_POINTS)]
        look: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i], "alpha": 0.5, "s": 12, "linewidths": 0}
        axes.scatter(x[shown], y[shown], label=f"{label} ({int(group.sum()):,})", **look)
    if n_unknown := int((~known).sum()):
        axes.scatter([], [], alpha=0, label=f"never measured, not shown ({n_unknown:,})")
    if not known.any():
        axes.text(0.5, 0.5, "no sample was measured", ha="center", transform=axes.transAxes)
    return known


def _second_axis(selector: Results) -> tuple[Tensor, str]:
    """Return a second value a sample, beside its last loss, and its name: the score or, failing that, a count."""
    known = torch.isfinite(selector.losses)
    if not known.any() or not torch.equal(selector.scores[known], selector.losses[known]):
        return selector.scores, "score"
    return selector.store.column("times_trained"), "times trained"


def _typical(values: Tensor) -> float:
    return (float(values.abs().median()) if len(values) else 0.0) or 1.0


def plot_selector(selector: Results, kind: str) -> Figure:
    """Draw the figure behind `DataSelector.plot`: one selector's history in numbers.

    Args:
        selector: During or after a fit.
        kind: `kept_share`, `score_histogram` or `data_map`.

    Raises:
        ValueError: If there is no such kind.
    """
    name = type(selector).__name__
    if kind == "kept_share":
        return kept_share({name: trained_share(selector.history)})
    if kind == "score_histogram":
        return score_histogram({name: bin_scores(selector.scores)})
    if kind == "data_map":
        if selector.store.knows_classes:
            means = averages(selector.store)
            return class_map(means["variability"], means["confidence"], selector.selected)
        values, what = _second_axis(selector)
        return data_map(selector.losses, values, selector.selected, what)
    raise InvalidArgumentError(
        f"plot({kind!r}): the kinds are 'kept_share', 'score_histogram', 'data_map' and 'gallery'."
    )


def new_figure() -> tuple[Figure, Axes]:
    """A figure of one panel, wide enough for a legend at its side."""
    figure = blank_figure(9.0, 4.8)
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)


def legend_outside(figure: Figure, axes: Axes) -> None:
    """Put the legend where it covers nothing; long names are broken, or they would leave no room."""
    handles, labels = axes.get_legend_handles_labels()
    broken = [fill(label, 28) for label in labels]
    figure.legend(handles, broken, loc="outside right upper", frameon=False, fontsize=9)
