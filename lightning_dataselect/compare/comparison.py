"""Methods x seeds on one task, each pruned run beside full data at equal compute."""

import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import lightning.pytorch as pl
import torch

from lightning_dataselect.compare import records
from lightning_dataselect.compare.errors import UserError
from lightning_dataselect.compare.records import Failure, RunFolder, RunRecord
from lightning_dataselect.compare.run import rehearse, run
from lightning_dataselect.compare.spec import FULL, SHORT, MethodSpec
from lightning_dataselect.compare.task import Task
from lightning_dataselect.utils.errors import one_line

# Compute of two runs that differs by no more than this share counts as equal.
NEAR = 0.02


class Watcher(Protocol):
    """Who is told how the comparison goes on."""

    def expect(self, n_runs: int) -> None:
        """So many runs will be made in all, as far as is known."""

    def begin(self, label: str, seed: int, epochs: int) -> None:
        """A run begins."""

    def epoch(self, done: int, value: float | None) -> None:
        """An epoch of it has ended, with the metric at that value, if it has one yet."""

    def end(self, outcome: RunRecord | Failure, reused: bool) -> None:
        """It has finished, was found finished, or has failed."""


@dataclass(frozen=True)
class Settings:
    """What is compared, and by what.

    Attributes:
        methods: In the order of the table.
        seeds: Each method runs once with each.
        prune_ratio: Handed to each method that takes one and names none itself.
        monitor: The metric that counts.
        maximize: Whether more of it is better.
        out: The folder for runs and report.
        test: Whether each run ends with a look at the test set, kept as `RunRecord.tested`.
    """

    methods: Sequence[MethodSpec]
    seeds: Sequence[int]
    prune_ratio: float
    monitor: str
    maximize: bool
    out: Path
    test: bool = False


