"""Progress of a comparison: bars on a terminal, plain lines anywhere else."""

import logging
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.warnings import PossibleUserWarning
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_dataselect.comparison.runs.records import Failure, RunRecord

_LINE_EVERY = 30.0
_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")


class Lines:
    """A line for each run, and one now and then while an epoch is long.

    Args:
        console: Where to write.
        maximize: Whether more of the metric is better.
    """

    def __init__(self, console: Console, maximize: bool) -> None:
        self.console = console
        self.n_runs = 0
        self.better = max if maximize else min
        self.done = 0
        self.trained = 0
        self.started = self.spoke = time.monotonic()
        self.label, self.epochs = "", 0
        self.best: float | None = None

    def expect(self, n_runs: int) -> None:
        """Note how many runs will be made in all, as far as is known."""
        self.n_runs = n_runs

    def begin(self, label: str, seed: int, epochs: int) -> None:
        """Note that a run has begun."""
        self.label, self.epochs, self.best = f"{label}, seed {seed}", epochs, None
        self.spoke = time.monotonic()

    def epoch(self, done: int, value: float | None) -> None:
        """Note that an epoch of it has ended."""
        if value is not None:
            self.best = value if self.best is None else self.better(self.best, value)
        if time.monotonic() - self.spoke > _LINE_EVERY:
            self.spoke = time.monotonic()
            self.say(f"        {self.label}: epoch {done} of {self.epochs}, {self.shown_best()}")

    def end(self, outcome: RunRecord | Failure, reused: bool) -> None:
        """Note that a run has finished, was found finished, or has failed."""
        self.done += 1
        self.trained += not reused
        self.n_runs = max(self.n_runs, self.done)
        if isinstance(outcome, Failure):
            text = f"failed: {outcome.message}"
        elif reused:
            text = "found finished"
        else:
            text = f"{outcome.value:.4g} after {outcome.seconds:.1f} s{self.left()}"
        self.say(f"[{self.done:>2}/{self.n_runs}] {self.label}: {text}")

    def say(self, text: str) -> None:
        """Write a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def left(self) -> str:
        """The time that is left, guessed from the runs so far."""
        remaining = self.n_runs - self.done
        if not remaining:
            return ""
        seconds = (time.monotonic() - self.started) / max(1, self.trained) * remaining
        return f", about {seconds:.0f} s left"

    def shown_best(self) -> str:
        """The best value so far, in words."""
        return "no value yet" if self.best is None else f"best {self.best:.4g}"


class Bars(Lines):
    """The same lines, under which two bars show the run and the whole."""

    def __init__(self, console: Console, maximize: bool) -> None:
        super().__init__(console, maximize)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self.whole = self.bars.add_task("all runs", total=1)
        self.single = self.bars.add_task("", total=1)

    def expect(self, n_runs: int) -> None:
        """Note how many runs will be made in all, as far as is known."""
        super().expect(n_runs)
        self.bars.update(self.whole, total=n_runs)

    def begin(self, label: str, seed: int, epochs: int) -> None:
        """Note that a run has begun."""
        super().begin(label, seed, epochs)
        self.bars.reset(self.single, total=epochs, description=self.label)

    def epoch(self, done: int, value: float | None) -> None:
        """Note that an epoch of it has ended."""
        super().epoch(done, value)
        self.bars.update(self.single, completed=done, description=f"{self.label}: {self.shown_best()}")
        self.bars.update(self.whole, completed=self.done + done / max(1, self.epochs))

    def end(self, outcome: RunRecord | Failure, reused: bool) -> None:
        """Note that a run has finished, was found finished, or has failed."""
        super().end(outcome, reused)
        self.bars.update(self.whole, completed=self.done, total=self.n_runs)


@contextmanager
def watching(console: Console, maximize: bool) -> Iterator[Lines]:
    """Show progress; silence Lightning's own output, and show each warning once.

    Args:
        console: Bars if it is a terminal, else lines.
        maximize: Whether more of the metric is better.
    """
    watcher: Lines
    if console.is_terminal:
        watcher = Bars(console, maximize)
        with _guard(watcher), watcher.bars:
            yield watcher
    else:
        watcher = Lines(console, maximize)
        with _guard(watcher):
            yield watcher


@contextmanager
def _guard(watcher: Lines) -> Iterator[None]:
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        text = " ".join(str(message).split())
        # the same advice on another batch, with another number in it, is the same
        if (advice := re.sub(r"\d+", "", text)) not in said:
            said.add(advice)
            watcher.say(f"        warning in {watcher.label}: {text}")

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # Advice on speed, such as more workers for the loader.
        warnings.simplefilter("ignore", PossibleUserWarning)
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
