"""Run methods x seeds on one task, and full data at the cost of each."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Protocol

from lightning_dataselect.comparison.plans.jobs import Job, Workers
from lightning_dataselect.comparison.plans.noise import read_noise, with_joined
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import SHORT, MethodSpec
from lightning_dataselect.comparison.runs import identity, samples
from lightning_dataselect.comparison.runs.records import Failure, RunFolder, RunRecord
from lightning_dataselect.comparison.runs.rehearsal import Rehearsal, rehearse
from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.utils.errors import UserInputError, one_line


class Watcher(Protocol):
    """Receiver of a comparison's progress."""

    def expect(self, n_runs: int) -> None:
        """Note how many runs will be made in all, as far as is known."""

    def begin(self, label: str, seed: int, epochs: int) -> None:
        """Note that a run has begun."""

    def epoch(self, done: int, value: float | None) -> None:
        """Note that an epoch of it has ended, and the value of the metric, if there is one yet."""

    def end(self, outcome: RunRecord | Failure, reused: bool) -> None:
        """It has finished, was found finished, or has failed."""

    def say(self, text: str) -> None:
        """Something the user should know."""


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
    runner = Runner(task, settings, watcher, rehearsal)
    try:
        for n_seeds_done, seed in enumerate(settings.seeds):
            watcher.expect(runner.expected_runs(n_seeds_done))
            runner.go_through(seed, runner.going)
            if settings.auto and n_seeds_done == 0:
                runner.react_to_noise(seed)
            if settings.halving and n_seeds_done + 1 < len(settings.seeds):
                runner.drop_worse_half(n_seeds_done + 1)
    except KeyboardInterrupt:
        runner.outcome.interrupted = True
    finally:
        runner.workers.close()
    return runner.outcome


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


class Runner:
    """A comparison under way: the methods still in it, and what has come of them."""

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

    def go_through(self, seed: int, specs: Sequence[MethodSpec]) -> None:
        """Run some methods, then full data at the cost of each."""
        self.go([self.job(spec, seed, self.task.epochs) for spec in specs])
        if self.short is None:
            return
        pruned = [run for run in self.outcome.runs if run.seed == seed and run.kept]
        wanted = sorted({epochs for run in pruned for epochs in self.outcome.wanted_epochs(run)})
        missing = [epochs for epochs in wanted if self.outcome.on_full_data(seed, epochs) is None]
        self.go([self.job(self.short, seed, epochs) for epochs in missing])

    def go(self, jobs: Sequence[Job]) -> None:
        """Take up what has finished, and run the rest, several at once if the user has asked for that."""
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

    def react_to_noise(self, seed: int) -> None:
        """Let methods join that stand wrong labels, and give up those that train on them, where any were found."""
        pruned = [run for run in self.outcome.runs if run.kept]
        decisions = {
            run.method: samples.read(self.folder.samples(run.method, seed)).get("decisions", []) for run in pruned
        }
        found = read_noise(
            decisions,
            max((run.n_total for run in pruned), default=1),
            [spec.label for spec in self.going],
            more_seeds=len(self.settings.seeds) > 1,
            grows=not self.settings.halving,
        )
        if found is None:
            return
        self.watcher.say(f"        {found.text()}")
        self.outcome.noise = found
        self.outcome.dropped |= dict.fromkeys(found.given_up, 1)
        joined = with_joined(self.settings, found).methods[len(self.settings.methods) :]
        self.going = [*(spec for spec in self.going if spec.label not in found.given_up), *joined]
        self.go_through(seed, joined)

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
