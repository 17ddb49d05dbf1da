"""How what a rank computes, sends and holds grows with ranks and samples: a model, held against measurements.

    python -m benchmarks.rank_scale [--quick | --collect] [--out results/rank_scale.json]

Ranks are processes under gloo on this machine. Each trains, without a model, on its part of an epoch; then come what
ends an epoch, which is merging, choosing and ordering, and a checkpoint. Bytes are what the process has handed to its
sockets, exactly; seconds are CPU time of the process, the mean over the ranks, since many ranks share few cores here.

The model says what is sent without a constant of its own, and the CPU time with a few, in seconds a unit of work. What
it takes to take in a column of one more rank is measured by itself; the others are fitted on few ranks and samples (at
most FIT_RANKS and FIT_SAMPLES), and predict the rest. The table of what comes
at 1,024 ranks adds what cannot be measured on one machine: the stated bandwidth and latency of a network.
"""

import argparse
import gc
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.environment import environment, write_json
from lightning_dataselect import InfoBatch
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.merging import CHUNK, MOST_CHUNKS, Shared
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.recording import count_trained, record
from lightning_dataselect.state.selection import Observation

FIT_RANKS, FIT_SAMPLES = 4, 10**6
BATCH, STEPS, FILL = 256, 64, 1 << 16
REPEATS = 2
CALLS = 20_000
REMEMBERED = 4096  # bytes that a rank saves of its own, as many as SelectiveBackprop does
ROOM = 2 << 30  # bytes of memory to leave to others
KINDS = {"plain": (5, 4), "classes": (14, 13)}
"""Of the history of samples, without and with classes: how many columns there are, and how many an epoch changes."""
NETWORKS = {"10 Gbit/s": (1.25e9, 30e-6), "100 Gbit/s": (12.5e9, 10e-6)}
"""Bytes a second into a machine, and seconds from one rank to the next."""
DISK = 1e9  # bytes a second that the first rank writes
SCALES = [(8, 10**7), (64, 10**7), (64, 10**8), (1024, 10**8), (1024, 10**9)]


