"""`lightning-dataselect compare`: from its arguments to an exit code."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lightning_dataselect.comparison.result import Comparison
from lightning_dataselect.comparison.tasks.script import task_of
from lightning_dataselect.comparison.workflow import Request, carry_out
from lightning_dataselect.utils.errors import UserInputError


def run_command(arguments: argparse.Namespace, console: Console) -> int:
    """Compare, print what to do, the table and what it means, and write the report.

    Args:
        arguments: As the command line's parser gives them.
        console: Where to write.

    Returns:
        0; 1 if a run failed or the report could not be written; 130 after Ctrl-C.

    Raises:
        UserInputError: If an argument is wrong.
    """
    if arguments.task is not None and arguments.config is not None:
        raise UserInputError(f"There are two tasks, {arguments.task} and --config {arguments.config}: give one.")
    name = arguments.task or arguments.config or "digits"
    task = task_of(name, epochs=arguments.epochs, data_dir=arguments.data_dir)
    request = Request(
        methods=arguments.methods,
        seeds=arguments.seeds,
        prune_ratio=arguments.prune_ratio,
        monitor=arguments.monitor,
        mode=arguments.mode,
        out=_writable(Path(arguments.out)),
        budget=arguments.budget,
        jobs=arguments.jobs,
    )
    # whoever pipes the answer on wants nothing else on stdout
    progress = Console(stderr=True, force_jupyter=False) if arguments.json else console
    comparison = carry_out(task, request, progress)
    if arguments.json:
        print(comparison.json())
    elif comparison.outcome.runs:
        console.print("")
        console.print(comparison)
        if not comparison.unwritten:
            console.print(f"\nReport: {request.out / 'report.html'}", soft_wrap=True, highlight=False)
    return _close(comparison, progress)


def _writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise UserInputError(f"--out {out} cannot be written to: {error.strerror}.") from error
    return out


def _close(comparison: Comparison, console: Console) -> int:
    outcome = comparison.outcome
    if comparison.unwritten:
        console.print(Text(comparison.unwritten, style="red"), soft_wrap=True)
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
    return 1 if outcome.failures or comparison.unwritten else 0
