"""Methods x seeds on one task, each pruned run beside full data at equal compute."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Literal, Protocol

import numpy as np

from lightning_dataselect.comparison import identity
from lightning_dataselect.comparison.jobs import Job, Workers
from lightning_dataselect.comparison.records import Failure, RunFolder, RunRecord
from lightning_dataselect.comparison.rehearsal import Rehearsal, rehearse
from lightning_dataselect.comparison.spec import FULL, SHORT, MethodSpec
from lightning_dataselect.comparison.task import Task
from lightning_dataselect.utils.errors import UserInputError, one_line

# Compute of two runs that differs by no more than this share counts as equal.
NEAR = 0.02
# A method's time and its compute that differ by more ask for a run on full data at equal time, too.
APART = 0.2

Clock = Literal["cpu", "wall"]


class Watcher(Protocol):
    """Receiver of a comparison's progress."""

    def expect(self, n_runs: int) -> None:
        """So many runs will be made in all, as far as is known."""

    def begin(self, label: str, seed: int, epochs: int) -> None:
        """A run begins."""

    def epoch(self, done: int, value: float | None) -> None:
        """An epoch of it has ended, with the metric at that value, if it has one yet."""

    def end(self, outcome: RunRecord | Failure, reused: bool) -> None:
        """It has finished, was found finished, or has failed."""

    def say(self, text: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True)
class Settings:
    """The methods to compare, and the metric that compares them.

    Attributes:
        methods: In the order of the table.
        seeds: Each method runs once with each.
        prune_ratio: Handed to each method that takes one and names none itself.
        monitor: The metric that counts.
        maximize: Whether more of it is better.
        out: The folder for runs and report.
        test: Whether each run ends with a look at the test set, kept as `RunRecord.tested`.
        halving: Whether the worse half of the methods is dropped after each seed; see `plan`.
        jobs: How many runs go on at once.
    """

    methods: Sequence[MethodSpec]
    seeds: Sequence[int]
    prune_ratio: float
    monitor: str
    maximize: bool
    out: Path
    test: bool = False
    halving: bool = False
    jobs: int = 1


