"""Faults, one after the other: what is lost, and whether a fit goes on bit for bit or ends in an error.

    python -m benchmarks.faults [--kills 20] [--seed 0] [--only kills files workers ranks]

- kills: fits (`fits`) that save a checkpoint after every step (by index, on streams, with a thread, on two ranks) are
  killed, half of the times by SIGKILL at a random second, half within a checkpoint, a selection, a merge of ranks, the
  thread's work or a worker's reading; of two ranks one alone, or both. Each goes on from its last checkpoint; its
  weights, scores and selection must in the end be those of a fit that was never killed.
- files: a checkpoint that is cut short, weights in its place, one of another method and one of another data set; a disk
  that is full (a limit on the size of files) while a checkpoint, an export, a comparison's report or a run of it is
  written.
- workers: a loader's worker that is killed.
- ranks: of two ranks one dies, or stops; the other's fit must end in an error within seconds of the timeout that the
  strategy was given.

Every fit is a process of its own.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from benchmarks.faults.fits import TIMEOUT, Classifier, batches, fit
from benchmarks.faults.kills import kills
from benchmarks.faults.processes import PATIENCE, error_of, folders, free_port, same, start
from lightning_dataselect import UCB, InfoBatch, compare
from lightning_dataselect.demo import DigitsData, DigitsModel

PARTS = ["kills", "files", "workers", "ranks"]


# ---- files -------------------------------------------------------------------------------------------------------


def _with_small_files(folder: Path, *, after: int, export: bool = False) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails as on a full disk

    def limit(step: int) -> None:
        if step == after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    if export:
        selector = fit(folder)
        selector.export(folder / "samples.csv")
        limit(after)
        selector.export(folder / "samples.csv")
    else:
        fit(folder, module=Classifier(limit))


def _compared(folder: Path, *, largest: int = resource.RLIM_INFINITY) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    options: dict[str, Any] = {"max_epochs": 1, "methods": "full,InfoBatch", "seeds": 1, "quiet": True}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = compare(DigitsModel, DigitsData, out=folder / "out", **options)
    (folder / "answer.txt").write_text(found.best.headline)
    if unwritten := [str(warning.message) for warning in told if "There is no report" in str(warning.message)]:
        raise OSError(unwritten[0])  # the answer is there, the report is not


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reports(new: Callable[[], Path]) -> Iterator[tuple[str, bool, str]]:
    """A disk that is full while a comparison writes its report, and while it keeps a run."""
    folder = new()
    error = error_of(_compared, folder)
    before = _contents(folder / "out")
    (folder / "answer.txt").unlink(missing_ok=True)
    error = error or error_of(_compared, folder, largest=4096)
    answered, after = (folder / "answer.txt").exists(), _contents(folder / "out")
    again = error_of(_compared, folder)
    is_good = "report.html cannot be written" in error and answered and before == after and not again
    yield "a full disk while a report is written", is_good and "report.html" in before, error
    folder = new()
    error = error_of(_compared, folder, largest=512)
    again = error_of(_compared, folder)
    left = sorted(path.name for path in (folder / "out" / "runs").glob("*-0.json"))
    is_good = (
        "runs/full-0.json cannot be written" in error and not again and left == ["InfoBatch-0.json", "full-0.json"]
    )
    yield "a full disk while a run of a comparison is kept", is_good, error


def files(new: Callable[[], Path]) -> Iterator[tuple[str, bool, str]]:
    """Checkpoints that cannot be used, and a disk that is full."""
    whole = new()
    error_of(fit, whole)
    saved = (whole / "last.ckpt").read_bytes()
    folder = new()
    (folder / "last.ckpt").write_bytes(saved[: len(saved) // 2])
    error = error_of(fit, folder)
    yield "a checkpoint that is cut short", "is cut short: it ends after" in error, error
    folder = new()
    torch.save({"weight": torch.zeros(1)}, folder / "last.ckpt")
    error = error_of(fit, folder)
    yield "a file of weights in place of a checkpoint", "is none of a Trainer: it holds 1 entries" in error, error
    for name, options, words in (
        ("another method", {"selector": UCB()}, "was written by InfoBatch"),
        ("another data set", {"train": batches(160)}, "200 samples, but the train loader's has 160"),
    ):
        folder = new()
        (folder / "last.ckpt").write_bytes(saved)
        error = error_of(fit, folder, **options)
        yield f"a checkpoint of {name}", words in error, error
    folder = new()
    error = error_of(_with_small_files, folder, after=7)
    resumed = error_of(fit, folder)
    yield "a full disk while a checkpoint is written", bool(error) and not resumed and same(whole, folder), error
    folder = new()
    error = error_of(_with_small_files, folder, after=0, export=True)
    lines = (folder / "samples.csv").read_text().splitlines()
    left = sorted(path.name for path in folder.glob("samples.csv*"))
    is_good = "samples.csv cannot be written" in error and len(lines) == 201 and left == ["samples.csv"]
    yield "a full disk while an export is written", is_good, error
    yield from reports(new)


# ---- workers and ranks -------------------------------------------------------------------------------------------


def _kill_worker(folder: Path) -> None:
    def kill(step: int) -> None:
        if step == 5:
            multiprocessing.active_children()[0].kill()

    fit(folder, module=Classifier(kill), train=batches(num_workers=2, persistent_workers=True))


def workers(new: Callable[[], Path]) -> Iterator[tuple[str, bool, str]]:
    """A worker of the loader that is killed, and the fit that goes on from its last checkpoint."""
    whole, folder = new(), new()
    error_of(fit, whole)
    error = error_of(_kill_worker, folder)
    resumed = error_of(fit, folder)
    # torch names the worker, unless it dies while it hands a batch over
    is_told = "worker" in error or error.startswith(("ConnectionResetError", "BrokenPipeError", "EOFError"))
    yield "a worker that is killed", is_told and not resumed and same(whole, folder), error


def _one_rank(folder: Path, *, rank: int, port: str, fails: str, at: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}

    def fail() -> None:
        if rank == 1 and fails == "dies":
            os._exit(9)
        if rank == 1:
            time.sleep(10 * PATIENCE)

    def in_step(step: int) -> None:
        if at == "in a step" and step == 7:
            (folder / "failed").touch()
            fail()

    class Merging(InfoBatch):
        def select(self, epoch: int, scores: torch.Tensor, generator: torch.Generator) -> Any:
            if at == "between two epochs":
                (folder / "failed").touch()
                fail()
            return super().select(epoch, scores, generator)

    strategy = DDPStrategy(timeout=timedelta(seconds=TIMEOUT))
    fit(folder, selector=Merging(), module=Classifier(in_step), strategy=strategy, devices=2)


def ranks(new: Callable[[], Path]) -> Iterator[tuple[str, bool, str]]:
    """A rank that dies, and one that stops."""
    for fails in ("dies", "stops"):
        for at in ("in a step", "between two epochs"):
            port = free_port()
            places = [new(), new()]
            both = [start(_one_rank, place, rank=i, port=port, fails=fails, at=at) for i, place in enumerate(places)]
            both[0].join(PATIENCE)
            hangs, end = both[0].exitcode is None, time.time()
            for process in both:
                process.kill()
            failed = places[1] / "failed"
            seconds = end - failed.stat().st_mtime if failed.exists() else float("nan")
            error = "it hangs" if hangs else (places[0] / "error.txt").read_text() if both[0].exitcode else "no error"
            yield (
                f"a rank {fails} {at}",
                not hangs and both[0].exitcode == 1,
                f"after {seconds:.1f} s: {error.splitlines()[0]}",
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the faults, and return how many were not come through as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many fits are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    n_good = n = 0
    with folders() as new:
        for part in args.only:
            for name, is_good, words in {
                "kills": lambda: kills(new, args.kills, args.seed),
                "files": lambda: files(new),
                "workers": lambda: workers(new),
                "ranks": lambda: ranks(new),
            }[part]():
                n, n_good = n + 1, n_good + is_good
                print(f"{'ok    ' if is_good else 'FAILED'} {name}: {words.splitlines()[0][:160]}", flush=True)
    print(f"{n_good} of {n} faults come through")
    return n - n_good


if __name__ == "__main__":
    sys.exit(main())
