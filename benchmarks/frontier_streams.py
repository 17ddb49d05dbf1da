"""Frontier on a stream whose samples carry a key, beside its baseline on the same stream, and beside both by index.

    python -m benchmarks.frontier_streams --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

Tasks and networks are those of `benchmarks.frontier`. The stream is an `IterableDataset` that shuffles itself anew in
each pass; its keys are numbers. By index the same samples are read by a loader that shuffles. All spend half of the
compute of the whole fit. Five seeds of all tasks take about twenty minutes of CPU.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.frontier import BUDGET, FIRST_SEED, Module, run
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import Task, task
from lightning_dataselect import FewerEpochs, Frontier

RESULTS = Path(__file__).parent / "results" / "frontier_streams.json"
NAMES = ("fashion", "fashion_20", "fashion_40", "fashion_imbalanced")


class Stream(IterableDataset[tuple[Tensor, Tensor, int]]):
    """Samples with their keys, in a new order in each pass."""

    def __init__(self, x: Tensor, y: Tensor, seed: int) -> None:
        self.x, self.y = x, y
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        for i in self.rng.permutation(len(self.y)).tolist():
            yield self.x[i], self.y[i], i


class Keyed(Module):
    """Takes batches of inputs, classes and keys."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (*super().on_after_batch_transfer(batch[:2], dataloader_idx), batch[2])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch[:2], batch_idx)


def run_on_stream(made: Task, selector: Any, seed: int) -> tuple[float, int, int]:
    """Return the accuracy on the test set in percent, the steps of the fit, and its passes."""
    pl.seed_everything(seed, verbose=False)
    module = Keyed(made)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=made.epochs, callbacks=[selector], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Stream(*made.train, seed), 128))
    module.eval()
    with torch.no_grad():
        out = torch.cat([module.network(x) for x in made.test[0].split(1000)])
    score = 100 * float((out.argmax(1) == made.test[1]).float().mean())
    return score, trainer.global_step, len(selector.history)


def mean_and_error(values: list[float]) -> list[float]:
    return [round(float(np.mean(values)), 3), round(float(np.std(values, ddof=1)) / math.sqrt(len(values)), 3)]


def row(name: str, data_dir: str, n_seeds: int) -> dict[str, Any]:
    """Run a task on every seed; return the row of the table."""
    scores: list[tuple[float, ...]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        made = task(name, seed, data_dir)
        fewer, steps, _ = run_on_stream(made, FewerEpochs(budget=BUDGET, seed=seed), seed)
        selector = Frontier(budget=BUDGET, seed=seed, sample_id=2)
        found, also, n_passes = run_on_stream(made, selector, seed)
        assert abs(steps - also) <= 1, (steps, also)
        indexed = [run(made, method(budget=BUDGET, seed=seed), seed).score for method in (FewerEpochs, Frontier)]
        kinds = [kind for kind in ("learnt", "contradicted") if any(getattr(d, kind) for d in selector.decisions)]
        print(name, seed, fewer, found, indexed, n_passes, "+".join(kinds) or "nothing", flush=True)
        scores.append((fewer, found - fewer, indexed[0], indexed[1] - indexed[0], n_passes))
    fewer_, gain, indexed_, gain_by_index, passes = map(list, zip(*scores, strict=True))
    return {
        "task": name,
        "seeds": n_seeds,
        "fewer_epochs": mean_and_error(fewer_),
        "frontier": mean_and_error(gain),
        "fewer_epochs_by_index": mean_and_error(indexed_),
        "frontier_by_index": mean_and_error(gain_by_index),
        "passes": float(np.mean(passes)),
    }


def main() -> None:
    arguments = parser_of(__doc__, RESULTS, NAMES, seeds=5).parse_args()
    rows = Rows(arguments.out, ["task"], budget=BUDGET)
    for name in arguments.only or NAMES:
        rows.put(row(name, arguments.data_dir, arguments.seeds))


if __name__ == "__main__":
    main()
