"""Pictures of the cards: SVG that takes its colours from the page, light or dark."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 560, 240
MOST_TICKS = 12
LEFT, RIGHT, TOP, BOTTOM = 56, 130, 16, 48
COLOURS = ("var(--chart-1)", "var(--chart-2)", "var(--chart-3)", "var(--chart-4)")


def kept_share(shares: Mapping[str, Sequence[float]], task: str, n_epochs: int) -> str:
    """Draw the share of the samples that was trained on in each epoch.

    Args:
        shares: By label, one share an epoch.
        task: What it was measured on, in words.
        n_epochs: Epochs that a fit was to have.

    Returns:
        A figure in HTML; empty if there is nothing to draw.
    """
    if not shares:
        return ""
    n = n_epochs
    every = 1 if n <= MOST_TICKS else 5
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(epoch: int) -> float:
        return LEFT + (right - LEFT) * epoch / max(1, n - 1)

    def y(share: float) -> float:
        return bottom - (bottom - TOP) * min(share, 1.0)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(s):.0f}" y2="{y(s):.0f}"/>'
        f'<text x="{LEFT - 8}" y="{y(s) + 4:.0f}" text-anchor="end">{s:.0%}</text>'
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts += [
        f'<text x="{x(i):.0f}" y="{bottom + 18}" text-anchor="middle">{i + 1}</text>'
        for i in range(n)
        if i == 0 or (i + 1) % every == 0
    ]
    parts.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{bottom + 36}" text-anchor="middle">epoch</text>')
    # by the last epoch but one, since many methods end on everything
    labels = _apart({label: y(values[-2 if len(values) > 1 else -1]) for label, values in shares.items()}, gap=20)
    for colour, (label, values) in zip(COLOURS * len(shares), shares.items(), strict=False):
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values))
        parts.append(f'<polyline style="stroke: {colour}" points="{points}"/>')
        parts += [
            f'<circle style="fill: {colour}" cx="{x(i):.1f}" cy="{y(value):.1f}" r="3"/>'
            for i, value in enumerate(values)
        ]
        parts.append(f'<text x="{right + 10}" y="{labels[label] + 4:.0f}" style="fill: {colour}">{_said(label)}</text>')
    name = next(iter(shares)).partition("(")[2].partition("=")[0]
    by = f", by <code>{name}</code>" if name else ""
    drawing = "".join(parts)
    return (
        f'<figure class="kept" role="img" aria-label="Share of the samples trained on in each epoch">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">{drawing}</svg>'
        f"<figcaption>Share of the samples that each epoch trained on{by}. {task}.</figcaption></figure>"
    )


def _said(label: str) -> str:
    """Return a label that fits beside the picture: the first argument without its name."""
    arguments = label.removesuffix(")").partition("(")[2]
    return arguments.split(", ")[0].rpartition("=")[2] or "defaults"


def _apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return the places of labels, moved down where two would overlap, and up again as a whole if they run out."""
    moved: dict[str, float] = {}
    last = -gap
    for label, place in sorted(places.items(), key=lambda item: item[1]):
        last = moved[label] = max(place, last + gap)
    over = max(0.0, last - (HEIGHT - BOTTOM))
    return {label: place - over for label, place in moved.items()}
