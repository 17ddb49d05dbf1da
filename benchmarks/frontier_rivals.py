"""Other ways to spend the same budget on the tasks of `benchmarks.frontier`: other methods, and smaller batches.

    python -m benchmarks.frontier_rivals --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...] [--newer]

Every selector takes `budget=`, so each of these ends with the compute of `FewerEpochs(budget=0.5)`, its schedule
fitted to that: `RandomPruning`, `EpsilonGreedy` and `InfoBatch`, told to drop half of each epoch, and `FewerEpochs`
itself in batches of half the size, since a method that makes batches smaller may gain by that alone. With `--newer` it
is the methods since 2024 and AutoAssist, and the tasks are those on texts. A row is what one of them gains over
`FewerEpochs` on one task, on the same seeds; rows that are in FILE and not measured again stay. Three seeds of the
classifications take an hour of CPU, the newer methods a quarter of one.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frontier import BUDGET, FIRST_SEED, Run, run
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import NAMES, Task, task
from benchmarks.methods import newer
from lightning_dataselect import FewerEpochs
from lightning_dataselect.comparison.plans.spec import parse_methods

RESULTS = Path(__file__).parent / "results" / "frontier_rivals.json"
SMALL_BATCHES = "FewerEpochs, batches of 64"
RIVALS = (
    "RandomPruning(prune_ratio=0.5)",
    "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)",
    "InfoBatch(prune_ratio=0.5)",
    SMALL_BATCHES,
)
NEWER = tuple(text for text in newer(0.5) if not text.startswith("Frontier")) + ("AutoAssist",)
LONG = ("convolutions_60k", "convolutions_long", "residual", "residual_worse")
TASKS = tuple(name for name in NAMES if name not in ("regression", "heavy_tails", *LONG))
TEXTS = ("ag_news", "ag_news_20", "text_features", "text_features_20")


def spend(made: Task, rival: str, seed: int) -> Run:
    """Run a rival to the end of the budget."""
    if rival == SMALL_BATCHES:
        return run(replace(made, batch_size=64), FewerEpochs(budget=BUDGET, seed=seed), seed)
    (spec,) = parse_methods(rival)
    spec = replace(spec, arguments={**spec.arguments, "budget": BUDGET})
    return run(made, spec.build(BUDGET, seed), seed)


def gain(name: str, rival: str, runs: list[tuple[Run, Run]]) -> dict[str, Any]:
    """Return the row of a rival on a task.

    Args:
        name: Of the task.
        rival: Of the rival.
        runs: For each seed FewerEpochs, and the rival.

    Example:
        >>> fits = [(Run(80 + seed, 50, 1.0), Run(81 + 2 * seed, 50, 2.0)) for seed in (0, 1)]
        >>> gain("digits", "random", fits)
        {'task': 'digits', 'rival': 'random', 'difference': 1.5, 'standard_error': 0.5, 'cpu_time': 2.0}
    """
    differences = np.array([found.score - fewer.score for fewer, found in runs])
    return {
        "task": name,
        "rival": rival,
        "difference": round(float(differences.mean()), 2),
        "standard_error": round(float(differences.std(ddof=1)) / math.sqrt(len(runs)), 3),
        "cpu_time": round(float(np.median([found.seconds / fewer.seconds for fewer, found in runs])), 2),
    }


def rows_of(name: str, rivals: tuple[str, ...], data_dir: str, n_seeds: int, features: Path) -> list[dict[str, Any]]:
    """Run a task on every seed; return a row for each rival."""
    runs: dict[str, list[tuple[Run, Run]]] = {rival: [] for rival in rivals}
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        made = task(name, seed, data_dir, features)
        fewer = run(made, FewerEpochs(budget=BUDGET, seed=seed), seed)
        for rival in rivals:
            found = spend(made, rival, seed)
            assert abs(found.compute - fewer.compute) <= 0.02 * fewer.compute, (rival, fewer, found)
            runs[rival].append((fewer, found))
    return [gain(name, rival, some) for rival, some in runs.items()]


def main() -> None:
    parser = parser_of(__doc__, RESULTS, NAMES, seeds=3)
    parser.add_argument("--newer", action="store_true", help="the methods since 2024, and AutoAssist, on texts")
    arguments = parser.parse_args()
    rows = Rows(arguments.out, ["task", "rival"], budget=BUDGET, seeds=arguments.seeds)
    rivals = NEWER if arguments.newer else RIVALS
    for name in arguments.only or (TEXTS if arguments.newer else TASKS):
        rows.put(*rows_of(name, rivals, arguments.data_dir, arguments.seeds, arguments.features))


if __name__ == "__main__":
    main()