@dataclass(frozen=True)
class Point:
    """A number of ranks and of samples.

    Attributes:
        ranks: Number of ranks.
        n: Number of samples.
        kind: One of `KINDS`.
        share: The share of the samples that the epoch trains on.
    """

    ranks: int
    n: int
    kind: str = "plain"
    share: float = 1.0

    @property
    def rows(self) -> float:
        """The number of samples that the epoch trains on."""
        return self.share * self.n

    @property
    def chunks(self) -> int:
        """The number of parts in which samples are merged."""
        return -(-self.n // max(CHUNK, -(-self.n // MOST_CHUNKS)))

    @property
    def state_bytes(self) -> int:
        """The bytes of a sample's columns, of which those that sum are held twice with several ranks, and of marks."""
        n_columns, n_sums = KINDS[self.kind][0], 4 if self.kind == "plain" else 9
        return 4 * n_columns + (4 * n_sums + 2 if self.ranks > 1 else 0)


# ---- the model -------------------------------------------------------------------------------------------------------


def merge_bytes(at: Point) -> float:
    """Return the bytes that a rank sends, and receives, to merge: in a ring each passes on what all others gave.

    A message has room for the rank with the most samples, of a part of the data set.
    """
    n_columns, n_changed = KINDS[at.kind]
    mean = at.rows / at.ranks / at.chunks
    fullest = mean + math.sqrt(2 * mean * (1 - 1 / at.ranks) * math.log(at.ranks))
    return (at.ranks - 1) * at.chunks * ((4 + 4 * n_changed) * fullest + 8 * (3 + n_columns))


WORK: dict[str, Callable[[Point], dict[str, float]]] = {
    "merge": lambda at: {
        "merge": 1.0,
        "sample": float(at.n),
        "value taken in": at.rows * KINDS[at.kind][1],
        "byte received": merge_bytes(at),
        "rank's column": float(at.ranks * KINDS[at.kind][1] * at.chunks),
    },
    "choose": lambda at: {"choice": 1.0, "sample": float(at.n), "sample seen": at.rows},
    "order": lambda at: {"order": 1.0, "sample chosen": at.n / 2},
    "checkpoint": lambda at: {"checkpoint": 1.0, "rank": float(at.ranks), "value": float(at.n * KINDS[at.kind][0])},
}
"""The units of work, whose seconds are constants. A checkpoint's are those of the first rank."""


def fitted(part: str, rows: Sequence[Mapping[str, Any]], known: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the seconds of each unit of work, none below 0, by the least squares of relative errors.

    Args:
        part: One of `WORK`.
        rows: What was measured.
        known: The seconds of units that were measured by themselves.
    """
    known = known or {}
    work = [WORK[part](point_of(row)) for row in rows]
    names = [name for name in work[0] if name not in known]
    left = [
        [1 - sum(seconds * units[name] for name, seconds in known.items()) / row[part]]
        for units, row in zip(work, rows, strict=True)
    ]
    while True:
        scaled = [[units[name] / row[part] for name in names] for units, row in zip(work, rows, strict=True)]
        matrix = torch.tensor(scaled, dtype=torch.float64)
        norms = matrix.norm(dim=0)
        found = torch.linalg.lstsq(matrix / norms, torch.tensor(left, dtype=torch.float64), driver="gelsd")
        seconds = dict(zip(names, (found.solution.squeeze(1) / norms).tolist(), strict=True))
        least = min(seconds, key=lambda name: seconds[name])
        if seconds[least] >= 0:
            return {**seconds, **known}
        names.remove(least)


def predicted(part: str, constants: Mapping[str, float], at: Point) -> float:
    """Return the CPU seconds that a part takes a rank."""
    units = WORK[part](at)
    return sum(seconds * units[name] for name, seconds in constants.items())


def extrapolated(constants: Mapping[str, Mapping[str, float]], at: Point) -> dict[str, Any]:
    """Return what ends an epoch of many ranks, and a checkpoint, cost.

    The ring goes through each machine once, so a machine's network carries what one rank receives.
    """
    cpu = {part: predicted(part, constants[part], at) for part in ("merge", "choose", "order")}
    received = merge_bytes(at)
    # what classes there are, the facts of all parts, and each part; then counts, and whether the data has changed
    waits = at.chunks + 6
    network = {
        name: received / bandwidth + waits * (at.ranks - 1) * latency for name, (bandwidth, latency) in NETWORKS.items()
    }
    boundary = {name: sum(cpu.values()) + seconds for name, seconds in network.items()}
    saved = 4 * KINDS[at.kind][0] * at.n
    return {
        **asdict(at),
        "received_bytes": received,
        "state_bytes": at.state_bytes * at.n,
        "cpu_seconds": cpu,
        "network_seconds": network,
        "boundary_seconds": boundary,
        # an epoch takes a rank rows / ranks of these; the boundary is then a hundredth
        "seconds_a_sample_for_one_percent": {name: 100 * each * at.ranks / at.rows for name, each in boundary.items()},
        "checkpoint_bytes": saved,
        "checkpoint_seconds": predicted("checkpoint", constants["checkpoint"], at) + saved / DISK,
    }


def point_of(row: Mapping[str, Any]) -> Point:
    """Return the point that a row was measured at."""
    return Point(row["ranks"], row["n"], row["kind"], row["share"])


def taking_in() -> float:
    """Return the CPU seconds in which a rank takes in a column of another one, whatever the number of samples."""
    shared = Shared(torch.zeros(CHUNK), "sum")
    rows, values = torch.arange(8), torch.ones(8)
    begun = time.process_time()
    for _ in range(CALLS):
        shared.take_in(rows, values)
    return (time.process_time() - begun) / CALLS


# ---- measuring -------------------------------------------------------------------------------------------------------


class Remembering(InfoBatch):
    """InfoBatch that saves a few numbers of each rank besides."""

    def rank_state(self) -> dict[str, Any]:
        """Return them."""
        return {"remembered": torch.zeros(REMEMBERED // 4)}


def measure(at: Point) -> dict[str, Any]:
    """Take ``at.ranks`` processes through an epoch, what ends it, and a checkpoint."""
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_rank, args=(rank, at, folder)) for rank in range(at.ranks)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise RuntimeError(f"A rank of {at} failed: its traceback is above.")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(at.ranks)]
    mean = {name: sum(each[name] for each in found) / at.ranks for name in found[0]}
    # what the first rank alone does
    return {**asdict(at), **mean, "checkpoint": found[0]["checkpoint"]}


def _rank(rank: int, at: Point, folder: str) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # or each collection would copy what was imported before the fork
    if at.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=at.ranks)
    one = _Rank(rank, at)
    rounds = [one.epoch(turn) for turn in range(REPEATS)]
    found = {name: min(each[name] for each in rounds) for name in rounds[0]}
    found |= {name: rounds[-1][name] for name in found if name.endswith("_sent")}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    if at.ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


class _Rank:
    """One rank of a fit that has no model: losses and logits are random numbers."""

    def __init__(self, rank: int, at: Point) -> None:
        self._at = at
        self._selector = Remembering(prune_ratio=0.5)
        self._run = run = self._selector.run_state
        run.rank = rank
        run.open(self._selector, at.n, world_size=at.ranks, epoch=0)
        self._sampler = SelectionSampler(at.n, shuffle=True, num_replicas=at.ranks, rank=rank)
        self._generator = torch.Generator().manual_seed(rank)

    def epoch(self, turn: int) -> dict[str, float]:
        """Go through an epoch and what follows; return CPU seconds, and bytes sent, by part."""
        at, run, selector = self._at, self._run, self._selector
        share = torch.arange(turn % round(1 / at.share), at.n, round(1 / at.share))
        self._sampler.plan = EpochPlan(turn, share)
        samples = iter(self._sampler)
        steps, rest = self._batches(samples, BATCH), self._batches(samples, FILL)
        shown = [self._observation(batch, turn) for batch in islice(steps, STEPS)]
        found = self._measured("step", lambda: [self._step(each) for each in shown])
        found["step"] /= max(len(shown), 1)
        for batch in rest:
            self._step(self._observation(batch, turn))
        found |= self._measured("merge", lambda: run.store.end_epoch(share))
        scores, generator = run.store.column("score"), epoch_generator(0, turn, "select")
        chosen: list[Any] = []
        found |= self._measured("choose", lambda: chosen.append(selector.select(1, scores, generator)))
        self._sampler.plan = EpochPlan(turn + 1, chosen[0].indices[: at.n // 2], None)
        found |= self._measured("order", lambda: next(iter(self._sampler)))
        checkpoint: dict[str, Any] = {"callbacks": {selector.state_key: selector.state_dict()}}
        found |= self._measured("checkpoint", lambda: self._save(checkpoint))
        return found

    def _save(self, checkpoint: dict[str, Any]) -> None:
        if self._at.ranks > 1:
            self._selector.on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
        else:  # whose state Lightning has asked for before
            self._selector.state_dict()

    def _batches(self, samples: Iterator[int], size: int) -> Iterator[Tensor]:
        while batch := list(islice(samples, size)):
            yield torch.tensor(batch)

    def _observation(self, batch: Tensor, turn: int) -> Observation:
        losses = torch.rand(len(batch), generator=self._generator)
        if self._at.kind == "plain":
            return Observation(batch, losses, None, None, turn)
        logits = torch.randn(len(batch), 10, generator=self._generator)
        return Observation(batch, losses, logits, batch % 10, turn)

    def _step(self, seen: Observation) -> None:
        record(self._run, seen, self._selector)
        count_trained(self._run, seen.indices)

    def _measured(self, part: str, do: Callable[[], object]) -> dict[str, float]:
        gc.collect()
        if self._at.ranks > 1:
            dist.barrier()
        sent, begun = _sent(), time.process_time()
        do()
        return {part: time.process_time() - begun, f"{part}_sent": float(_sent() - sent)}


def _sent() -> int:
    """Return the bytes that this process has handed to its sockets, on Linux: it writes no files meanwhile."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


# ---- the study -------------------------------------------------------------------------------------------------------


def points(quick: bool) -> list[Point]:
    """Return what is measured, with the fewest samples first."""
    ranks, sizes = ((1, 2), (10**4, 10**5)) if quick else ((1, 2, 4, 8, 16), (10**5, 10**6, 10**7))
    plain = [Point(r, n) for n in sizes for r in ranks]
    classes = [Point(r, n, "classes") for n in sizes[:2] for r in ranks]
    halves = [Point(r, sizes[1], "plain", 0.5) for r in ranks]
    return sorted([*plain, *classes, *halves], key=lambda at: at.n)


def is_fitted_on(row: Mapping[str, Any], quick: bool) -> bool:
    """Return whether the constants are fitted on a row, or are to predict it."""
    return quick or (row["ranks"] <= FIT_RANKS and row["n"] <= FIT_SAMPLES)


def study(rows: list[dict[str, Any]], call_seconds: float, quick: bool) -> dict[str, Any]:
    """Return the constants, each row beside what they predict, and what comes at more ranks and samples."""
    known = [row for row in rows if is_fitted_on(row, quick)]
    constants = {part: fitted(part, known) for part in WORK if part != "merge"}
    several = [row for row in known if row["ranks"] > 1]
    # few ranks do not show what each costs
    constants["merge"] = fitted("merge", several, {"rank's column": call_seconds})
    for row in rows:
        at = point_of(row)
        row["predicted"] = {part: predicted(part, constants[part], at) for part in WORK if part != "merge"}
        if at.ranks > 1:  # one rank has nothing to merge
            row["predicted"] |= {"merge": predicted("merge", constants["merge"], at), "merge_sent": merge_bytes(at)}
    scales = [extrapolated(constants, Point(ranks, n, kind)) for ranks, n in SCALES for kind in KINDS]
    return {"constants": constants, "results": rows, "extrapolated": scales}


def measured(quick: bool) -> Iterator[dict[str, Any]]:
    """Measure every point that there is memory for, and yield what was found; the others with nothing but the point."""
    for at in points(quick):
        needed = at.ranks * at.n * (at.state_bytes + 60) + ROOM  # and the buffers, plans and orders of a boundary
        if needed > _available():
            print(f"{at} is left out: it takes {needed / 2**30:.1f} GiB of memory", flush=True)
            yield asdict(at)
            continue
        row = measure(at)
        print(
            f"{at.ranks:>2} ranks  N={at.n:>10,}  {at.kind:<7} {at.share:.0%}  merge {row['merge']:8.4f} s,"
            f" {row['merge_sent'] / 1e6:8.2f} MB  choose {row['choose']:7.4f} s  order {row['order']:7.4f} s"
            f"  checkpoint {row['checkpoint']:7.4f} s  step {row['step'] * 1e6:5.0f} us",
            flush=True,
        )
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two ranks, few samples, seconds: shows that it runs")
    parser.add_argument("--collect", action="store_true", help="fit anew what was measured, and measure nothing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rank_scale.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.collect:
        content = json.loads(args.out.read_text())
    else:
        content = {"quick": args.quick, "environment": environment(), "left_out": [], "results": []}
        for row in measured(args.quick):
            content["results" if "merge" in row else "left_out"].append(row)
            write_json(args.out, content)
    content.setdefault("call_seconds", taking_in())
    found = study(content["results"], content["call_seconds"], content["quick"])
    write_json(args.out, content | found)
    print("\npredicted / measured")
    for row in found["results"]:
        ratios = [f"{name} {value / row[name]:5.2f}" for name, value in row["predicted"].items()]
        held = "fitted" if is_fitted_on(row, content["quick"]) else "held out"
        print(f"{row['ranks']:>2} ranks  N={row['n']:>10,}  {row['kind']:<7} {held:<8}  {'  '.join(ratios)}")
    print()
    for row in found["extrapolated"]:
        boundary = ", ".join(f"{seconds:.1f} s at {name}" for name, seconds in row["boundary_seconds"].items())
        print(f"{row['ranks']:>5} ranks  N={row['n']:>13,}  {row['kind']:<7}  end of an epoch {boundary}")


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))


if __name__ == "__main__":
    main()
