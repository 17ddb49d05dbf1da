"""The runs that a comparison has made, each pruned one beside full data at equal compute and at equal time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Literal

import numpy as np

from lightning_dataselect.comparison.plans.noise import Noise
from lightning_dataselect.comparison.plans.spec import FULL, SHORT
from lightning_dataselect.comparison.runs.records import Failure, RunRecord

# Compute of two runs that differs by no more than this share counts as equal.
NEAR = 0.02
# A method's time and its compute that differ by more ask for a run on full data at equal time, too.
APART = 0.2
Clock = Literal["cpu", "wall"]


@dataclass
class Outcome:
    """Finished and failed runs.

    Attributes:
        epochs: Of a full run.
        runs: In the order they were made; those of `short` differ in their epochs.
        failures: Likewise.
        interrupted: Whether Ctrl-C ended it early.
        dropped: By method, after how many seeds it was given up; see `Settings.halving`, and `noise`.
        noise: Wrong labels that a run has found, if they have changed the methods; see `Settings.auto`.
    """

    epochs: int
    runs: list[RunRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    dropped: dict[str, int] = field(default_factory=dict)
    noise: Noise | None = None
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
        """The clock that the verdict goes by: CPU time, which no neighbour slows down, if no accelerator was used."""
        return "cpu" if all(run.device == "cpu" for run in self.runs) else "wall"

    def time_of(self, run: RunRecord) -> float:
        """Return the seconds of training by the clock that the verdict goes by."""
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
