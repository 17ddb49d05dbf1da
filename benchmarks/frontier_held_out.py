"""Frontier on held-out tasks, which had no part in its rule, by the measure of `benchmarks.frontier`.

    python -m benchmarks.frontier_held_out --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

The rule was last changed after a look at what came out of `benchmarks.frontier_stress`. These tasks were written down
after that, without a look at the new rule; only `FewerEpochs` was run on them, to see that they can be learnt and take
seconds. Five seeds of all take about twenty minutes of CPU, beyond the features of pretrained networks, which are
measured once and kept (`--features`). DIR holds fashion_mnist, cifar10, cifar_n, adult, ag_news, glue and
tinyshakespeare.
"""

from pathlib import Path
from typing import Any

from benchmarks.frontier_stress import StressModule, judge
from benchmarks.held_out_tasks import TITLES, HeldOutTask, held_out_task

RESULTS = Path(__file__).parent / "results" / "frontier_held_out.json"


class HeldOutModule(StressModule):
    """A network with the loss and the recipe of its task."""

    def __init__(self, made: HeldOutTask) -> None:
        super().__init__(made)
        self.optimizers_of = made.optimizers

    def configure_optimizers(self) -> Any:
        if self.optimizers_of is None:
            return super().configure_optimizers()
        return self.optimizers_of(self.network, self.lr, int(self.trainer.estimated_stepping_batches))


def main() -> None:
    judge(__doc__, RESULTS, TITLES, held_out_task, HeldOutModule)


if __name__ == "__main__":
    main()