@dataclass
class Outcome:
    """Finished and failed runs.

    Attributes:
        epochs: Of a full run.
        runs: In the order they were made; those of `short` differ in their epochs.
        failures: Likewise.
        interrupted: Whether Ctrl-C ended it early.
        dropped: By method, after how many seeds it was given up; see `Settings.halving`.
    """

    epochs: int
    runs: list[RunRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    dropped: dict[str, int] = field(default_factory=dict)
    _at_first: dict[str, float | None] = field(default_factory=dict, repr=False)

    def find(self, method: str, seed: int, epochs: int | None = None) -> RunRecord | None:
        """Return the run of a method with a seed, and with that many epochs if it is given."""
        for record in self.runs:
            if (record.method, record.seed) == (method, seed) and epochs in (None, record.epochs):
                return record
        return None

    def short_epochs(self, pruned: RunRecord) -> float:
        """Return the full epochs that cost as much as `pruned` did (see `RunRecord.cost`), at least 1."""
        full = self.find(FULL, pruned.seed)
        return max(1.0, pruned.cost / (full or pruned).n_total)

    def short_shares(self, pruned: RunRecord) -> dict[int, float]:
        """Return the runs on full data that `pruned` is held against: epochs -> share, which add up to 1.

        One run, if a whole number of epochs is near enough; or else the two on either side, each the more the nearer.
        """
        epochs = self.short_epochs(pruned)
        if abs(epochs - round(epochs)) <= NEAR * epochs:
            return {round(epochs): 1.0}
        below = math.floor(epochs)
        return {below: below + 1 - epochs, below + 1: epochs - below}

    def wanted_epochs(self, pruned: RunRecord) -> set[int]:
        """Return the epochs of the runs on full data that `pruned` is held against, by compute and by time.

        Time wavers from seed to seed: what the method's first run took decides for all of them.
        """
        wanted = set(self.short_shares(pruned))
        first = next((run for run in self.runs if run.method == pruned.method), pruned)
        by_time = self._at_first.setdefault(pruned.method, self.time_epochs(first))
        if by_time is not None and abs(by_time - self.short_epochs(first)) > APART * by_time:
            wanted.add(min(self.epochs, max(1, round(by_time))))
        return wanted

    def on_full_data(self, seed: int, epochs: int) -> RunRecord | None:
        """Return the run of `full` or `short` with that many epochs, if it has finished."""
        return self.find(FULL, seed, epochs) or self.find(SHORT, seed, epochs)

    def at_equal_compute(self, pruned: RunRecord) -> float | None:
        """Return the metric of full data at the cost of `pruned`, on the line between two runs if need be.

        None before the runs on either side have finished. A run that something has stopped early stands where it
        stopped.
        """
        shares = self.short_shares(pruned)
        runs = [self.on_full_data(pruned.seed, epochs) for epochs in shares]
        if any(run is None for run in runs):
            return None
        if all(run is not None and not run.ended_by for run in runs):
            return sum(share * run.value for run, share in zip(runs, shares.values(), strict=True) if run)
        return self._between(pruned.seed, self.short_epochs(pruned))

    # ---- time --------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The clock that is believed: CPU time where nothing ran on an accelerator, which no neighbour slows down."""
        return "cpu" if all(run.device == "cpu" for run in self.runs) else "wall"

    def time_of(self, run: RunRecord) -> float:
        """Return the seconds of training by the clock that is believed."""
        return run.cpu_seconds if self.clock == "cpu" else run.seconds

    def epoch_time(self, clock: Clock | None = None) -> float | None:
        """Return what an epoch of full data takes, the median over the runs on full data, or None without any.

        One figure for all of them: full data's cost grows with its epochs, and a run that the machine held up must
        not fold its line back on itself.
        """
        full = [run for run in self.runs if run.method in (FULL, SHORT)]
        if not full:
            return None
        by_cpu = (clock or self.clock) == "cpu"
        return median((run.cpu_seconds if by_cpu else run.seconds) / spent(run) for run in full)

    def time_epochs(self, run: RunRecord) -> float | None:
        """Return the epochs of full data that take as long as `run` did, or None without full data."""
        epoch = self.epoch_time()
        return None if epoch is None else self.time_of(run) / epoch

    def at_equal_time(self, pruned: RunRecord) -> float | None:
        """Return the metric of full data after as much time as `pruned` took, by the line between its runs.

        Beyond the longest of them it is that one's: whoever has more time need not use it.
        """
        epochs = self.time_epochs(pruned)
        return None if epochs is None else self._between(pruned.seed, epochs)

    def _between(self, seed: int, epochs: float) -> float | None:
        reached: dict[float, list[float]] = {}
        for run in self.runs:
            if run.seed == seed and run.method in (FULL, SHORT):
                reached.setdefault(spent(run), []).append(run.value)
        if not reached:
            return None
        at = sorted(reached)
        return float(np.interp(epochs, at, [fmean(reached[place]) for place in at]))


def spent(run: RunRecord) -> float:
    """Return the epochs of full data that a run on full data has trained, whatever it was meant to."""
    return run.n_backward / run.n_total


def run_all(
    task: Task,
    settings: Settings,
    watcher: Watcher,
    rehearsal: Rehearsal | None = None,
    *,
    run_nothing: bool = False,
) -> Outcome:
    """Run everything that is not already finished in `settings.out`.

    Seeds are the outer loop, so that whatever drifts on the machine hits all methods alike.

    Args:
        task: What is compared on.
        settings: What is compared.
        watcher: Told of every run and epoch.
        rehearsal: Of the task, if it was rehearsed already.
        run_nothing: Whether to gather what has finished with these settings, and leave it at that.

    Returns:
        The outcome, also after Ctrl-C; a run that fails does not stop the others.

    Raises:
        UserInputError: If the rehearsal finds that the task cannot be run or monitored.
    """
    if rehearsal is None and not run_nothing:
        rehearsal = rehearsed(task, settings.out, test=settings.test)
        rehearsal.monitor(settings.monitor)
    comparison = _Comparison(task, settings, watcher, rehearsal)
    try:
        for n_seeds_done, seed in enumerate(settings.seeds):
            watcher.expect(comparison.expected_runs(n_seeds_done))
            comparison.go_through(seed)
            if settings.halving and n_seeds_done + 1 < len(settings.seeds):
                comparison.drop_worse_half(n_seeds_done + 1)
    except KeyboardInterrupt:
        comparison.outcome.interrupted = True
    finally:
        comparison.workers.close()
    return comparison.outcome


def rehearsed(task: Task, out: Path, *, test: bool = False) -> Rehearsal:
    """Rehearse; whatever goes wrong is the task's fault, and no method's.

    Args:
        task: What is compared on.
        out: The folder of the comparison.
        test: Whether runs end with a look at the test set.

    Raises:
        UserInputError: If it fails.
    """
    try:
        return rehearse(task, out / "lightning" / "rehearsal", test=test)
    except UserInputError:
        raise
    except Exception as error:
        log = RunFolder(out).save_error("rehearsal", 0, traceback.format_exc())
        raise UserInputError(
            f"The task fails on its first batches, before any method is tried: {one_line(error)} (traceback: {log})"
        ) from error


class _Comparison:
    def __init__(self, task: Task, settings: Settings, watcher: Watcher, rehearsal: Rehearsal | None) -> None:
        self.task = task
        self.settings = settings
        self.watcher = watcher
        self.rehearsal = rehearsal
        self.folder = RunFolder(settings.out)
        self.workers = Workers(settings.jobs)
        self.outcome = Outcome(task.epochs)
        self.going = [spec for spec in settings.methods if spec.label != SHORT]
        self.short = next((spec for spec in settings.methods if spec.label == SHORT), None)

    def go_through(self, seed: int) -> None:
        """Every method that still goes, then full data at the cost of each."""
        self.go([self.job(spec, seed, self.task.epochs) for spec in self.going])
        if self.short is None:
            return
        pruned = [run for run in self.outcome.runs if run.seed == seed and run.kept]
        wanted = sorted({epochs for run in pruned for epochs in self.outcome.wanted_epochs(run)})
        missing = [epochs for epochs in wanted if self.outcome.on_full_data(seed, epochs) is None]
        self.go([self.job(self.short, seed, epochs) for epochs in missing])

    def go(self, jobs: Sequence[Job]) -> None:
        """Take up what has finished, and run the rest, several at once if that is wished."""
        todo = []
        for job in jobs:
            finished = self.folder.load(job.name, job.seed)
            if finished is not None and (why := self._outdated(finished, job)):
                if self.rehearsal is not None:
                    self.watcher.say(f"        {job.name}, seed {job.seed}: run again, as {why}")
                finished = None
            if finished is None:
                todo += [job] if self.rehearsal is not None else []
                continue
            self.watcher.begin(job.name, job.seed, job.epochs)
            self._keep(finished, reused=True)
        for job, result in self.workers.do(todo, self.watcher):
            if isinstance(result, RunRecord):
                self.folder.save(job.name, result)
                self._keep(result, reused=False)
            else:
                log = self.folder.save_error(job.name, job.seed, result.traceback)
                failure = Failure(job.name, job.seed, result.message, str(log))
                self.outcome.failures.append(failure)
                self.watcher.end(failure, reused=False)

    def _keep(self, record: RunRecord, *, reused: bool) -> None:
        self.outcome.runs.append(record)
        self.watcher.end(record, reused)

    def _outdated(self, finished: RunRecord, job: Job) -> str:
        """Why a finished run does not count; nothing if it does."""
        if self.rehearsal is None:
            return "" if finished.fingerprint.get("settings") == job.fingerprint["settings"] else "its settings changed"
        changed = identity.changes(finished.fingerprint, job.fingerprint)
        # other settings explain themselves: the user has just asked for them
        return f"what it depends on has changed since: {', '.join(changed)}" if changed else ""

    def drop_worse_half(self, n_seeds: int) -> None:
        """Give up the worse half of the methods, by their paired differences from full data at equal compute."""
        sign = 1 if self.settings.maximize else -1
        standing: dict[str, float] = {}
        for spec in self.going:
            runs = [run for run in self.outcome.runs if run.method == spec.label and run.kept]
            pairs = [(run.value, value) for run in runs if (value := self.outcome.at_equal_compute(run)) is not None]
            if pairs:
                standing[spec.label] = sign * fmean(value - other for value, other in pairs)
        ranked = sorted(standing, key=lambda label: -standing[label])
        for label in ranked[math.ceil(len(ranked) / 2) :]:
            self.outcome.dropped[label] = n_seeds
            self.watcher.say(
                f"        {label} is given up after {n_seeds} seed{'s' * (n_seeds > 1)}: in the worse half"
            )
        self.going = [spec for spec in self.going if spec.label not in self.outcome.dropped]

    def expected_runs(self, n_seeds_done: int) -> int:
        """Return as many runs a seed as the last seed had; at first, one short run for each method."""
        done = self.outcome.runs + [*self.outcome.failures]
        n_methods = sum(spec.cls is not None for spec in self.going)
        per_seed = len(self.going) + (n_methods if self.short is not None else 0)
        if n_seeds_done and not self.settings.halving:
            per_seed = round(len(done) / n_seeds_done)
        return len(done) + per_seed * (len(self.settings.seeds) - n_seeds_done)

    def job(self, spec: MethodSpec, seed: int, epochs: int) -> Job:
        """Return all that one run needs."""
        name = f"{SHORT}-{epochs}" if spec.label == SHORT else spec.label
        return Job(
            name=name,
            task=self.task,
            spec=spec,
            prune_ratio=self.settings.prune_ratio,
            seed=seed,
            epochs=epochs,
            monitor=self.settings.monitor,
            maximize=self.settings.maximize,
            root=self.settings.out / "lightning" / f"{self.folder.safe(name)}-{seed}",
            fingerprint=self._fingerprint(spec, seed, epochs),
            test=self.settings.test,
            samples=self.folder.samples(name, seed),
        )

    def _fingerprint(self, spec: MethodSpec, seed: int, epochs: int) -> dict[str, str]:
        settings = {
            "task": self.task.described(),
            "method": spec.label,
            "prune_ratio": self.settings.prune_ratio if spec.cls else None,
            "seed": seed,
            "epochs": epochs,
            **({"of_epochs": self.task.epochs} if spec.label == SHORT else {}),
            "monitor": self.settings.monitor,
            "maximize": self.settings.maximize,
            "test": self.settings.test,
        }
        of_task = {} if self.rehearsal is None else self.rehearsal.fingerprint
        of_method = identity.code([spec.cls] if spec.cls else [])
        return {
            "settings": identity.digest(settings),
            **of_task,
            **{f"the method's {name}": hashed for name, hashed in of_method.items()},
        }
