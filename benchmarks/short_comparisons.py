"""How far can a short comparison be trusted? The same methods in less, where the full answer is known.

    python -m benchmarks.short_comparisons --data-dir DIR [--seeds N] [--only SETTING ...] [--out bench-out]

The task is that of `benchmarks.images --only fashion_mnist`: 12,000 images and 8 epochs, of which `results/images.json`
has each method's difference from full data at equal compute over five seeds. Here it is compared again as `--budget`
would: with fewer epochs, with a quarter of the data, with both. DIR holds fashion_mnist/fashion_mnist.npz. The last
setting took two and a half minutes of CPU time; those with more epochs or data take longer in proportion.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.environment import environment, write_json
from benchmarks.images import FASHION_MNIST_EPOCHS, fashion_mnist_config
from benchmarks.rows import summed_up
from lightning_dataselect.comparison.plans.runner import run_all
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.comparison.runs.progress import watching
from lightning_dataselect.comparison.tasks.config_task import ConfigTask
from lightning_dataselect.comparison.tasks.subset import SubsetTask
from lightning_dataselect.comparison.tasks.task import Task

RESULTS = Path(__file__).parent / "results"
# Setting: epochs, and the share of the data.
SETTINGS = {
    "3 epochs": (3, 1.0),
    "8 epochs, a quarter of the data": (8, 0.25),
    "3 epochs, a quarter of the data": (3, 0.25),
}
METHODS = (
    "random(prune_ratio=0.5)",
    "InfoBatch(prune_ratio=0.5)",
    "UCB(prune_ratio=0.5, every_n_epochs=2)",
    "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)",
    "SwiftLearn(prune_ratio=0.5, every_n_epochs=3)",
    "EL2N(prune_ratio=0.5, warmup_epochs=2)",
)


def known() -> dict[str, Any]:
    """Return each method's difference at equal compute in the full task."""
    rows = json.loads((RESULTS / "images.json").read_text())["parts"]["fashion_mnist"]["rows"]
    return {row["label"]: row["vs_short"] for row in rows if row["label"] in METHODS}


def compared(name: str, data_dir: Path, n_seeds: int, out: Path) -> dict[str, Any]:
    """Compare in one setting; return each method's difference at equal compute."""
    epochs, share = SETTINGS[name]
    assert epochs <= FASHION_MNIST_EPOCHS
    task: Task = ConfigTask(fashion_mnist_config(str(data_dir / "fashion_mnist")), epochs)
    task = SubsetTask(task, share) if share < 1 else task
    methods = parse_methods(",".join(["full", "short", *METHODS]))
    folder = out / "short_comparisons" / name.replace(", ", "-").replace(" ", "-")
    settings = Settings(methods, range(n_seeds), 0.5, "val_acc", True, folder, test=True)
    with watching(Console(width=120), True) as watcher:
        outcome = run_all(task, settings, watcher)
    rows = summed_up(outcome, settings, "test_acc", True, "cpu")["rows"]
    return {row["label"]: row["vs_short"] for row in rows if row["label"] in METHODS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument(
        "--out", type=Path, default=Path("bench-out"), help="where finished runs are kept (%(default)s)"
    )
    arguments = parser.parse_args()
    file = RESULTS / "short_comparisons.json"
    found = json.loads(file.read_text())["settings"] if file.exists() else {}
    for name in arguments.only:
        found[name] = compared(name, arguments.data_dir, arguments.seeds, arguments.out)
        write_json(file, {"environment": environment(), "seeds": arguments.seeds, "full": known(), "settings": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
