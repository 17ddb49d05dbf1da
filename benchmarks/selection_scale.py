"""How long choosing the next epoch takes, and how much memory, as the data set and the number of ranks grow.

    python -m benchmarks.selection_scale [--quick] [--only select merge] [--out results/selection_scale.json]

- select: each measurement is a process of its own: the per-sample state is filled, then the next epoch is selected,
  ordered and its first batch drawn. Seconds are of that, and bytes a sample are its peak above the state, which is
  given beside it.
- merge: what several ranks, processes under gloo on this machine, take at the end of an epoch to give each other what
  each has measured. Every rank has measured its share of the samples; seconds are the slowest rank's, the least of
  three merges.
"""

import argparse
import contextlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from benchmarks.environment import environment, write_json

PARTS = ["select", "merge"]
MERGES = 3
HALF = {"prune_ratio": 0.5}
# where the method's own ratio is lower, and its memory so much greater, that one
METHODS: dict[str, dict[str, Any]] = {
    "RandomPruning": HALF,
    "InfoBatch": HALF,
    "UCB": HALF,
    "EpsilonGreedy": HALF,
    "EL2N": HALF,
    "SwiftLearn": HALF,
    "ESWP": {},
    "KAKURENBO": {"tau": 0.0},
    "SeTa": {},
}


def measure(method: str, n: int) -> dict[str, Any]:
    """Choose one epoch of ``n`` samples in this process."""
    import lightning_dataselect
    from lightning_dataselect.data.sampler import SelectionSampler
    from lightning_dataselect.numerics.seeding import epoch_generator
    from lightning_dataselect.state.plan import EpochPlan
    from lightning_dataselect.state.sample_history import SampleHistoryStore

    selector = getattr(lightning_dataselect, method)(**METHODS[method])
    sampler = SelectionSampler(1, shuffle=True)

    def filled(size: int) -> SampleHistoryStore:
        selector.run_state.forget()
        selector.run_state.open(selector, size, world_size=1, epoch=1)
        for column in ("loss", "score", *selector.columns()):
            selector.store[column].uniform_(generator=torch.Generator().manual_seed(0))
        return selector.store

    filled(1000)
    selector.select(1, selector.scores, epoch_generator(0, 1, "select"))  # imports and thread pools
    store = filled(n)
    before = _peak_from_now()
    begun = time.perf_counter()
    chosen = selector.select(1, store.column("score"), epoch_generator(0, 1, "select"))
    selected = time.perf_counter()
    sampler.plan = EpochPlan(1, chosen.indices, chosen.weights)
    order = iter(sampler)
    for _ in range(128):
        next(order)
    done = time.perf_counter()
    columns = {id(store[name]): store[name] for name in store.state_dict()}  # loss and score may be one
    return {
        "select_seconds": selected - begun,
        "order_seconds": done - selected,
        "seconds": done - begun,
        "bytes_per_sample": (_peak_bytes() - before) / n,
        "state_bytes_per_sample": sum(column.nbytes for column in columns.values()) / n,
        "kept": chosen.indices.numel(),
    }


def measure_merge(ranks: int, n: int) -> dict[str, Any]:
    """Merge the columns of ``n`` samples between ``ranks`` processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_merge_on, (ranks, n, folder), nprocs=ranks)
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)]
    seconds = [max(each["seconds"][i] for each in found) for i in range(MERGES)]
    return {
        "seconds": min(seconds),
        "every_merge": seconds,
        "bytes_per_sample": max(each["bytes"] for each in found) / n,
    }


def _merge_on(rank: int, ranks: int, n: int, folder: str) -> None:
    from lightning_dataselect.state.sample_history import SampleHistoryStore

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    store = SampleHistoryStore(n, world_size=ranks)
    mine = torch.arange(rank, n, ranks)
    seconds = []
    before = _peak_from_now()
    for i in range(MERGES):
        for column in ("loss", "score"):
            store[column][mine] = float(rank + i)
        store.mark_dirty(mine)
        dist.barrier()
        begun = time.perf_counter()
        store.merge()
        seconds.append(time.perf_counter() - begun)
    expected = torch.arange(n) % ranks + MERGES - 1
    assert torch.equal(store.column("loss"), expected.float()), "the merge is wrong"
    peak = _peak_bytes() - before
    Path(folder, f"{rank}.json").write_text(json.dumps({"seconds": seconds, "bytes": peak}))
    dist.destroy_process_group()


def _peak_from_now() -> int:
    """Forget the peak so far, on Linux, and return the bytes in use."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found is not None:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to a million samples")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure anew")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/selection_scale.json"))
    parser.add_argument("--single", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        print(json.dumps(measure(args.single[0], int(args.single[1]))))
        return
    known = json.loads(args.out.read_text()) if args.out.exists() and args.only != PARTS else {}
    sizes = (10**4, 10**5, 10**6) if args.quick else (10**4, 10**5, 10**6, 10**7, 10**8)
    known["quick"] = args.quick
    if "select" in args.only:
        known["environment"], known["results"] = environment(), []
        for row in _selections(sizes):
            known["results"].append(row)
            write_json(args.out, known)
    if "merge" in args.only:
        known["merge_environment"], known["merges"] = environment(), []
        for row in _merges([n for n in sizes if n <= 10**7]):  # more would not fit beside each other on a small machine
            known["merges"].append(row)
            write_json(args.out, known)


def _selections(sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for n in sizes:
        for method in METHODS:
            command = [sys.executable, "-m", "benchmarks.selection_scale", "--single", method, str(n)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            row = {"method": method, "n": n, **json.loads(out)}
            print(
                f"{method:<15} N={n:>11,}  {row['seconds']:7.2f} s  {row['bytes_per_sample']:6.1f} B/sample", flush=True
            )
            yield row


def _merges(sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for n in sizes:
        for ranks in (1, 2, 4):
            row = {"ranks": ranks, "n": n, **measure_merge(ranks, n)}
            print(
                f"{ranks} ranks         N={n:>11,}  {row['seconds']:7.3f} s  {row['bytes_per_sample']:6.1f} B/sample",
                flush=True,
            )
            yield row


if __name__ == "__main__":
    main()
