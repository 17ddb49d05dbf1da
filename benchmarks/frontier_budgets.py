"""Frontier and full data at less than half of the compute, where labels are wrong: what fewer epochs alone do.

    python -m benchmarks.frontier_budgets --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

Tasks, networks and seeds are those of `benchmarks.frontier`. A model that memorizes wrong labels loses by every further
epoch, so that `FewerEpochs(budget=0.25)` may end above `FewerEpochs(budget=0.5)`, and even above
`Frontier(budget=0.5)`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.frontier import FIRST_SEED, run
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import task
from lightning_dataselect import FewerEpochs, Frontier

RESULTS = Path(__file__).parent / "results" / "frontier_budgets.json"
BUDGETS = (0.125, 0.25, 0.5)
TASKS = (
    "image_features_worse",
    "image_features_random1",
    "image_features_aggre",
    "text_features_20",
    "ag_news_20",
    "fashion_20",
    "convolutions_20",
)


def summarize(name: str, budget: float, scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the row of a budget on a task.

    Args:
        name: Of the task.
        budget: Share of the compute of the whole fit.
        scores: For each seed the accuracy of FewerEpochs and that of Frontier, in percent.

    Example:
        >>> row = summarize("fashion_20", 0.25, [(80.0, 81.0), (80.0, 83.0)])
        >>> row["fewer_epochs"], row["frontier"], row["difference"], row["standard_error"]
        (80.0, 82.0, 2.0, 1.0)
    """
    fewer, found = zip(*scores, strict=True)
    gains = [b - a for a, b in scores]
    return {
        "task": name,
        "budget": budget,
        "seeds": len(scores),
        "fewer_epochs": round(fmean(fewer), 3),
        "frontier": round(fmean(found), 3),
        "difference": round(fmean(gains), 3),
        "standard_error": round(stdev(gains) / math.sqrt(len(gains)), 3),
    }


def main() -> None:
    arguments = parser_of(__doc__, RESULTS, TASKS, seeds=5).parse_args()
    rows = Rows(arguments.out, ["task", "budget"])
    for name in arguments.only or TASKS:
        seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
        made = [task(name, seed, arguments.data_dir, arguments.features) for seed in seeds]
        for budget in BUDGETS:
            scores = [
                (
                    run(one, FewerEpochs(budget=budget, seed=seed), seed).score,
                    run(one, Frontier(budget=budget, seed=seed), seed).score,
                )
                for one, seed in zip(made, seeds, strict=True)
            ]
            rows.put(summarize(name, budget, scores))


if __name__ == "__main__":
    main()
