"""`lightning-dataselect compare`: from its arguments to an exit code."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lightning_dataselect.compare.comparison import Outcome, Settings, compare
from lightning_dataselect.compare.errors import UserError
from lightning_dataselect.compare.progress import watching
from lightning_dataselect.compare.report import write_report
from lightning_dataselect.compare.spec import parse_methods, parse_seeds
from lightning_dataselect.compare.summary import summarise
from lightning_dataselect.compare.table import render
from lightning_dataselect.compare.task import load_task

_LESS_IS_BETTER = ("loss", "err", "perplexity", "mae", "mse")


def run_command(arguments: argparse.Namespace, console: Console) -> int:
    """Compares, prints the table and the sentence, and writes the report.

    Args:
        arguments: As the command line's parser gives them.
        console: Where to write.

    Returns:
        0; 1 if a run failed; 130 after Ctrl-C.

    Raises:
        UserError: If an argument is wrong.
    """
    task = load_task(arguments.config, epochs=arguments.epochs, data_dir=arguments.data_dir)
    settings = _settings(arguments)
    for spec in settings.methods:
        if spec.cls is not None:
            spec.build(settings.prune_ratio, seed=0)
    with watching(console, settings.maximize) as watcher:
        outcome = compare(task, settings, watcher)
    if outcome.runs:
        summary = summarise(outcome, settings)
        write_report(task, settings, outcome, summary)
        console.print(render(summary, outcome, settings.monitor))
        console.print(Text(summary.sentence, style="bold"))
        console.print(f"Report: {settings.out / 'report.html'}", soft_wrap=True, highlight=False)
    return _close(outcome, console)


def _settings(arguments: argparse.Namespace) -> Settings:
    if not 0 <= arguments.prune_ratio < 1:
        raise UserError(f"--prune-ratio {arguments.prune_ratio}: the share that is dropped is at least 0 and below 1.")
    mode = arguments.mode or ("min" if any(word in arguments.monitor.lower() for word in _LESS_IS_BETTER) else "max")
    out = Path(arguments.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise UserError(f"--out {out} cannot be written to: {error.strerror}.") from error
    return Settings(
        methods=parse_methods(arguments.methods),
        seeds=parse_seeds(arguments.seeds),
        prune_ratio=arguments.prune_ratio,
        monitor=arguments.monitor,
        maximize=mode == "max",
        out=out,
    )


def _close(outcome: Outcome, console: Console) -> int:
    for failure in outcome.failures:
        console.print(
            Text(
                f"{failure.method}, seed {failure.seed}, failed: {failure.message} (traceback: {failure.log})",
                style="red",
            )
        )
    if outcome.interrupted:
        console.print(
            f"Interrupted; {len(outcome.runs)} finished runs are kept, and the same command goes on from them.",
            highlight=False,
        )
        return 130
    return 1 if outcome.failures else 0
