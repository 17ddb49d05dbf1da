"""Frontier against its baseline: the same budget spent on everything for fewer epochs, the schedule fitted to it.

    python -m benchmarks.frontier --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

All are the package's callbacks in a Lightning fit, on the same seeds: `Frontier(budget=0.5)` beside
`FewerEpochs(budget=0.5)`, and beside `FewerEpochs(budget=1)`, the whole fit. Between these two the score of full data
is taken to rise evenly with every doubling of compute; what full data would have needed to reach the score of Frontier,
beyond what Frontier spent, is *saved*, and *spent* is the share of the budget that Frontier used, as it may stop early;
from the same line comes the difference at equal CPU time. Five seeds of all tasks take about an hour of CPU, without
the residual networks, whose whole fit takes ten minutes. DIR holds fashion_mnist, cifar10, cifar_n, adult and ag_news;
the two regressions are made up. Features of pretrained networks, for the tasks on them, are measured once and kept
(`--features`).

All tasks but the residual networks and `convolutions_60k` were looked at, with other seeds or these, while the rule and
its thresholds were made.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import NAMES, Task, task
from benchmarks.image_data import augment
from benchmarks.resident import Resident
from lightning_dataselect import FewerEpochs, Frontier

BUDGET, FIRST_SEED = 0.5, 100
RESULTS = Path(__file__).parent / "results" / "frontier.json"


class Module(pl.LightningModule):
    """A network with the loss that fits its targets, and a schedule over the whole fit."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network, self.lr, self.augments = task.network(), task.lr, task.augments

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        x, y = batch
        return (augment(x, flip=True, crop=4, cutout=0), y) if self.augments else batch

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if y.is_floating_point():
            return nn.functional.mse_loss(self.network(x).squeeze(1), y)
        return nn.functional.cross_entropy(self.network(x), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=0.01)
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@dataclass
class Run:
    """A finished fit.

    Attributes:
        score: Accuracy on the test set in percent, or the mean squared error times 100.
        compute: In samples trained on, of which a forward pass alone is a third.
        seconds: Of CPU.
        left_out: The kinds of samples that were left out.
        log_loss: Mean cross entropy on the test set; NaN in regression.
    """

    score: float
    compute: float
    seconds: float
    left_out: str = ""
    log_loss: float = math.nan


def run(made: Task, selector: Any, seed: int, module_of: Callable[[Any], Module] = Module) -> Run:
    pl.seed_everything(seed, verbose=False)
    module = module_of(made)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=made.epochs, callbacks=[selector], precision=made.precision, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    began = time.process_time()
    trainer.fit(module, Resident(*made.train).loader(made.batch_size, shuffle=True))
    seconds = time.process_time() - began
    module.eval()
    with torch.no_grad():
        out = torch.cat([module.network(x) for x in made.test[0].split(1000)])
    y, log_loss = made.test[1], math.nan
    if y.is_floating_point():
        score = 100 * float((out.squeeze(1) - y).square().mean())
    else:
        if out.shape[1] == 1:  # of one class against the other
            out = torch.cat([torch.zeros_like(out), out], dim=1)
        score, log_loss = 100 * float((out.argmax(1) == y).float().mean()), float(nn.functional.cross_entropy(out, y))
    decisions = getattr(selector, "decisions", [])
    kinds = [kind for kind in ("learnt", "contradicted") if any(getattr(made_, kind) for made_ in decisions)]
    compute = sum(record["n_forward"] + 2 * record["n_backward"] for record in selector.history) / 3
    return Run(score, compute, seconds, "+".join(kinds) or "nothing", log_loss)


def saved_share(gains: np.ndarray, rises: np.ndarray, spent: np.ndarray) -> float:
    """Return the share of full data's compute that was saved to reach the same score.

    Args:
        gains: (n,), what each seed gained over full data with the whole budget.
        rises: (n,), what each seed's full data gained by twice the budget.
        spent: (n,), the share of the budget that each seed spent.

    Returns:
        ``1 - mean(spent) 2 ** -(mean gain / mean rise)``, as the score rises evenly with the logarithm of compute.

    Example:
        >>> float(saved_share(np.array([1.0, 1.0]), np.array([1.0, 1.0]), np.array([1.0, 0.5])))
        0.625
    """
    return 1 - spent.mean() * 2 ** -(gains.mean() / rises.mean())


