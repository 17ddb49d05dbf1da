"""The result of a comparison, and the ways to look at it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from lightning_dataselect.comparison import environment
from lightning_dataselect.comparison.findings.advice import Advice
from lightning_dataselect.comparison.findings.summary import Summary
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.runs.records import RunFolder
from lightning_dataselect.comparison.showing import pictures, report, table
from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.utils.writing import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, printable in a terminal and rendered in a notebook.

    Attributes:
        task: What was compared on.
        settings: What was compared.
        outcome: What has finished and failed.
        summary: The rows and what they mean.
        advice: What to do.
        unwritten: Why its report could not be written, as on a full disk; empty if it was.
    """

    task: Task
    settings: Settings
    outcome: Outcome
    summary: Summary
    advice: Advice
    unwritten: str = ""

    @property
    def table(self) -> pd.DataFrame:
        """One row a method, numbers as they are: mean and standard deviation of each in columns of their own."""
        return pd.DataFrame([_flat(asdict(row)) for row in self.summary.rows]).assign(
            verdict=[self.summary.verdicts.get(row.label) for row in self.summary.rows]
        )

    @property
    def best(self) -> Advice:
        """The advice, in words when printed; `.label` names the row, `.python` and `.yaml` are the lines to copy."""
        return self.advice

    def save(self, folder: str | Path) -> Path:
        """Write the report, `results.json`, `results.csv` and the finished runs.

        Args:
            folder: Made if it is not there.

        Returns:
            The path of `report.html`.

        Raises:
            UnwritableFileError: If the disk is full, say; an earlier report in the folder then stays as it was.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() != self.settings.out.resolve():
            runs, copies = RunFolder(self.settings.out).path, RunFolder(folder).path
            for path in sorted(runs.iterdir()):
                with written_whole(copies / path.name) as unfinished:
                    shutil.copyfile(path, unfinished)
        return report.write_report(self, folder)

    def plot(self) -> Figure:
        """Draw the metric over the cost of training, with full data's line."""
        return pictures.metric_figure(self)

    def described(self) -> dict[str, Any]:
        """Return everything as plain values, as `results.json` holds it."""
        return {
            "headline": self.advice.headline,
            "sentence": self.summary.sentence,
            "notes": self.summary.notes,
            "advice": asdict(self.advice),
            "arguments": {
                "methods": [spec.label for spec in self.settings.methods],
                "seeds": list(self.settings.seeds),
                "prune_ratio": self.settings.prune_ratio,
                "epochs": self.task.epochs,
                "monitor": self.settings.monitor,
                "mode": "max" if self.settings.maximize else "min",
                "out": str(self.settings.out),
                "task": self.task.described(),
            },
            "environment": environment.describe(self.outcome.runs),
            "clock": self.outcome.clock if self.outcome.runs else None,
            "interrupted": self.outcome.interrupted,
            "given_up": self.outcome.dropped,
            "noise": None if self.outcome.noise is None else asdict(self.outcome.noise),
            "summary": [{**asdict(row), "verdict": self.summary.verdicts.get(row.label)} for row in self.summary.rows],
            "failures": [asdict(failure) for failure in self.outcome.failures],
            "runs": [asdict(run) for run in self.outcome.runs],
        }

    def json(self) -> str:
        """Return `described` as JSON; NaN becomes null."""
        return json.dumps(_without_nan(self.described()), indent=1, allow_nan=False, default=repr)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what to do, the table, and what it means."""
        yield Text(self.advice.headline, style="bold")
        if self.advice.python:
            for title, lines in (
                ("To use it:", self.advice.python),
                ("Or, in a LightningCLI config:", self.advice.yaml),
            ):
                yield Text(f"\n{title}")
                # a line that was broken could not be copied
                yield Text("\n".join(f"    {line}" for line in lines.split("\n")), style="cyan", no_wrap=True)
        if self.summary.rows:
            yield Text("")
            yield table.render(self.summary, self.outcome, self.settings.monitor, options.max_width)
            yield Text(table.LEGEND)
            yield Text("")
        yield Text(self.summary.sentence)
        for note in self.summary.notes:
            yield Text(f"\n{note}")

    def __repr__(self) -> str:
        """The same as plain text."""
        console = Console(width=100, force_terminal=False, force_jupyter=False, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get()

    def _repr_html_(self) -> str:
        """The same for a notebook: IPython's protocol for rich output."""
        return report.fragment(self)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {name: value["mean"], f"{name}_std": value["std"], f"{name}_n": value["n"]}
        else:
            flat[name] = value
    return flat


def _without_nan(value: Any) -> Any:
    """NaN is no JSON: null stands for it."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