@dataclass
class Outcome:
    """What has finished and what has failed.

    Attributes:
        epochs: Of a full run.
        runs: In the order they were made; those of `short` differ in their epochs.
        failures: Likewise.
        interrupted: Whether Ctrl-C ended it early.
    """

    epochs: int
    runs: list[RunRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False

    def find(self, method: str, seed: int, epochs: int | None = None) -> RunRecord | None:
        """The run of a method with a seed, and with that many epochs if it is given."""
        for record in self.runs:
            if (record.method, record.seed) == (method, seed) and epochs in (None, record.epochs):
                return record
        return None

    def short_epochs(self, pruned: RunRecord) -> float:
        """Full epochs that cost as much as `pruned` did (see `RunRecord.cost`), at least 1."""
        full = self.find(FULL, pruned.seed)
        return max(1.0, pruned.cost / (full or pruned).n_total)

    def short_shares(self, pruned: RunRecord) -> dict[int, float]:
        """The runs on full data that `pruned` is held against: epochs -> share, which add up to 1.

        One run, if a whole number of epochs is near enough; or else the two on either side, each the more the nearer.
        """
        epochs = self.short_epochs(pruned)
        if abs(epochs - round(epochs)) <= NEAR * epochs:
            return {round(epochs): 1.0}
        below = math.floor(epochs)
        return {below: below + 1 - epochs, below + 1: epochs - below}

    def on_full_data(self, seed: int, epochs: int) -> RunRecord | None:
        """The run of `full` or `short` with that many epochs, if it has finished."""
        return self.find(FULL, seed, epochs) or self.find(SHORT, seed, epochs)

    def at_equal_compute(self, pruned: RunRecord) -> float | None:
        """The metric of full data at the cost of `pruned`, on the line between two runs if need be."""
        value = 0.0
        for epochs, share in self.short_shares(pruned).items():
            run = self.on_full_data(pruned.seed, epochs)
            if run is None:
                return None
            value += share * run.value
        return value


def compare(task: Task, settings: Settings, watcher: Watcher, *, run_nothing: bool = False) -> Outcome:
    """Runs everything that is not already finished in `settings.out`.

    Seeds are the outer loop, so that whatever drifts on the machine hits all methods alike.

    Args:
        task: What is compared on.
        settings: What is compared.
        watcher: Told of every run and epoch.
        run_nothing: Whether to gather what has finished, and leave it at that.

    Returns:
        The outcome, also after Ctrl-C; a run that fails does not stop the others.

    Raises:
        UserError: If the rehearsal finds that the task cannot be run or monitored.
    """
    comparison = _Comparison(task, settings, watcher, run_nothing)
    try:
        for n_seeds_done, seed in enumerate(settings.seeds):
            watcher.expect(comparison.expected_runs(n_seeds_done))
            for spec in settings.methods:
                if spec.label != SHORT:
                    comparison.go(spec, seed, task.epochs)
            short = next((spec for spec in settings.methods if spec.label == SHORT), None)
            if short is not None:
                comparison.go_short(short, seed)
    except KeyboardInterrupt:
        comparison.outcome.interrupted = True
    return comparison.outcome


class _Comparison:
    def __init__(self, task: Task, settings: Settings, watcher: Watcher, run_nothing: bool) -> None:
        self.task = task
        self.settings = settings
        self.watcher = watcher
        self.run_nothing = run_nothing
        self.folder = RunFolder(settings.out)
        self.outcome = Outcome(task.epochs)
        self.rehearsed = False

    def go(self, spec: MethodSpec, seed: int, epochs: int) -> None:
        name = f"{SHORT}-{epochs}" if spec.label == SHORT else spec.label
        mark = self.fingerprint(spec, seed, epochs)
        finished = self.folder.load(name, seed, mark)
        if finished is None and self.run_nothing:
            return
        self.watcher.begin(name, seed, epochs)
        if finished is not None:
            self.outcome.runs.append(finished)
            self.watcher.end(finished, reused=True)
            return
        root = self.settings.out / "lightning"
        self.rehearse_once(root)
        try:
            record = run(
                self.task,
                label=spec.label,
                selector=spec.build(self.settings.prune_ratio, seed) if spec.cls else None,
                seed=seed,
                epochs=epochs,
                monitor=self.settings.monitor,
                maximize=self.settings.maximize,
                root=root / f"{name}-{seed}",
                fingerprint=mark,
                on_epoch=self.watcher.epoch,
                test=self.settings.test,
                gallery=self.folder.gallery(name, seed),
            )
        except Exception as error:
            log = self.folder.save_error(name, seed, traceback.format_exc())
            failure = Failure(name, seed, one_line(error), str(log))
            self.outcome.failures.append(failure)
            self.watcher.end(failure, reused=False)
            return
        self.folder.save(name, record)
        self.outcome.runs.append(record)
        self.watcher.end(record, reused=False)

    def expected_runs(self, n_seeds_done: int) -> int:
        """As many short runs a seed as the seeds before had; at first, one for each method."""
        done = len(self.outcome.runs) + len(self.outcome.failures)
        methods = [spec for spec in self.settings.methods if spec.label != SHORT]
        with_short = len(methods) < len(self.settings.methods)
        shorts = with_short * sum(spec.cls is not None for spec in methods)
        per_seed = done / n_seeds_done if n_seeds_done else len(methods) + shorts
        return round(done + per_seed * (len(self.settings.seeds) - n_seeds_done))

    def rehearse_once(self, root: Path) -> None:
        if self.rehearsed:
            return
        try:
            rehearse(self.task, self.settings.monitor, root, self.settings.test)
        except UserError:
            raise
        except Exception as error:
            log = self.folder.save_error("rehearsal", 0, traceback.format_exc())
            raise UserError(
                f"The task fails on its first two batches, before any method is tried: "
                f"{one_line(error)} (traceback: {log})"
            ) from error
        self.rehearsed = True

    def go_short(self, short: MethodSpec, seed: int) -> None:
        """A run on full data for every number of epochs that a pruned run is held against."""
        pruned = [r for r in self.outcome.runs if r.seed == seed and r.kept]
        for epochs in sorted({epochs for record in pruned for epochs in self.outcome.short_shares(record)}):
            if self.outcome.on_full_data(seed, epochs) is None:
                self.go(short, seed, epochs)

    def fingerprint(self, spec: MethodSpec, seed: int, epochs: int) -> str:
        return records.fingerprint(
            {
                "config": self.task.config,
                "method": spec.label,
                "prune_ratio": self.settings.prune_ratio if spec.cls else None,
                "seed": seed,
                "epochs": epochs,
                "monitor": self.settings.monitor,
                "maximize": self.settings.maximize,
                "test": self.settings.test,
                "versions": [torch.__version__, pl.__version__],
            }
        )
