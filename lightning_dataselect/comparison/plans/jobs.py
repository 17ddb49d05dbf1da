"""Jobs: single runs that can be carried out in this process or in others, several at once."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from pickle import PicklingError
from typing import Protocol

import torch
from rich.console import Console

from lightning_dataselect.comparison.plans.spec import SHORT, MethodSpec
from lightning_dataselect.comparison.runs.progress import watching
from lightning_dataselect.comparison.runs.records import RunRecord
from lightning_dataselect.comparison.runs.run import run
from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.utils.errors import UserInputError, one_line


@dataclass(frozen=True)
class Job:
    """All that one run needs; see `run` for what is not said here.

    Attributes:
        name: Of its files: the method, and of `short` the epochs.
        spec: The method, or a baseline.
        prune_ratio: Handed to the method if it takes one.
    """

    name: str
    task: Task
    spec: MethodSpec
    prune_ratio: float
    seed: int
    epochs: int
    monitor: str
    maximize: bool
    root: Path
    fingerprint: dict[str, str]
    test: bool
    samples: Path

    def do(self, on_epoch: OnEpoch) -> RunRecord | Failed:
        """Run; an error is returned, and only Ctrl-C is raised."""
        try:
            return run(
                self.task,
                label=self.spec.label,
                selector=self.spec.build(self.prune_ratio, self.seed) if self.spec.cls else None,
                seed=self.seed,
                epochs=self.epochs,
                # a method may cost more than a full run
                of_epochs=max(self.epochs, self.task.epochs) if self.spec.label == SHORT else self.epochs,
                monitor=self.monitor,
                maximize=self.maximize,
                root=self.root,
                fingerprint=self.fingerprint,
                on_epoch=on_epoch,
                test=self.test,
                samples=self.samples,
            )
        except Exception as error:
            return Failed(one_line(error), traceback.format_exc())


@dataclass(frozen=True)
class Failed:
    """An error, as text, which crosses from one process to another.

    Attributes:
        message: In one line.
        traceback: All of it.
    """

    message: str
    traceback: str


class OnEpoch(Protocol):
    """Told of an epoch's end."""

    def __call__(self, done: int, value: float | None) -> None:
        """So many epochs are done, and the metric has that value."""


class Watcher(Protocol):
    """Told of the runs."""

    def begin(self, label: str, seed: int, epochs: int) -> None:
        """Note that a run has begun."""

    def epoch(self, done: int, value: float | None) -> None:
        """Note that an epoch of it has ended."""


class Workers:
    """Do jobs, here or in processes that stay for all of them.

    Args:
        n_processes: How many jobs go on at once; with 1, all of them in this process.
    """

    def __init__(self, n_processes: int) -> None:
        self.n_processes = n_processes
        self._pool: ProcessPoolExecutor | None = None

    def do(self, jobs: Sequence[Job], watcher: Watcher) -> Iterator[tuple[Job, RunRecord | Failed]]:
        """Yield each job with what came of it, as soon as it has ended.

        Args:
            jobs: In the order of their beginning.
            watcher: Told of each run; with several processes only when it has ended.

        Raises:
            UserInputError: If a job cannot be sent to another process.
        """
        if self.n_processes == 1:
            for job in jobs:
                watcher.begin(job.name, job.seed, job.epochs)
                yield job, job.do(watcher.epoch)
            return
        try:
            futures = {self._started().submit(_do, job): job for job in jobs}
            for future in as_completed(futures):
                job, result = futures[future], future.result()
                watcher.begin(job.name, job.seed, job.epochs)
                yield job, result
        except (PicklingError, AttributeError, TypeError, BrokenProcessPool) as error:
            raise UserInputError(
                f"--jobs {self.n_processes}: the task cannot go to another process ({one_line(error)}). Make module and"
                " data by functions at the top of a file, call compare() under `if __name__ == '__main__':`, or take"
                " --jobs 1."
            ) from error

    def close(self) -> None:
        """End the processes; jobs that have not begun are forgotten."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # a forked process cannot use a GPU that its parent has used
            context = multiprocessing.get_context("spawn")
            places: Queue[int] = context.Queue()
            for place in range(self.n_processes):
                places.put(place)
            threads = max(1, torch.get_num_threads() // self.n_processes)
            settings = places, torch.cuda.device_count(), threads
            self._pool = ProcessPoolExecutor(self.n_processes, context, _settle, settings)
        return self._pool


def _settle(places: Queue[int], n_gpus: int, threads: int) -> None:
    place = places.get()
    if n_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place % n_gpus)
    torch.set_num_threads(threads)


def _do(job: Job) -> RunRecord | Failed:
    # what Lightning says of each run is for a run that somebody watches
    with watching(Console(quiet=True), job.maximize):
        return job.do(lambda done, value: None)
