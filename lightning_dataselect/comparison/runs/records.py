"""One finished run, and the folder that keeps it, so that a rerun goes on from there."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_dataselect.utils.writing import written_whole


class Point(NamedTuple):
    """Cost and metric of a run after one epoch.

    Attributes:
        seconds: Wall-clock of training so far, in seconds.
        value: The monitored metric.
        cpu_seconds: CPU time of training so far.
        n_backward: Samples sent backward so far.
    """

    seconds: float
    value: float
    cpu_seconds: float
    n_backward: int


@dataclass(frozen=True)
class RunRecord:
    """Cost and result of one run: one method, one seed.

    Attributes:
        method: The label, as in `--methods`.
        seed: Of the run.
        epochs: Epochs that the run was to have.
        epochs_done: Epochs that it trained, the last maybe in part; fewer where something has stopped it.
        ended_by: What stopped it early, such as `EarlyStopping`; empty if it ran to its end.
        value: The monitored metric at the end.
        best: The best it was after any epoch.
        tested: What the module logged on the test set after the last epoch; empty if it was not asked for.
        seconds: Wall-clock of training, without validation.
        cpu_seconds: CPU time of the same, over all threads of the process; a loader's workers are not in it.
        waiting_seconds: Wall-clock of training in which the loop waited for the loader's next batch.
        gpu_busy: Share of the training time in which the GPU was at work, or None where it cannot be had.
        validation_seconds: Wall-clock of validation.
        n_total: Samples of one full epoch.
        n_forward: Samples that went forward in training, over all epochs.
        n_backward: Samples that went backward, over all epochs.
        curve: Where the run stood after each epoch.
        kept: By epoch, the share of the samples that was trained on; empty for a baseline.
        histogram: Of the method's final scores: `counts`, `edges`, `unmeasured`; or None.
        device: What it was trained on, `cpu` or `cuda` say.
        fingerprint: Of all that the run depends on, by name; see `identity`.
        n_threads: Threads that torch computed with.
    """

    method: str
    seed: int
    epochs: int
    epochs_done: int
    ended_by: str
    value: float
    best: float
    tested: dict[str, float]
    seconds: float
    cpu_seconds: float
    waiting_seconds: float
    gpu_busy: float | None
    validation_seconds: float
    n_total: int
    n_forward: int
    n_backward: int
    curve: list[Point]
    kept: list[float]
    histogram: dict[str, Any] | None
    device: str
    fingerprint: dict[str, str]
    n_threads: int

    @property
    def dropped(self) -> float:
        """Share of the samples of its epochs that it did not train on, 0 to 1."""
        return max(0.0, 1 - self.n_backward / (self.n_total * self.epochs_done))

    @property
    def cost(self) -> float:
        """Compute in samples trained: a forward pass is one third of one, a backward pass two thirds.

        So the passes in which a method scores samples count, as do the samples that it only trains on.
        """
        return (self.n_forward + 2 * self.n_backward) / 3


@dataclass(frozen=True)
class Failure:
    """A run that ended in an error.

    Attributes:
        method: The label, as in `--methods`.
        seed: Of the run.
        message: The error in one line.
        log: The file that holds the traceback.
    """

    method: str
    seed: int
    message: str
    log: str


class RunFolder:
    """`runs/<method>-<seed>.json`, a file for each finished run.

    Args:
        out: The folder of the comparison; made if it is not there.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "runs"
        self.path.mkdir(parents=True, exist_ok=True)

    def load(self, name: str, seed: int) -> RunRecord | None:
        """The run of that name, unless it is missing, torn, or of a version that kept other fields."""
        try:
            fields = json.loads(self._file(name, seed, ".json").read_text())
            return RunRecord(**{**fields, "curve": [Point(*point) for point in fields["curve"]]})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, name: str, record: RunRecord) -> None:
        """Write a run atomically: a reader finds all of it or nothing."""
        with written_whole(self._file(name, record.seed, ".json")) as unfinished:
            unfinished.write_text(json.dumps(asdict(record)))
        self._file(name, record.seed, ".error.txt").unlink(missing_ok=True)

    def save_error(self, name: str, seed: int, traceback: str) -> Path:
        """Keep a traceback beside the runs."""
        path = self._file(name, seed, ".error.txt")
        with written_whole(path) as unfinished:
            unfinished.write_text(traceback)
        return path

    def samples(self, name: str, seed: int) -> Path:
        """Return the file that says what became of single samples in a run."""
        return self._file(name, seed, ".samples.json")

    @staticmethod
    def safe(name: str) -> str:
        """Return a method's label as part of a file's name.

        Example:
            >>> RunFolder.safe("UCB(c=2.0)")
            'UCB_c_2.0'
        """
        return re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_")

    def _file(self, name: str, seed: int, suffix: str) -> Path:
        return self.path / f"{self.safe(name)}-{seed}{suffix}"
