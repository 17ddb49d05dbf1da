"""Ablations of Frontier: each ingredient of the rule left out once.

    python -m benchmarks.ablations --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

Tasks, networks and seeds are those of `benchmarks.frontier`; every row is the difference from Frontier as it is.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.frontier import BUDGET, FIRST_SEED, run
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import FEATURES, NAMES, task
from lightning_dataselect import Frontier
from lightning_dataselect.methods.frontier import (
    Decision,
    Evidence,
    compare_held_back,
    early_stop,
    evidence,
    find_contradicted,
    left_out,
    majorities,
    passes,
    rule,
)

RESULTS = Path(__file__).parent / "results" / "ablations.json"
NEVER = math.inf


def judge_anew(decision: Decision, *columns: Tensor | None) -> Tensor:
    """Find what is contradicted as if the model did not memorize."""
    return find_contradicted(dataclasses.replace(decision, memorizes=False), *columns)


def know_no_shares(labels: Tensor, _: Tensor) -> Tensor:
    """Take the loss of an untrained model for that of every class."""
    return torch.ones(int(labels.max()) + 2)


def compare_last_losses(last: Tensor, _: Tensor, *groups: Tensor) -> Any:
    """Compare held-back samples with the control by their last losses alone."""
    return compare_held_back(last, torch.ones_like(last), *groups)


# What is left out, and the constants of the rule that leave it out.
ABLATIONS: dict[str, list[tuple[Any, str, Any]]] = {
    "learnt samples stay in": [(rule, "_LEARNT_SHARE", NEVER)],
    "contradicted samples stay in": [(rule, "_ABOVE_SHARE", NEVER)],
    "a second mode is not enough": [(evidence, "_RISE", NEVER)],
    "persistence is not enough": [(evidence, "_PERSISTENCE_ALONE", NEVER)],
    "neither is asked for": [(evidence, "_RISE", 0.0), (evidence, "_PERSISTENCE", 0.0)],
    "what stays above L is not checked": [(rule, "_JUDGED_AFTER", (2, 3, 4, NEVER)), (rule, "_PASSES_TO_CHECK", 0)],
    "shares of classes are not asked for": [(passes, "class_priors", know_no_shares)],
    "where few are above L, all of them are taken": [(rule, "_LEVEL_OF_FEW", 1.0)],
    "what was contradicted is judged anew where the model memorizes": [(passes, "find_contradicted", judge_anew)],
    "learnt samples are left out of all passes": [(left_out, "_LEARNT_LEFT_OUT", 1.0)],
    "learnt samples are left out whatever else their class is labelled": [(majorities, "_OVER_ANY_OTHER", 0.0)],
    "no samples are held back: what is learnt goes": [(rule, "_MEMORIZED", NEVER), (Evidence, "generalizes", True)],
    "it never stops early": [(early_stop, "_FEWEST_PASSES", NEVER)],
    "held-back samples are compared without the losses before": [(passes, "compare_held_back", compare_last_losses)],
}
TASKS = (
    "fashion", "fashion_20", "fashion_40", "adult_rare", "overlapping", "ag_news", "ag_news_20", "convolutions",
    "convolutions_20", "convolutions_pairs", "image_features_worse", "text_features_20",
)  # fmt: skip


@contextlib.contextmanager
def without(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Run Frontier with other constants."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def rows_of(name: str, data_dir: str, n_seeds: int, features: Path = FEATURES) -> list[dict[str, Any]]:
    """Return a row for each ablation that changes anything on a task."""
    seeds = range(FIRST_SEED, FIRST_SEED + n_seeds)
    scores: dict[str, list[float]] = {}
    for seed in seeds:
        made = task(name, seed, data_dir, features)
        for part, changes in {"nothing": [], **ABLATIONS}.items():
            with without(changes):
                scores.setdefault(part, []).append(run(made, Frontier(budget=BUDGET, seed=seed), seed).score)
    rows = []
    for part in ABLATIONS:
        lost = np.array(scores[part]) - np.array(scores["nothing"])
        if not lost.any():
            continue
        error = float(lost.std(ddof=1)) / math.sqrt(n_seeds)
        row = {"task": name, "left_out": part, "seeds": n_seeds}
        rows.append(row | {"difference": round(float(lost.mean()), 3), "standard_error": round(error, 3)})
    return rows


def main() -> None:
    arguments = parser_of(__doc__, RESULTS, NAMES, seeds=3).parse_args()
    rows = Rows(arguments.out, ["left_out", "task"], budget=BUDGET)
    for name in arguments.only or TASKS:
        rows.put(*rows_of(name, arguments.data_dir, arguments.seeds, arguments.features))


if __name__ == "__main__":
    main()
