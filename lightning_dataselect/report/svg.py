"""Charts as SVG for a page, each a pure function of numbers: text stays text, and colours come from the page.

The page gives the classes their colours, so that one picture does for light and dark: `s0` to `s5` are series, `ink`
and `muted` text, `rule` lines of the grid. A chart is drawn for a width in pixels, at which its text has the size of
the page's; a page that is read on phones and desktops holds it for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

N_COLOURS = 6
_TEXT = 13
_TOP, _BOTTOM, _RIGHT = 12, 46, 14
_DIGIT, _LETTER = 7.4, 8.8  # pixels that a number's digit takes, and at most a letter of a name


@dataclass(frozen=True)
class Place:
    """A point on two axes, with the spread of its height.

    Attributes:
        x: On the horizontal axis.
        y: On the vertical axis.
        spread: Up and down from there; 0 for none.
        label: What stands there.
    """

    x: float
    y: float
    spread: float
    label: str


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from `low` to `high`, at most so many.

    Example:
        >>> ticks(0.0, 100.0, 6), ticks(91.2, 93.4, 4)
        ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [92.0, 93.0])
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most - 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def metric_over_cost(
    line: Sequence[Place], places: Sequence[Place], *, x_label: str, y_label: str, maximize: bool, width: int
) -> str:
    """Return what runs end with over what they cost: full data as a line with a band, methods as numbered points.

    Args:
        line: Full data's runs, by their cost.
        places: The methods, numbered from 1 in this order.
        x_label: Of the horizontal axis, whose numbers are in percent.
        y_label: Of the vertical axis.
        maximize: Whether more is better.
        width: In pixels.
    """
    everything = [*line, *places]
    if not everything:
        return ""
    height = max(260, min(380, round(width * 0.62)))
    ends = [place.y + sign * place.spread for place in everything for sign in (-1, 1)]
    if line:
        # one method that failed must not flatten the differences between the others
        best = max(ends) if maximize else min(ends)
        span = 3 * max(abs(best - place.y) + place.spread for place in line) or abs(best) or 1.0
        ends = [end for end in ends if abs(end - best) <= span] or ends
    canvas = _Canvas(width, height, (0.0, 1.06 * max(place.x for place in everything)), _padded(ends), _percent)
    parts = [canvas.frame(x_label, f"{y_label} ({'higher' if maximize else 'lower'} is better)")]
    ordered = sorted(line, key=lambda place: place.x)
    if ordered:
        upper = [canvas.at(place.x, place.y + place.spread) for place in ordered]
        lower = [canvas.at(place.x, place.y - place.spread) for place in reversed(ordered)]
        parts.append(f'<polygon class="band" points="{_points([*upper, *lower])}"/>')
        parts.append(f'<polyline class="full" points="{_points([canvas.at(p.x, p.y) for p in ordered])}"/>')
        for place in ordered:
            x, y = canvas.at(place.x, place.y)
            parts.append(f'<path class="full" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">{_title(place.label)}</path>')
    for i, place in enumerate(places):
        x, y = canvas.at(place.x, place.y)
        top, bottom = (canvas.at(place.x, place.y + sign * place.spread)[1] for sign in (1, -1))
        colour = f"s{i % N_COLOURS}"
        if place.spread:
            parts.append(f'<path class="whisker {colour}" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>')
        parts.append(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="9">{_title(place.label)}</circle>')
        parts.append(f'<text class="in" x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle">{i + 1}</text>')
    return canvas.svg(parts, f"{y_label} over {x_label}")


def bars(rows: Mapping[str, Sequence[float]], names: Sequence[str], *, width: int) -> str:
    """Return horizontal bars of shares, a group for each row, each bar with its number.

    Args:
        rows: By label, one share for each of `names`; below 0 where more was spent than saved.
        names: Of the bars of a group; what they are is told beside the picture.
        width: In pixels.
    """
    if not rows:
        return ""
    n, bar, gap = len(names), 16, 12
    group = 20 + n * (bar + 3) + gap
    height = len(rows) * group + 6
    numbers = [value for values in rows.values() for value in values]
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    room = 52.0  # for the number at either end
    scale = (width - room * (1 + (low < 0)) - 4) / ((high - low) or 1.0)
    zero = 2 + (room if low < 0 else 0) - low * scale
    parts = []
    for i, (label, values) in enumerate(rows.items()):
        top = i * group
        parts.append(f'<text class="ink" x="2" y="{top + 14}">{escape(_shortened(label, width - 4))}</text>')
        for j, value in enumerate(values):
            y = top + 20 + j * (bar + 3)
            x, length = zero + min(0.0, value) * scale, max(1.0, abs(value) * scale)
            side = ("end", x - 5) if value < 0 else ("start", x + length + 5)
            parts.append(f'<rect class="s{j}" x="{x:.1f}" y="{y}" width="{length:.1f}" height="{bar}"/>')
            parts.append(
                f'<text class="ink" x="{side[1]:.1f}" y="{y + 13}" text-anchor="{side[0]}">{round(100 * value)}%</text>'
            )
    parts.append(f'<path class="axis" d="M{zero:.1f} 18V{height - gap}"/>')
    return _svg(width, height, parts, f"{' and '.join(names)}, by method")


def stacked(epochs: Sequence[Mapping[str, float]], *, y_label: str, width: int) -> str:
    """Return shares stacked by epoch.

    Args:
        epochs: Of each epoch, the shares by what they are of; the same keys each time.
        y_label: Of the vertical axis.
        width: In pixels.
    """
    if not epochs:
        return ""
    most = max(sum(shares.values()) for shares in epochs)
    canvas = _Canvas(width, 240, (0.0, float(len(epochs))), (0.0, max(0.05, 1.1 * most)), _whole)
    parts = [canvas.frame("epoch", y_label, x_ticks=False, y_text=_percent)]
    for i, shares in enumerate(epochs):
        base = 0.0
        for j, share in enumerate(shares.values()):
            (left, top), (right, bottom) = canvas.at(i + 0.08, base + share), canvas.at(i + 0.92, base)
            base += share
            if share > 0:
                size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
                parts.append(f'<rect class="s{j}" x="{left:.1f}" y="{top:.1f}" {size}/>')
    every = max(1, math.ceil(len(epochs) / (width / 45)))
    for i in range(0, len(epochs), every):
        x, _ = canvas.at(i + 0.5, 0.0)
        parts.append(f'<text class="muted" x="{x:.1f}" y="{canvas.bottom + 17}" text-anchor="middle">{i + 1}</text>')
    return canvas.svg(parts, f"{y_label} by epoch")


def scatter(groups: Sequence[Sequence[tuple[float, float]]], *, x_label: str, y_label: str, width: int) -> str:
    """Return points in the colours of their groups.

    Args:
        groups: Of each, pairs of the horizontal and the vertical axis.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        width: In pixels.
    """
    points = [point for group in groups for point in group]
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    canvas = _Canvas(width, max(260, round(width * 0.6)), _padded(xs), _padded(ys), _short)
    parts = [canvas.frame(x_label, y_label)]
    for i, group in enumerate(groups):
        for x, y in group:
            a, b = canvas.at(x, y)
            parts.append(f'<circle class="s{i} dot" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>')
    return canvas.svg(parts, f"{y_label} over {x_label}")


class _Canvas:
    """A rectangle with two linear axes."""

    def __init__(
        self,
        width: int,
        height: int,
        x: tuple[float, float],
        y: tuple[float, float],
        x_text: Callable[[float], str],
    ) -> None:
        self.width, self.height, self.x, self.y, self.x_text = width, height, x, y, x_text
        self.y_ticks = ticks(*y, 6)
        self.left = 12 + _DIGIT * max(len(_short(tick)) for tick in self.y_ticks)
        self.bottom = height - _BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return pixels."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        up = min(1.0, max(0.0, up))
        top = _TOP + _TEXT + 8
        return self.left + across * (self.width - _RIGHT - self.left), self.bottom - up * (self.bottom - top)

    def frame(
        self, x_label: str, y_label: str, *, x_ticks: bool = True, y_text: Callable[[float], str] | None = None
    ) -> str:
        """Return grid, numbers and names."""
        parts = [f'<text class="ink" x="2" y="{_TOP + 2}">{escape(y_label)}</text>']
        for tick in self.y_ticks:
            _, y = self.at(self.x[0], tick)
            text = (y_text or _short)(tick)
            parts.append(f'<path class="rule" d="M{self.left:.1f} {y:.1f}H{self.width - _RIGHT}"/>')
            parts.append(_text("muted", self.left - 6, y + 4.5, "end", text))
        if x_ticks:
            for tick in ticks(*self.x, max(3, self.width // 90)):
                x, _ = self.at(tick, self.y[0])
                parts.append(_text("muted", x, self.bottom + 17, "middle", self.x_text(tick)))
        parts.append(f'<path class="axis" d="M{self.left:.1f} {self.bottom}H{self.width - _RIGHT}"/>')
        parts.append(_text("ink", self.width - _RIGHT, self.height - 6, "end", x_label))
        return "".join(parts)

    def svg(self, parts: Sequence[str], label: str) -> str:
        """Return the picture."""
        return _svg(self.width, self.height, parts, label)


def _svg(width: int, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height:g}" width="{width}"'
        f' height="{height:g}" font-size="{_TEXT}">{"".join(parts)}</svg>'
    )


def _text(kind: str, x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _title(label: str) -> str:
    return f"<title>{escape(label)}</title>"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _shortened(label: str, pixels: float) -> str:
    most = int(pixels / _LETTER)
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _short(number: float) -> str:
    return f"{number:.4g}"


def _percent(number: float) -> str:
    return f"{round(100 * number)}%"


def _whole(number: float) -> str:
    return f"{number:.0f}"
