"""A comparison from what the user asks for to its result: rehearse, plan, run, sum up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lightning_dataselect.comparison.findings.advice import advise
from lightning_dataselect.comparison.findings.summary import summarise
from lightning_dataselect.comparison.plans import plan
from lightning_dataselect.comparison.plans.noise import announced, with_joined
from lightning_dataselect.comparison.plans.numbers import share
from lightning_dataselect.comparison.plans.runner import rehearsed, run_all
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import AUTO, MethodSpec, auto_methods, parse_methods, parse_seeds
from lightning_dataselect.comparison.result import Comparison
from lightning_dataselect.comparison.runs.progress import watching
from lightning_dataselect.comparison.runs.rehearsal import Rehearsal
from lightning_dataselect.comparison.runs.threads import using
from lightning_dataselect.comparison.showing import earlier, report
from lightning_dataselect.comparison.tasks.subset import SubsetTask
from lightning_dataselect.comparison.tasks.task import Task, with_epochs
from lightning_dataselect.utils.errors import UnwritableFileError, UserInputError
from lightning_dataselect.utils.validation import hint_at_percent

_LESS_IS_BETTER = ("loss", "err", "perplexity", "mae", "mse", "rmse", "mape", "nll")


@dataclass(frozen=True)
class Request:
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


def carry_out(task: Task, request: Request, console: Console) -> Comparison:
    """Rehearse, plan, run and sum up.

    Args:
        task: What is compared on.
        request: What the user asks for.
        console: Where plan and progress go.

    Raises:
        UserInputError: If an argument is out of its range, or the task cannot be run.
    """
    if not 0 <= request.prune_ratio < 1:
        raise UserInputError(
            f"--prune-ratio {request.prune_ratio:g}: the share that is dropped is at least 0 and below 1."
            f"{hint_at_percent(f'{request.prune_ratio:g}%') if 2 <= request.prune_ratio < 100 else ''}"
        )
    if request.jobs < 1:
        raise UserInputError(f"--jobs {request.jobs}: give the number of runs at the same time, at least 1.")
    seeds = parse_seeds(request.seeds)
    budget = None if request.budget is None else plan.parse_budget(request.budget)
    methods = None if request.methods == AUTO else _checked(parse_methods(request.methods), request.prune_ratio)
    maximize = request.mode == "max" if request.mode else None
    with watching(console, maximize is not False) as watcher:
        watcher.label = "the rehearsal"
        rehearsal = rehearsed(task, request.out)
        monitor = rehearsal.monitor(request.monitor)
        methods = methods or parse_methods(auto_methods(rehearsal))
        found = plan.plan(methods, seeds, task.epochs, request.prune_ratio, rehearsal, budget, request.jobs)
        watcher.say(found.text())
        for note in _notes_before(task, methods, monitor, request, rehearsal):
            watcher.say(note)
        settings = Settings(
            methods=methods,
            seeds=found.seeds,
            prune_ratio=request.prune_ratio,
            monitor=monitor,
            maximize=_more_is_better(monitor) if maximize is None else maximize,
            out=request.out,
            halving=found.halving,
            jobs=request.jobs,
            auto=request.methods == AUTO,
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
            " answer may differ.",
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
    task: Task, methods: Sequence[MethodSpec], monitor: str, request: Request, rehearsal: Rehearsal
) -> list[str]:
    notes = []
    if task.set_aside:
        also = ",".join(["full", "short", *task.set_aside])
        notes.append(
            f"The config's own selector is set aside: {', '.join(task.set_aside)}. To compare it as it is:"
            f' --methods "{also}"'
        )
    if lost := earlier.overwritten(request.out, task, [spec.label for spec in methods]):
        notes.append(lost)
    if request.methods == AUTO:
        labels = [spec.label for spec in methods]
        notes.append(f"Methods: {', '.join(labels)} (--methods names others).")
        if rehearsal.knows_classes and (change := announced(labels)):
            notes.append(change)
    if request.monitor is None:
        better = "more" if (request.mode or ("max" if _more_is_better(monitor) else "min")) == "max" else "less"
        others = [name for name in rehearsal.logged if name != monitor]
        also = f"; the module also logs {', '.join(others)}" if others else ""
        notes.append(f"What counts: {monitor}, and {better} of it is better (--monitor, --mode{also}).")
    trainer = task.described().get("trainer") or {}
    if trainer.get("max_steps", -1) not in (-1, None):
        notes.append(f"trainer.max_steps={trainer['max_steps']} is set aside: a run has its {task.epochs} epochs.")
    if rehearsal.on_threads:
        notes.append(rehearsal.on_threads)
    if request.jobs > 1:
        notes.append(
            f"{request.jobs} runs go on at once and slow each other down: do not trust their wall-clock times."
        )
    return notes
