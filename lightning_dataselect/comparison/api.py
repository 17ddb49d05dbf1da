"""`lightning_dataselect.compare`: the comparison from a plain script or a notebook."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from rich.console import Console

from lightning_dataselect.comparison.plans.arguments import (
    budget_text,
    check_makers,
    check_mode,
    check_trainer,
    make_folder,
    methods_text,
    seeds_text,
)
from lightning_dataselect.comparison.result import Comparison
from lightning_dataselect.comparison.tasks.made_task import MadeTask
from lightning_dataselect.comparison.workflow import Request, carry_out
from lightning_dataselect.utils.validation import check_count, check_flag, check_prune_ratio


def compare(
    make_module: Callable[[], pl.LightningModule] | None = None,
    make_data: Callable[[], Any] | None = None,
    *,
    max_epochs: int | None = None,
    methods: str | Sequence[str] = "auto",
    seeds: int | Sequence[int] = 3,
    monitor: str | None = None,
    mode: Literal["max", "min"] | None = None,
    prune_ratio: float = 0.5,
    budget: str | float | None = None,
    trainer: Mapping[str, Any] | None = None,
    out: str | Path = "compare-out",
    jobs: int = 1,
    quiet: bool = False,
) -> Comparison:
    """Find out which method pays on a task, beside full data and full data for fewer epochs.

    Every run gets a module, data and a Trainer of its own. Finished runs are kept in `out` and taken up again, as long
    as nothing that they depend on has changed: your code, your data, the settings, the versions.

    Args:
        make_module: Returns a fresh LightningModule; global random generators are seeded before it is called.
        make_data: Returns a fresh LightningDataModule, a train loader, or a pair of train and validation loaders.
        max_epochs: Epochs of a full run.
        methods: Names of `list_methods`, `full`, `short`, `random`, or dotted paths, with arguments in brackets:
            `"full,short,UCB(every_n_epochs=2)"`, or a list of such. `"auto"` takes what suits the task.
        seeds: How many, or which.
        monitor: The metric that counts, as the module logs it. None takes a likely one.
        mode: Whether more (`"max"`) or less (`"min"`) of it is better. None goes by its name.
        prune_ratio: Handed to each method that takes one and names none itself; `list_methods` tells what each makes
            of it.
        budget: Full runs (`30`) or a time (`"20min"`) that the comparison may cost: seeds, epochs and, if need be, a
            part of the data are chosen to fit, and the worse half of the methods is given up after each seed.
        trainer: Further arguments of each run's Trainer, such as `{"accelerator": "gpu", "precision": "bf16-mixed"}`.
        out: The folder for runs and report.
        jobs: Runs that go on at once, each in a process of its own.
        quiet: Whether to say nothing on the way.

    Returns:
        What was found: `.best` (printed, it says what to do), `.table`, `.plot()`, `.save(folder)`; it shows itself
        in a notebook.

    Raises:
        ArgumentTypeError: If an argument is of the wrong type.
        InvalidArgumentError: If an argument is out of its range.
        UserInputError: If there is no such method or metric, or the task fails on its first batches.

    Example:
        >>> from lightning_dataselect.demo import DigitsData, DigitsModel
        >>> folder = getfixture("tmp_path")
        >>> found = compare(DigitsModel, DigitsData, max_epochs=1, methods="full", seeds=1, out=folder, quiet=True)
        >>> found.table["label"].tolist(), str(found.best)
        (['full'], 'Nothing to recommend: add short to the methods.')
    """
    makers = check_makers(make_module, make_data, max_epochs)
    of_trainer = check_trainer(trainer)
    request = Request(
        methods=methods_text(methods),
        seeds=seeds_text(seeds),
        prune_ratio=check_prune_ratio("prune_ratio", prune_ratio),
        monitor=monitor,
        mode=check_mode(mode),
        budget=budget_text(budget),
        jobs=check_count("jobs", jobs, minimum=1),
        out=make_folder(out),
    )
    quiet = check_flag("quiet", quiet)
    task = MadeTask(makers.module, makers.data, of_trainer, makers.max_epochs)
    # a notebook calls itself a terminal, and would keep every redrawing of a bar
    in_notebook = Console().is_jupyter
    found = carry_out(
        task, request, Console(quiet=quiet, force_jupyter=False, force_terminal=False if in_notebook else None)
    )
    if found.unwritten:
        warnings.warn(f"{found.unwritten} Or call save(folder) of what this returns.", stacklevel=2)
    return found
