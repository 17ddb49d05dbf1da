"""Frontier where the learning rate suits the budget: what it gains over full data that somebody has tuned.

    python -m benchmarks.frontier_rates --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

Half of the compute means half of the steps, for which a rate that suits the whole fit may be too low. A selector that
keeps hard samples takes larger steps on them, so some of what it gains over `FewerEpochs(budget=0.5)` can be had by a
higher rate alone. So here the rate of each task of `benchmarks.frontier` is multiplied by whichever of `FACTORS` suits
`FewerEpochs(budget=0.5)` best, on two seeds that are not used again. All methods then run at that rate, to the end of
the same budget. The longest tasks are left out. Five seeds take an hour of CPU.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.frontier import BUDGET, FIRST_SEED, run
from benchmarks.frontier_rivals import TASKS, spend
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import Task, task
from lightning_dataselect import FewerEpochs

RESULTS = Path(__file__).parent / "results" / "frontier_rates.json"
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)
METHODS = ("Frontier", "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)")
_TUNED_ON = (90, 91)


def faster(made: Task, factor: float) -> Task:
    """Return a task whose learning rate is multiplied by a factor."""
    return replace(made, lr=factor * made.lr)


def best_factor(accuracies: Mapping[float, Sequence[float]]) -> float:
    """Return the factor of the highest mean accuracy; of several, the one nearest to the given rate.

    Args:
        accuracies: For each factor those of FewerEpochs, one a seed.

    Example:
        >>> best_factor({0.5: [80.0, 82.0], 1.0: [83.0, 81.0], 2.0: [82.0, 82.0], 4.0: [79.0, 80.0]})
        1.0
    """
    return max(accuracies, key=lambda factor: (fmean(accuracies[factor]), -abs(math.log(factor))))


def summarize(name: str, factor: float, scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the row of a task.

    Args:
        name: Of the task.
        factor: What its rate is multiplied by.
        scores: For FewerEpochs and for each method the accuracies on the same seeds, in percent.

    Example:
        >>> summarize("digits", 2.0, {"FewerEpochs": [80.0, 81.0], "Frontier": [81.0, 84.0]})["gains"]
        {'Frontier': [2.0, 1.0]}
    """
    fewer = scores["FewerEpochs"]
    gains = {}
    for method, found in scores.items():
        if method != "FewerEpochs":
            differences = [b - a for a, b in zip(fewer, found, strict=True)]
            error = stdev(differences) / math.sqrt(len(differences))
            gains[method] = [round(fmean(differences), 3), round(error, 3)]
    return {
        "task": name,
        "seeds": len(fewer),
        "factor": factor,
        "fewer_epochs": round(fmean(fewer), 3),
        "gains": gains,
    }


def main() -> None:
    arguments = parser_of(__doc__, RESULTS, TASKS, seeds=5).parse_args()
    rows = Rows(arguments.out, ["task"], budget=BUDGET)

    def fewer_epochs(made: Task, seed: int) -> float:
        return run(made, FewerEpochs(budget=BUDGET, seed=seed), seed).score

    for name in arguments.only or TASKS:
        tuned: dict[float, list[float]] = {factor: [] for factor in FACTORS}
        for seed in _TUNED_ON:
            made = task(name, seed, arguments.data_dir, arguments.features)
            for factor in FACTORS:
                tuned[factor].append(fewer_epochs(faster(made, factor), seed))
        factor = best_factor(tuned)
        scores: dict[str, list[float]] = {method: [] for method in ("FewerEpochs", *METHODS)}
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            made = faster(task(name, seed, arguments.data_dir, arguments.features), factor)
            scores["FewerEpochs"].append(fewer_epochs(made, seed))
            for method in METHODS:
                scores[method].append(spend(made, method, seed).score)
        rows.put(summarize(name, factor, scores))


if __name__ == "__main__":
    main()
