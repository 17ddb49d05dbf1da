"""The summary as text: one list of cells for the terminal, the page and whoever else asks."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_dataselect.compare.comparison import Outcome
from lightning_dataselect.compare.summary import Row, Spread, Summary

MISSING = "-"


def header(summary: Summary, monitor: str) -> list[str]:
    """The columns' titles, broken where a narrow column needs it."""
    unit = f",\n{summary.unit}" if summary.unit else "\n"
    return [
        f"method ({_seeds(_most(summary))})",
        f"{monitor}{', %' if summary.percent else ''}",
        "training,\nseconds",
        "samples\nforwarded",
        "back-\npropagated",
        "speed-\nup",
        f"against full{unit}",
        f"against short{unit} (epochs)",
    ]


def cells(row: Row, summary: Summary) -> list[str]:
    """One line of the table, a text for each column of `header`."""
    digits = 2 if summary.percent else 4
    fewer = row.value.n < _most(summary)
    against = _signed(row.vs_short, digits)
    return [
        f"{row.label} ({_seeds(row.value.n)})" if fewer else row.label,
        _plain(row.value, digits),
        _plain(row.seconds, 1),
        f"{row.n_forward:,.0f}",
        f"{row.n_backward:,.0f}",
        f"{row.speedup:.2f}x" if row.speedup else MISSING,
        _signed(row.vs_full, digits),
        f"{against} ({row.short:.1f})" if row.short else against,
    ]


def render(summary: Summary, outcome: Outcome, monitor: str) -> Table:
    """The table for a terminal, with a line for each failed run."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, title in enumerate(header(summary, monitor)):
        table.add_column(title, justify="right" if i else "left", no_wrap=not i)
    for row in summary.rows:
        table.add_row(*cells(row, summary))
    for failure in outcome.failures:
        table.add_row(f"{failure.method}, seed {failure.seed}", "failed", style="red")
    return table


def _most(summary: Summary) -> int:
    return max(row.value.n for row in summary.rows)


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def _plain(value: Spread, digits: int) -> str:
    text = f"{value.mean:.{digits}f}"
    return f"{text} ± {value.std:.{digits}f}" if value.n > 1 else text


def _signed(value: Spread | None, digits: int) -> str:
    if value is None:
        return MISSING
    text = f"{value.mean:+.{digits}f}"
    return f"{text} ± {value.std:.{digits}f}" if value.n > 1 else text
