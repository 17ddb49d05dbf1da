"""How long choosing the next epoch takes, and how much memory, as the data set and the number of ranks grow.

    python -m benchmarks.selection_scale [--quick] [--only select memory merge] [--methods UCB SeTa]
                                         [--sizes 1000000 10000000] [--out results/selection_scale.json]

- select: the per-sample state is filled, then the next epoch is selected in whole batches, ordered and its first batch
  drawn. Seconds are of that, of CPU time, by one thread.
- memory: the most bytes a sample that the same choice holds beyond the state, which is given beside it: tensors by
  torch's profiler and Python's objects by tracemalloc, so that nothing else in the process counts.
  Each choice that is timed or counted is a process of its own.
- merge: what several ranks, processes under gloo on this machine, take at the end of an epoch to give each other what
  each has measured. Every rank has measured its share of the samples; seconds are the slowest rank's, the least of
  three merges, both by the clock, which other work on the machine slows down, and of CPU time, which it does not; bytes
  are the peak of its process, since gloo allocates on its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.profiler import ProfilerActivity, profile

from benchmarks.environment import environment, write_json
from benchmarks.memory import peak_bytes, process_peak_bytes, process_peak_from_now
from lightning_dataselect.methods.frontier.trial import draw_groups
from lightning_dataselect.numerics import placement
from lightning_dataselect.state.selection import Observation

PARTS = ["select", "memory", "merge"]
MERGES = 3
HALF = {"prune_ratio": 0.5}
HALF_BUDGET = {"budget": 0.5}
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
    "OrderDP": {},
    "SRD": {},
    "IES": {"threshold": 0.5},
    "Frontier": HALF_BUDGET,
    "RCAP": HALF,
    "CCS": {},
    "DUAL": HALF,
    "TDDS": HALF,
    "Forgetting": HALF,
}
# their columns of classes are there, too
CLASSIFY = {"Frontier", "RCAP", "CCS", "DUAL", "TDDS", "Forgetting"}
N_CLASSES = 1000
BATCH_SIZE = 96  # of which no selection is a multiple, so that each is rounded to whole batches


class Choice:
    """A selector with the state of ``n`` samples, ready to choose an epoch.

    Args:
        method: The name of a class, as in `METHODS`.
        n: The number of samples.
        scratch_dir: Where the state lies, and what the choice takes; None for memory.
    """

    def __init__(self, method: str, n: int, scratch_dir: str | None = None) -> None:
        import lightning_dataselect
        from lightning_dataselect.data.sampler import SelectionSampler

        self.selector = getattr(lightning_dataselect, method)(**METHODS[method], scratch_dir=scratch_dir)
        self.selector.batch_unit = BATCH_SIZE
        self.selector.run_state.open(self.selector, n, world_size=1, epoch=0)
        self.store = self.selector.run_state.store
        self.sampler = SelectionSampler(1, shuffle=True, memory=self.store.memory)
        scores = () if self.selector.ranks_by_loss else ("score",)
        for name in ("loss", *scores, *self.selector.columns()):
            self.store[name].uniform_(generator=torch.Generator().manual_seed(0))
        if method in CLASSIFY:
            self._show_classes()
        if method == "RCAP":
            self.store["quota_class"].copy_(self.store["label"])
            self.store["last_epoch"].fill_(0.0)
        if method == "Frontier":
            self._near_the_end_of_a_pass()

    def _show_classes(self) -> None:
        store, one = self.store, torch.zeros(1, dtype=torch.int64)
        store.record_logits(Observation(one, torch.zeros(1), torch.tensor([[0.0, 1.0]]), one, epoch=0))
        store.flush()
        store["label"].random_(N_CLASSES, generator=torch.Generator().manual_seed(1))
        store["predicted"].copy_(store["label"])

    def _near_the_end_of_a_pass(self) -> None:
        """Let three in ten samples still have their turn, so that Frontier decides on another pass in the epoch."""
        counts = {"passes": 2, "n_batches": 10, "trial_began": 1}
        self.selector.load_rank_state(self.selector.rank_state() | counts | {"has_met_classes": True})
        turns, group = self.store["turns"], self.store["group"]
        group.copy_(draw_groups(group))
        turns.copy_(torch.where(turns < 0.3, 2.0, 3.0))
        self.store["visits"].fill_(2.0)
        for name in ("untrained", "plain"):
            self.store[name][3 * 128 :] = torch.nan  # known of the first three batches

    @property
    def state_bytes(self) -> int:
        """The bytes of the state of all samples."""
        columns = [self.store[name] for name in self.store.state_dict()]
        return sum({id(column): column.nbytes for column in columns}.values())  # loss and score may be one

    def make(self) -> tuple[float, float, int]:
        """Select the epoch, order it and draw its first batch.

        Returns:
            Seconds of CPU time until it is selected, those until its first batch is drawn, and the number kept.
        """
        from lightning_dataselect.state.planning import plan_epoch

        first_pruned = max(1, self.selector.warmup_epochs)
        begun = time.process_time()
        plan = plan_epoch(self.selector, self.selector.run_state, first_pruned)
        selected = time.process_time()
        self.selector.run_state.fit.begin(plan)
        self.sampler.plan = plan
        order = iter(self.sampler)
        for _ in range(BATCH_SIZE):
            next(order)
        return selected - begun, time.process_time() - begun, plan.indices.numel()


def measure_seconds(method: str, n: int) -> dict[str, Any]:
    """Time the choice of one epoch of ``n`` samples in this process."""
    Choice(method, 1000).make()  # imports and thread pools
    selected, done, kept = Choice(method, n).make()
    return {"select_seconds": selected, "order_seconds": done - selected, "seconds": done, "kept": kept}


def measure_bytes(method: str, n: int) -> dict[str, Any]:
    """Count what the choice of one epoch of ``n`` samples holds at its peak, in tensors and in Python's objects."""
    placement.LARGE = sys.maxsize  # torch makes all tensors, as the peaks of two counts cannot be added up
    Choice(method, 1000).make()  # imports
    choice = Choice(method, n)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        tracemalloc.start()
        choice.make()
        _, python_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {
        "bytes_per_sample": (peak_bytes(profiler) + python_bytes) / n,
        "state_bytes_per_sample": choice.state_bytes / n,
    }


