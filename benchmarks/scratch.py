"""The time to choose the next epoch with the state of the samples on a disk, beside the time with it in memory.

    python -m benchmarks.scratch --scratch-dir DIR [--samples 1e7 1e8 1e9] [--methods InfoBatch UCB] [--quick]

Each measurement is a process of its own. The state of so many samples is opened and filled with made-up scores; then
64 batches of 256 samples at random are written down, as training steps do; then the next epoch is selected, ordered and
its first batch drawn. Given are the seconds of these three, of the last also those of CPU time, which other work on the
machine does not change; and, of the last two, the most memory that the process had as its own beyond what it had before
them, and the most that its files took on the disk. What lies in files is no memory of its own: the operating system
keeps as much of it in memory as there is room for. ``memory`` is the same without ``scratch_dir``, up to a hundred
million samples.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment, write_json
from benchmarks.selection_scale import METHODS, Choice

SIZES = (10**7,)
MOST_IN_MEMORY = 10**8
BATCHES, BATCH = 64, 256


class Footprint:
    """The most that this process has of its own in memory, and in files of a folder, on Linux, looked at all the time.

    Args:
        folder: Of the files; None for none.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = _own_bytes()
        self.own_bytes, self.disk_bytes = self.before, 0

    def __enter__(self) -> "Footprint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ends.wait(0.1):
            self._look()

    def _look(self) -> None:
        self.own_bytes = max(self.own_bytes, _own_bytes())
        if self._folder is not None:
            self.disk_bytes = max(self.disk_bytes, _mapped_bytes(self._folder))


def _own_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _mapped_bytes(folder: str) -> int:
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if f" {folder}/" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            total += end - start
    return total


def measure(method: str, n: int, scratch_dir: str | None) -> dict[str, Any]:
    """Choose an epoch of ``n`` samples in this process, and say what it took.

    Args:
        method: The name of a class, as in `METHODS`.
        n: The number of samples.
        scratch_dir: Where the state lies; None for memory.
    """
    Choice(method, 1000, scratch_dir).make()  # imports and thread pools
    folder = None if scratch_dir is None else str(Path(scratch_dir).resolve())
    begun = time.perf_counter()
    with Footprint(folder) as opened:
        choice = Choice(method, n, scratch_dir)
    filled = time.perf_counter()
    with Footprint(folder) as footprint:
        record_seconds = _record(choice, n)
        cpu = time.process_time()
        _, chosen, kept = choice.make()
        cpu_seconds = time.process_time() - cpu
    return {
        "fill_seconds": filled - begun,
        "batch_ms": 1000 * record_seconds / BATCHES,
        "seconds": chosen,
        "cpu_seconds": cpu_seconds,
        "state_own_bytes": opened.own_bytes - opened.before,
        "own_bytes": footprint.own_bytes - footprint.before,
        "disk_bytes": footprint.disk_bytes,
        "kept": kept,
    }


def _record(choice: Choice, n: int) -> float:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(n, (BATCH,), generator=generator) for _ in range(BATCHES)]
    begun = time.perf_counter()
    for indices in batches:
        losses = torch.rand(BATCH, generator=generator)
        choice.store["loss"].index_copy_(0, indices, losses)
        choice.store.record_losses(indices, losses)
        choice.store.count_trained(indices)
    choice.store.flush()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch-dir", help="a folder on a local disk; default: the system's for temporary files")
    parser.add_argument("--samples", nargs="+", type=float, default=SIZES, help="how many; 1e9 take 39 GB of the disk")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["InfoBatch", "UCB"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a million samples")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scratch.json"))
    parser.add_argument("--single", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        print(json.dumps(measure(args.single[0], int(args.single[1]), args.scratch_dir)))
        return
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    rows = {(row["method"], row["n"], row["where"]): row for row in known.get("results", [])}
    sizes = [10**6] if args.quick else [int(n) for n in args.samples]
    for n in sizes:
        for method in args.methods:
            for where in ("memory", "disk")[n > MOST_IN_MEMORY :]:
                folder = None if where == "memory" else args.scratch_dir or tempfile.gettempdir()
                row = {"method": method, "n": n, "where": where, **_measure_apart(method, n, folder)}
                print(_line(row), flush=True)
                rows[method, n, where] = row
                content = {"quick": args.quick, "environment": environment(), "results": list(rows.values())}
                write_json(args.out, content)


def _measure_apart(method: str, n: int, scratch_dir: str | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scratch", "--single", method, str(n)]
    if scratch_dir is not None:
        command += ["--scratch-dir", scratch_dir]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out)  # type: ignore[no-any-return]


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:<14} N={row['n']:>13,} {row['where']:<6}  filled {row['fill_seconds']:6.1f} s"
        f"  batch {row['batch_ms']:8.3f} ms  choice {row['seconds']:6.1f} s, {row['cpu_seconds']:6.1f} of CPU"
        f"  own memory: state {row['state_own_bytes'] / 1e9:.2f} GB, choice {row['own_bytes'] / 1e9:.2f} GB"
        f"  disk {row['disk_bytes'] / 1e9:6.2f} GB  kept {row['kept']:,}"
    )


if __name__ == "__main__":
    main()
