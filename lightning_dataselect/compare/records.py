"""One finished run, and the folder that keeps it, so that a rerun goes on from there."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Point(NamedTuple):
    """Where a run stood after an epoch.

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
    """What one run of one method with one seed cost and reached.

    Attributes:
        method: The label, as in `--methods`.
        seed: Of the run.
        epochs: `max_epochs` of the run.
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
        fingerprint: Of all settings that the run depends on.
    """

    method: str
    seed: int
    epochs: int
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
    fingerprint: str

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


def fingerprint(settings: Any) -> str:
    """A short hash of settings; anything that is no JSON enters by its `repr`.

    Example:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunFolder:
    """`runs/<method>-<seed>.json`, a file for each finished run.

    Args:
        out: The folder of the comparison; made if it is not there.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "runs"
        self.path.mkdir(parents=True, exist_ok=True)

    def load(self, name: str, seed: int, fingerprint: str) -> RunRecord | None:
        """The run of that name, unless it is missing, torn, or was made with other settings."""
        try:
            fields = json.loads(self._file(name, seed, ".json").read_text())
            record = RunRecord(**{**fields, "curve": [Point(*point) for point in fields["curve"]]})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return record if record.fingerprint == fingerprint else None

    def save(self, name: str, record: RunRecord) -> None:
        """Writes a run in one piece: whoever reads finds all of it or nothing."""
        path = self._file(name, record.seed, ".json")
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(record)))
        os.replace(partial, path)
        self._file(name, record.seed, ".error.txt").unlink(missing_ok=True)

    def save_error(self, name: str, seed: int, traceback: str) -> Path:
        """Keeps a traceback beside the runs."""
        path = self._file(name, seed, ".error.txt")
        path.write_text(traceback)
        return path

    def gallery(self, name: str, seed: int) -> Path:
        """Where the picture of a run's hardest and easiest samples lies, if there is one."""
        return self._file(name, seed, ".png")

    def _file(self, name: str, seed: int, suffix: str) -> Path:
        safe = re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_")
        return self.path / f"{safe}-{seed}{suffix}"
