"""A comparison from what the user wishes to what it has found, and the ways to look at that."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from lightning_dataselect.comparison import environment
from lightning_dataselect.comparison.findings.advice import Advice, advise
from lightning_dataselect.comparison.findings.summary import Summary, summarise
from lightning_dataselect.comparison.plans import plan
from lightning_dataselect.comparison.plans.noise import announced, with_joined
from lightning_dataselect.comparison.plans.numbers import share
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.runner import rehearsed, run_all
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import AUTO, MethodSpec, auto_methods, parse_methods, parse_seeds
from lightning_dataselect.comparison.runs.progress import watching
from lightning_dataselect.comparison.runs.records import RunFolder
from lightning_dataselect.comparison.runs.rehearsal import Rehearsal
from lightning_dataselect.comparison.runs.threads import using
from lightning_dataselect.comparison.showing import earlier, pictures, report, table
from lightning_dataselect.comparison.tasks.subset import SubsetTask
from lightning_dataselect.comparison.tasks.task import Task, with_epochs
from lightning_dataselect.utils.errors import UnwritableFileError, UserInputError
from lightning_dataselect.utils.validation import hint_at_percent
from lightning_dataselect.utils.writing import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LESS_IS_BETTER = ("loss", "err", "perplexity", "mae", "mse", "rmse", "mape", "nll")


@dataclass(frozen=True)
class Wishes:
    """The comparison that a user asks for.

    Attributes:
        methods: As in `--methods`, or `auto`.
        seeds: As in `--seeds`.
        prune_ratio: Of every method that takes one and names none itself.
        monitor: The metric that counts; None takes a likely one of those that are logged.
        mode: `max` or `min`; None guesses by the metric's name.
        out: The folder for runs and report.
        budget: As in `--budget`, or None for all of it.
        jobs: Runs at once.
    """

    methods: str
    seeds: str
    prune_ratio: float
    monitor: str | None
    mode: str | None
    out: Path
    budget: str | None
    jobs: int


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


def carry_out(task: Task, wishes: Wishes, console: Console) -> Comparison:
    """Rehearse, plan, run and sum up.

    Args:
        task: What is compared on.
        wishes: What the user asks for.
        console: Where plan and progress go.

    Raises:
        UserInputError: If a wish cannot be granted, or the task cannot be run.
    """
    if not 0 <= wishes.prune_ratio < 1:
        raise UserInputError(
            f"--prune-ratio {wishes.prune_ratio:g}: the share that is dropped is at least 0 and below 1."
            f"{hint_at_percent(f'{wishes.prune_ratio:g}%') if 2 <= wishes.prune_ratio < 100 else ''}"
        )
    if wishes.jobs < 1:
        raise UserInputError(f"--jobs {wishes.jobs}: at least one run goes on at once.")
    seeds = parse_seeds(wishes.seeds)
    budget = None if wishes.budget is None else plan.parse_budget(wishes.budget)
    methods = None if wishes.methods == AUTO else _checked(parse_methods(wishes.methods), wishes.prune_ratio)
    maximize = wishes.mode == "max" if wishes.mode else None
    with watching(console, maximize is not False) as watcher:
        watcher.label = "the rehearsal"
        rehearsal = rehearsed(task, wishes.out)
        monitor = rehearsal.monitor(wishes.monitor)
        methods = methods or parse_methods(auto_methods(rehearsal))
        found = plan.plan(methods, seeds, task.epochs, wishes.prune_ratio, rehearsal, budget, wishes.jobs)
        watcher.say(found.text())
        for note in _notes_before(task, methods, monitor, wishes, rehearsal):
            watcher.say(note)
        settings = Settings(
            methods=methods,
            seeds=found.seeds,
            prune_ratio=wishes.prune_ratio,
            monitor=monitor,
            maximize=_more_is_better(monitor) if maximize is None else maximize,
            out=wishes.out,
            halving=found.halving,
            jobs=wishes.jobs,
            auto=wishes.methods == AUTO,
        )
        watcher.better = max if settings.maximize else min
        task = with_epochs(task, found.epochs)
        if found.share_of_data < 1:
            task = SubsetTask(task, found.share_of_data)
        with using(rehearsal.n_threads):
            outcome = run_all(task, settings, watcher, rehearsal)
        settings = with_joined(settings, outcome.noise)
    summary = summarise(outcome, settings)
    if found.share_of_data < 1:
        summary.notes.insert(
            0,
            f"All of it ran on {share(found.share_of_data)} of the training data, as the budget asks: on all of it the"
            " answer may be another.",
        )
    comparison = Comparison(task, settings, outcome, summary, advise(summary, outcome, settings))
    return replace(comparison, unwritten=_write(comparison)) if outcome.runs else comparison


def _write(comparison: Comparison) -> str:
    try:
        report.write_report(comparison, comparison.settings.out)
    except UnwritableFileError as error:
        return (
            f"There is no report: {error} The finished runs ({len(comparison.outcome.runs)}) are kept, and the same"
            " comparison goes on from them."
        )
    return ""


def _checked(specs: list[MethodSpec], prune_ratio: float) -> list[MethodSpec]:
    for spec in specs:
        if spec.cls is not None:
            spec.build(prune_ratio, seed=0)
    return specs


def _more_is_better(monitor: str) -> bool:
    return not any(word in monitor.lower() for word in _LESS_IS_BETTER)


def _notes_before(
    task: Task, methods: Sequence[MethodSpec], monitor: str, wishes: Wishes, rehearsal: Rehearsal
) -> list[str]:
    notes = []
    if task.set_aside:
        also = ",".join(["full", "short", *task.set_aside])
        notes.append(
            f"The config's own selector is set aside: {', '.join(task.set_aside)}. To compare it as it is:"
            f' --methods "{also}"'
        )
    if lost := earlier.overwritten(wishes.out, task, [spec.label for spec in methods]):
        notes.append(lost)
    if wishes.methods == AUTO:
        labels = [spec.label for spec in methods]
        notes.append(f"Methods: {', '.join(labels)} (--methods names others).")
        if rehearsal.knows_classes and (change := announced(labels)):
            notes.append(change)
    if wishes.monitor is None:
        better = "more" if (wishes.mode or ("max" if _more_is_better(monitor) else "min")) == "max" else "less"
        others = [name for name in rehearsal.logged if name != monitor]
        also = f"; the module also logs {', '.join(others)}" if others else ""
        notes.append(f"What counts: {monitor}, and {better} of it is better (--monitor, --mode{also}).")
    trainer = task.described().get("trainer") or {}
    if trainer.get("max_steps", -1) not in (-1, None):
        notes.append(f"trainer.max_steps={trainer['max_steps']} is set aside: a run has its {task.epochs} epochs.")
    if rehearsal.on_threads:
        notes.append(rehearsal.on_threads)
    if wishes.jobs > 1:
        notes.append(f"{wishes.jobs} runs go on at once and slow each other down: trust no wall-clock of theirs.")
    return notes


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
