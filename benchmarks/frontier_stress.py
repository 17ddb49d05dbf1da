"""Frontier on stress tasks, made to find where its rule fails, by the measure of `benchmarks.frontier`.

    python -m benchmarks.frontier_stress --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

The tasks were written down when an earlier rule was finished: other networks, losses, kinds of wrong labels, few
samples, rare groups, classes that are learnt late or not at all. Every task that was run is in the table. What they
showed led to the last change of the rule, so `benchmarks.frontier_held_out` judges it by others. Five seeds of all take
about an hour of CPU. DIR holds fashion_mnist, cifar10, cifar_n, adult, ag_news, glue and tinyshakespeare.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.frontier import BUDGET, Module, row
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.schedule import linear_with_warmup
from benchmarks.stress_tasks import TITLES, StressTask, stress_task

RESULTS = Path(__file__).parent / "results" / "frontier_stress.json"


class StressModule(Module):
    """A network with the loss and the recipe of its task."""

    def __init__(self, made: StressTask) -> None:
        super().__init__(made)
        self.loss, self.recipe = made.loss, made.recipe

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.loss(self.network(batch[0]), batch[1]) if self.loss else super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        if self.recipe == "onecycle":
            return super().configure_optimizers()
        n_steps = int(self.trainer.estimated_stepping_batches)
        if self.recipe == "linear":
            return linear_with_warmup(torch.optim.AdamW(self.parameters(), self.lr, weight_decay=0.05), n_steps, 0.1)
        optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        schedule = CosineAnnealingLR(optimizer, n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def judge(
    description: str | None,
    results: Path,
    titles: Mapping[str, str],
    task_of: Callable[..., StressTask],
    module_of: Callable[[Any], Module],
) -> None:
    """Run the tasks that the command line asks for, and keep their rows.

    Args:
        description: Of the study.
        results: The file of its rows by default.
        titles: Of its tasks, by their names.
        task_of: Makes one, given its name, a seed, ``data_dir`` and ``features``.
        module_of: Makes its module.
    """
    arguments = parser_of(description, results, list(titles), seeds=5).parse_args()
    rows = Rows(arguments.out, ["task"], budget=BUDGET)
    for name in arguments.only or titles:
        make = partial(task_of, name, data_dir=arguments.data_dir, features=arguments.features)
        rows.put(row(name, make, arguments.seeds, module_of))


def main() -> None:
    judge(__doc__, RESULTS, TITLES, stress_task, StressModule)


if __name__ == "__main__":
    main()