def summarize(name: str, runs: list[tuple[Run, Run, Run]], *, lower_is_better: bool) -> dict[str, Any]:
    """Return the row of a task.

    Args:
        name: Of the task.
        runs: For each seed FewerEpochs and Frontier at the budget, and the whole fit.
        lower_is_better: Whether the score is an error.

    Example:
        >>> fits = [(Run(80 + seed, 50, 1.0), Run(81 + 2 * seed, 50, 2.0), Run(82 + seed, 100, 2.0)) for seed in (0, 1)]
        >>> row = summarize("digits", fits, lower_is_better=False)
        >>> row["difference"], row["saved"], row["at_equal_time"]
        (1.5, 0.405, -0.5)
    """
    n = len(runs)
    fewer, found, whole = (np.array([one.score for one in some]) for some in zip(*runs, strict=True))
    sign = -1 if lower_is_better else 1
    gains, rises = sign * (found - fewer), sign * (whole - fewer)
    spent = np.array([b.compute / a.compute for a, b, _ in runs])
    saved = saved_share(gains, rises, spent)
    jackknife = np.array([saved_share(*(np.delete(each, seed) for each in (gains, rises, spent))) for seed in range(n)])
    rises_for_sure = rises.mean() > 2 * rises.std(ddof=1) / math.sqrt(n)
    cpu_time = float(np.median([b.seconds / a.seconds for a, b, _ in runs]))
    # what full data would have gained in the time beyond its own; nobody goes on where that loses
    further = rises * math.log2(cpu_time) if rises.mean() > 0 else np.zeros(n)
    in_time = gains - further
    log_losses = np.array([[one.log_loss for one in run[:2]] for run in runs])
    rise = log_losses[:, 1] - log_losses[:, 0]
    row = {
        "task": name,
        "lower_is_better": lower_is_better,
        "seeds": n,
        "fewer_epochs": round(float(fewer.mean()), 3),
        "whole_fit": round(float(whole.mean()), 3),
        "difference": round(float((found - fewer).mean()), 3),
        "standard_error": round(float(gains.std(ddof=1)) / math.sqrt(n), 3),
        "spent": round(float(spent.mean()), 3),
        "saved": round(float(saved), 3) if rises_for_sure else None,
        "saved_error": round(math.sqrt(n - 1) * float(jackknife.std()), 3) if rises_for_sure else None,
        "cpu_time": round(cpu_time, 3),
        "at_equal_time": round(sign * float(in_time.mean()), 3),
        "at_equal_time_error": round(float(in_time.std(ddof=1)) / math.sqrt(n), 3),
        "left_out": ", ".join(sorted({one.left_out for _, one, _ in runs})),
    }
    if not lower_is_better:
        row["log_loss"] = round(float(log_losses[:, 0].mean()), 4)
        row["log_loss_rise"] = round(float(rise.mean()), 4)
        row["log_loss_error"] = round(float(rise.std(ddof=1)) / math.sqrt(n), 4)
    return row


def row(
    name: str, task_of: Callable[[int], Task], n_seeds: int, module_of: Callable[[Any], Module] = Module
) -> dict[str, Any]:
    """Run a task on every seed; return its row."""
    runs: list[tuple[Run, Run, Run]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        made = task_of(seed)
        fewer = run(made, FewerEpochs(budget=BUDGET, seed=seed), seed, module_of)
        found = run(made, Frontier(budget=BUDGET, seed=seed), seed, module_of)
        assert found.compute <= 1.01 * fewer.compute, (fewer, found)
        runs.append((fewer, found, run(made, FewerEpochs(budget=1.0, seed=seed), seed, module_of)))
    return summarize(name, runs, lower_is_better=made.train[1].is_floating_point())


def main() -> None:
    arguments = parser_of(__doc__, RESULTS, NAMES, seeds=5).parse_args()
    rows = Rows(arguments.out, ["task"], budget=BUDGET)
    for name in arguments.only or NAMES:
        task_of = partial(task, name, data_dir=arguments.data_dir, features=arguments.features)
        rows.put(row(name, task_of, arguments.seeds))


if __name__ == "__main__":
    main()
