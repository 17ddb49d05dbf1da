"""Sum a comparison up: rows, verdicts, one sentence that says what is so, and notes."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_dataselect.comparison.findings.notes import write_notes
from lightning_dataselect.comparison.findings.rows import Row, make_rows
from lightning_dataselect.comparison.findings.sentence import say_what_it_means
from lightning_dataselect.comparison.findings.verdicts import Verdict, give_verdicts
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings


@dataclass(frozen=True)
class Summary:
    """The table and its meaning.

    Attributes:
        rows: In the order of `--methods`, a `short` row for each distinct number of epochs.
        percent: Whether values are shares shown in percent, and differences in points.
        maximize: Whether more of the metric is better.
        sentence: What the table means.
        notes: What a reader must know besides, a sentence each.
        verdicts: By the label of a method: `better` where it is ahead of full data at equal compute and not behind at
            equal time; `worse` where it is behind at either; `mixed` where it is ahead at equal compute alone. A method
            of which nothing can be said is missing.
    """

    rows: list[Row]
    percent: bool
    maximize: bool
    sentence: str
    notes: list[str]
    verdicts: dict[str, Verdict]

    @property
    def unit(self) -> str:
        """Of differences."""
        return "points" if self.percent else ""

    def row(self, label: str) -> Row | None:
        """Return the row of that label."""
        return next((row for row in self.rows if row.label == label), None)


def summarise(outcome: Outcome, settings: Settings) -> Summary:
    """Return rows of what has finished, and what they mean."""
    percent = settings.maximize and all(0 <= run.value <= 1 for run in outcome.runs)
    rows = make_rows(outcome, settings, scale=100.0 if percent else 1.0)
    verdicts = give_verdicts(rows, settings.maximize)
    sentence = say_what_it_means(rows, verdicts, outcome, settings, percent)
    notes = write_notes(rows, outcome, settings, percent)
    return Summary(rows, percent, settings.maximize, sentence, notes, verdicts)
