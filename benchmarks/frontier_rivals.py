"""Other ways to spend the same budget on the tasks of `benchmarks.frontier`: random, EpsilonGreedy, InfoBatch, batches.

    python -m benchmarks.frontier_rivals --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

Every selector takes `budget=`, so each of these ends with the compute of `FewerEpochs(budget=0.5)`, its schedule
fitted to that: `RandomPruning`, `EpsilonGreedy` and `InfoBatch`, told to drop half of each epoch, and `FewerEpochs`
itself in batches of half the size, since a method that makes batches smaller may gain by that alone. A row is what one
of them gains over `FewerEpochs` on one task, on the same seeds. Three seeds of all tasks take about an hour of CPU.
"""

import argparse
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frontier import BUDGET, FIRST_SEED, Run, run
from benchmarks.frontier_tasks import FEATURES, NAMES, task
from lightning_dataselect import EpsilonGreedy, FewerEpochs, InfoBatch, RandomPruning
from lightning_dataselect.callbacks.selector import DataSelector

RESULTS = Path(__file__).parent / "results" / "frontier_rivals.json"
RIVALS: dict[str, tuple[Callable[[int], DataSelector], int]] = {
    "`RandomPruning(prune_ratio=0.5)`": (lambda seed: RandomPruning(prune_ratio=0.5, budget=BUDGET, seed=seed), 128),
    "`EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)`": (
        lambda seed: EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2, budget=BUDGET, seed=seed),
        128,
    ),
    "`InfoBatch(prune_ratio=0.5)`": (lambda seed: InfoBatch(prune_ratio=0.5, budget=BUDGET, seed=seed), 128),
    "`FewerEpochs`, batches of 64": (lambda seed: FewerEpochs(budget=BUDGET, seed=seed), 64),
}


def gain(name: str, rival: str, runs: list[tuple[Run, Run]], *, lower_is_better: bool) -> dict[str, Any]:
    """Return the row of a rival on a task.

    Args:
        name: Of the task.
        rival: Of the rival.
        runs: For each seed FewerEpochs, and the rival.
        lower_is_better: Whether the score is an error.

    Example:
        >>> fits = [(Run(80 + seed, 50, 1.0), Run(81 + 2 * seed, 50, 2.0)) for seed in (0, 1)]
        >>> row = gain("digits", "random", fits, lower_is_better=False)
        >>> row["difference"], row["standard_error"], row["cpu_time"]
        (1.5, 0.5, 2.0)
    """
    differences = np.array([found.score - fewer.score for fewer, found in runs])
    return {
        "task": name,
        "rival": rival,
        "lower_is_better": lower_is_better,
        "seeds": len(runs),
        "difference": round(float(differences.mean()), 3),
        "standard_error": round(float(differences.std(ddof=1)) / math.sqrt(len(runs)), 3),
        "cpu_time": round(float(np.median([found.seconds / fewer.seconds for fewer, found in runs])), 3),
    }


def rows_of(name: str, data_dir: str, n_seeds: int, features: Path = FEATURES) -> list[dict[str, Any]]:
    """Run a task on every seed; return a row for each rival."""
    runs: dict[str, list[tuple[Run, Run]]] = {rival: [] for rival in RIVALS}
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        made = task(name, seed, data_dir, features)
        fewer = run(made, FewerEpochs(budget=BUDGET, seed=seed), seed)
        for rival, (selector, batch_size) in RIVALS.items():
            found = run(made, selector(seed), seed, batch_size)
            assert abs(found.n_backward - fewer.n_backward) <= 0.02 * fewer.n_backward, (rival, fewer, found)
            runs[rival].append((fewer, found))
    lower_is_better = made.train[1].is_floating_point()
    return [gain(name, rival, some, lower_is_better=lower_is_better) for rival, some in runs.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--features", type=Path, default=FEATURES, help="where features of pretrained networks are kept"
    )
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows: list[dict[str, Any]] = []
    for name in arguments.only:
        made = rows_of(name, arguments.data_dir, arguments.seeds, arguments.features)
        rows += made
        print(*made, sep="\n", flush=True)
        lines = ",\n  ".join(map(json.dumps, rows))
        arguments.out.write_text(f'{{"budget": {BUDGET}, "rows": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
