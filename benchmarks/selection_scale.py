"""How long choosing the next epoch takes, and how much memory, as the data set grows.

    python -m benchmarks.selection_scale [--quick] [--out results/selection_scale.json]

Each measurement is a process of its own: the per-sample state is filled, then the next epoch is selected, ordered and
its first batch drawn. Seconds are of that, and bytes a sample are its peak above the state, which is given beside it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment, write_json

METHODS = ("RandomPruning", "InfoBatch", "UCB", "EpsilonGreedy")


def measure(method: str, n: int) -> dict[str, Any]:
    """Choose one epoch of ``n`` samples in this process."""
    import lightning_dataselect
    from lightning_dataselect.sampler import EpochPlan, SelectionSampler
    from lightning_dataselect.seeding import epoch_generator
    from lightning_dataselect.tracking import TrackedStore

    selector = getattr(lightning_dataselect, method)(prune_ratio=0.5)
    sampler = SelectionSampler(1, shuffle=True)
    selector.select(1, torch.rand(1000), epoch_generator(0, 1, "select"))  # imports and thread pools
    empty = _peak_bytes()
    store = TrackedStore(n, selector.columns(), score_is_loss=selector.ranks_by_loss)
    for column in ("loss", "score"):
        store[column].uniform_(generator=torch.Generator().manual_seed(0))
    before = _peak_bytes()
    begun = time.perf_counter()
    chosen = selector.select(1, store.column("score"), epoch_generator(0, 1, "select"))
    selected = time.perf_counter()
    sampler.plan = EpochPlan(1, chosen.indices, chosen.weights)
    order = iter(sampler)
    for _ in range(128):
        next(order)
    done = time.perf_counter()
    return {
        "select_seconds": selected - begun,
        "order_seconds": done - selected,
        "seconds": done - begun,
        "bytes_per_sample": (_peak_bytes() - before) / n,
        "state_bytes_per_sample": (before - empty) / n,
        "kept": chosen.indices.numel(),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to a million samples")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/selection_scale.json"))
    parser.add_argument("--single", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        print(json.dumps(measure(args.single[0], int(args.single[1]))))
        return
    sizes = (10**4, 10**5, 10**6) if args.quick else (10**4, 10**5, 10**6, 10**7, 10**8)
    rows = []
    for n in sizes:
        for method in METHODS:
            command = [sys.executable, "-m", "benchmarks.selection_scale", "--single", method, str(n)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            row = {"method": method, "n": n, **json.loads(out)}
            rows.append(row)
            print(
                f"{method:<15} N={n:>11,}  {row['seconds']:7.2f} s  {row['bytes_per_sample']:6.1f} B/sample", flush=True
            )
    write_json(args.out, {"environment": environment(), "quick": args.quick, "results": rows})


if __name__ == "__main__":
    main()