MEASURES = {"select": measure_seconds, "memory": measure_bytes}


def measure_in_own_process(part: str, method: str, n: int) -> dict[str, Any]:
    """Measure the choice of one epoch of ``n`` samples in a fresh process.

    The size that torch's profiler has noted for an address outlives the profile, and is taken off when what another
    tensor has there is freed in a later one: bytes are right only in a process that has profiled nothing before.
    """
    command = [sys.executable, "-m", "benchmarks.selection_scale", "--single", part, method, str(n)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out)  # type: ignore[no-any-return]


def measure_merge(ranks: int, n: int) -> dict[str, Any]:
    """Merge the columns of ``n`` samples between ``ranks`` processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_merge_on, (ranks, n, folder), nprocs=ranks)
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)]
    seconds, cpu_seconds = ([max(each[name][i] for each in found) for i in range(MERGES)] for name in ("wall", "cpu"))
    return {
        "seconds": min(seconds),
        "cpu_seconds": min(cpu_seconds),
        "every_merge": seconds,
        "bytes_per_sample": max(each["bytes"] for each in found) / n,
    }


def _merge_on(rank: int, ranks: int, n: int, folder: str) -> None:
    from lightning_dataselect.state.sample_history import SampleHistoryStore

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    store = SampleHistoryStore(n, world_size=ranks)
    mine = torch.arange(rank, n, ranks)
    wall, cpu = [], []
    before = process_peak_from_now()
    for i in range(MERGES):
        for column in ("loss", "score"):
            store[column][mine] = float(rank + i)
        store.mark_dirty(mine)
        dist.barrier()
        begun = time.perf_counter(), time.process_time()
        store.merge()
        wall.append(time.perf_counter() - begun[0])
        cpu.append(time.process_time() - begun[1])
    peak = process_peak_bytes() - before  # not that of looking at what came out
    expected = torch.arange(n) % ranks + MERGES - 1
    assert torch.equal(store.column("loss"), expected.float()), "the merge is wrong"
    Path(folder, f"{rank}.json").write_text(json.dumps({"wall": wall, "cpu": cpu, "bytes": peak}))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to a million samples")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure anew")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="to choose by")
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of samples to choose among")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/selection_scale.json"))
    parser.add_argument("--single", nargs=3, metavar=("PART", "METHOD", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        part, method, n = args.single
        print(json.dumps(MEASURES[part](method, int(n))))
        return
    is_whole = args.only == PARTS and args.methods == list(METHODS) and not args.sizes
    known = json.loads(args.out.read_text()) if args.out.exists() and not is_whole else {}
    merged = (10**4, 10**5, 10**6) if args.quick else (10**4, 10**5, 10**6, 10**7)  # more would not fit side by side
    sizes = args.sizes or ((10**6,) if args.quick else (10**6, 10**7, 10**8))
    known["quick"] = args.quick
    for part in ("select", "memory"):
        if part in args.only:
            known["environment" if part == "select" else "memory_environment"] = environment()
            rows = {(row["method"], row["n"]): row for row in known.get("results", [])}
            for row in _choices(part, sizes, args.methods):
                at = (row["method"], row["n"])
                rows[at] = rows.get(at, {}) | row
                known["results"] = list(rows.values())
                write_json(args.out, known)
    if "merge" in args.only:
        known["merge_environment"], known["merges"] = environment(), []
        for row in _merges(merged):
            known["merges"].append(row)
            write_json(args.out, known)


def _choices(part: str, sizes: Sequence[int], methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    for n in sizes:
        for method in methods:
            row = {"method": method, "n": n, f"{part}_batch_size": BATCH_SIZE} | {
                name: float(f"{value:.4g}") if isinstance(value, float) else value
                for name, value in measure_in_own_process(part, method, n).items()
            }
            found = f"{row['seconds']:7.2f} s" if part == "select" else f"{row['bytes_per_sample']:6.1f} B/sample"
            if part == "select":
                row["beside_other_work"] = os.getloadavg()[0] > (os.cpu_count() or 1)
            print(f"{method:<15} N={n:>11,}  {found}", flush=True)
            yield row


def _merges(sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for n in sizes:
        for ranks in (1, 2, 4):
            row = {"ranks": ranks, "n": n, **measure_merge(ranks, n)}
            print(
                f"{ranks} ranks         N={n:>11,}  {row['seconds']:7.3f} s  {row['cpu_seconds']:7.3f} s of CPU"
                f"  {row['bytes_per_sample']:6.1f} B/sample",
                flush=True,
            )
            yield row


if __name__ == "__main__":
    main()
