"""The summary as a table: one list of columns for the terminal, the report and notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from lightning_dataselect.comparison.findings.rows import Row
from lightning_dataselect.comparison.findings.summary import Summary
from lightning_dataselect.comparison.plans.numbers import MISSING, Spread, share, shown
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.spec import FULL

STYLES = {"better": "green", "worse": "red", "mixed": "yellow"}
LEGEND = (
    "* No other row ends as well or better in as little time. Short is full data for fewer epochs. Unclear: the"
    " difference may be chance."
)
_WIDE = 100
_SHORTEST_NAME = 12


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: A line break stands where a narrow column needs one.
        text: What a row shows in it.
        rank: What a row is sorted by; a number or a text.
        wide: Whether a narrow terminal does without it.
        note: What it means.
    """

    title: str
    text: Callable[[Row], str]
    rank: Callable[[Row], float | str]
    wide: bool
    note: str


def columns(summary: Summary, monitor: str) -> list[Column]:
    """Return the columns, the method's first."""
    arrow = "higher" if summary.maximize else "lower"
    unit = f", {summary.unit}" if summary.unit else ""
    most = max(row.value.n for row in summary.rows)

    def name(row: Row) -> str:
        seeds = "" if row.value.n == most else f" ({row.value.n} seed{'s' * (row.value.n != 1)})"
        return f"{'*' if row.pareto else ' '} {row.label}{seeds}"

    return [
        Column("method", name, lambda row: row.label, False, "* no other row ends as well or better in as little time"),
        Column("verdict", lambda row: summary.verdicts.get(row.label, "" if row.is_baseline else "unclear"),
               lambda row: summary.verdicts.get(row.label, ""), False,
               "against full data for fewer epochs; unclear: chance alone may make the difference"),
        Column(
            f"{monitor}{', %' if summary.percent else ''}\n({arrow} is\nbetter)",
            lambda row: shown(row.value),
            lambda row: row.value.mean,
            False,
            "after the last epoch, mean ± standard deviation over seeds",
        ),
        Column("saved", lambda row: _share(row, best_saving(row)), lambda row: _number(best_saving(row)), False,
               "share of full data's training time; for full data cut short, share of its compute"),
        Column("dropped", lambda row: MISSING if row.is_baseline else share(row.dropped), lambda row: row.dropped, True,
               "share of the samples of its epochs that was not trained on"),
        Column(f"against full{unit}".replace(" full", "\nfull"), lambda row: shown(row.vs_full, signed=True),
               lambda row: _mean(row.vs_full), False, "difference from full data, seed by seed"),
        Column(f"at equal\ncompute{unit}", lambda row: shown(row.vs_short, signed=True),
               lambda row: _mean(row.vs_short), False, "difference from full data that computes as much, seed by seed"),
        Column(f"at equal\ntime{unit}", lambda row: shown(row.vs_time, signed=True),
               lambda row: _mean(row.vs_time), True, "difference from full data that takes as long, seed by seed"),
    ]  # fmt: skip


def best_saving(row: Row) -> float | None:
    """Return the share of full data's cost that is saved: by time for a method, by its epochs for full data."""
    return row.saved if row.is_baseline else row.saved_time


def render(summary: Summary, outcome: Outcome, monitor: str, width: int) -> Table:
    """Return the table for a terminal, one line a row, with a line for each failed run.

    Args:
        summary: What is shown.
        outcome: Whose failures are shown.
        monitor: The metric's name.
        width: Of the terminal.
    """
    failures = [[f"  {failure.method}, seed {failure.seed}", "failed"] for failure in outcome.failures]
    chosen = columns(summary, monitor)
    gap = 1 if width < _WIDE else 2
    while True:
        lines = [[column.text(row) for column in chosen] for row in summary.rows]
        room = width - sum(gap + _width(column, [line[i] for line in lines]) for i, column in enumerate(chosen) if i)
        fits = room >= max(cell_len(line[0]) for line in [*lines, *failures])
        spare = [column for column in chosen if column.wide]
        if fits or not spare:
            break
        chosen.remove(spare[-1])
    room = max(_SHORTEST_NAME, room)
    made = Table(header_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for i, column in enumerate(chosen):
        made.add_column(column.title, justify="right" if i > 1 else "left", no_wrap=True)
    for line, row in zip([*lines, *failures], [*summary.rows, *outcome.failures], strict=True):
        style = STYLES.get(summary.verdicts.get(row.label, ""), "") if isinstance(row, Row) else "red"
        made.add_row(*(Text(text) for text in [_fitted(line[0], room), *line[1:]]), style=style)
    return made


def _width(column: Column, texts: list[str]) -> int:
    return max(map(cell_len, [*column.title.split("\n"), *texts]))


def _fitted(text: str, room: int) -> str:
    return text if cell_len(text) <= room else f"{set_cell_size(text, room - 1)}…"


def _share(row: Row, value: float | None) -> str:
    return MISSING if value is None or row.method == FULL else share(value)


def _number(value: float | None) -> float:
    return -math.inf if value is None else value


def _mean(value: Spread | None) -> float:
    return -math.inf if value is None else value.mean
