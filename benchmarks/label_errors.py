"""Wrong labels that people gave: who finds them, and at what cost?

    pip install cleanlab
    python -m benchmarks.label_errors --data-dir DIR [--only PART ...] [--seeds N] [--out FILE]

A small network is trained on images of CIFAR-10 with the labels of CIFAR-10N, beside a selector that drops nothing. The
samples are ranked by what the fit itself has shown of them: the last loss, the mean loss, the mean probability of the
label, and the area under the margin, which `selector.suspects()` goes by. Beside them, cleanlab on predictions of the
same network for images that it was not trained on: as many trainings more as there are folds, each on the others.
Two regimes: many images for a few epochs, and few for many, in which the network learns wrong labels by heart.

The figures are the AUROC of each ranking against the labels that are known to be wrong (CIFAR-10's own differ), and the
share of wrong labels among the first n, n being how many are wrong. DIR holds cifar10/cifar10_a.npz, cifar10_b.npz and
cifar_n/cifar10n.npz; --quick takes digits with flipped labels, without DIR. A part takes some minutes on two cores.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.classifier import Classifier
from benchmarks.environment import environment, write_json
from benchmarks.image_data import channels_first, read_arrays
from benchmarks.resident import Resident
from lightning_dataselect import RandomPruning
from lightning_dataselect.report.export import to_frame

# Part: the labels, how many images, epochs.
PARTS = {
    "aggre": ("aggre_label", 8000, 10),
    "random1": ("random_label1", 8000, 10),
    "worse": ("worse_label", 8000, 10),
    "random1_long": ("random_label1", 2500, 32),
    "worse_long": ("worse_label", 2500, 32),
}
FOLDS = 4
RESULTS = Path(__file__).parent / "results" / "label_errors.json"


class Task(NamedTuple):
    """Images with the labels that were given and those that are right."""

    images: Tensor
    given: Tensor
    true: Tensor
    epochs: int
    width: int


def cifar10n(part: str, data_dir: Path, seed: int) -> Task:
    """Return images drawn by the seed, with people's labels."""
    labels, n, epochs = PARTS[part]
    arrays = read_arrays("cifar10", str(data_dir / "cifar10"))
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(arrays["y_train"]))[:n])
    with np.load(data_dir / "cifar_n" / "cifar10n.npz") as people:
        given = torch.from_numpy(people[labels]).long()[chosen]
    images = channels_first(arrays["x_train"])[chosen].float() / 255 - 0.5
    return Task(4 * images, given, torch.from_numpy(arrays["y_train"]).long()[chosen], epochs, 16)


def digits(seed: int) -> Task:
    """Return scikit-learn's digits with one label in five flipped."""
    arrays = read_arrays("digits", None)
    images, true = channels_first(arrays["x_train"]).float() / 240, torch.from_numpy(arrays["y_train"]).long()
    rng = np.random.default_rng(seed)
    wrong = torch.from_numpy(rng.permutation(len(true))[: len(true) // 5])
    given = true.clone()
    given[wrong] = (given[wrong] + torch.from_numpy(rng.integers(1, 10, len(wrong)))) % 10
    return Task(images, given, true, 5, 8)


def trained(task: Task, chosen: Tensor, seed: int, *callbacks: pl.Callback) -> Classifier:
    """Return a network trained on the samples ``chosen``, int64 (n,)."""
    pl.seed_everything(seed, verbose=False)
    module = Classifier("small_cnn", task.images.shape[1], 10, 0.01, "adamw", width=task.width)
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_epochs=task.epochs, callbacks=list(callbacks), logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, Resident(task.images[chosen], task.given[chosen]).loader(128, shuffle=True))
    return module.eval()


def held_out(task: Task, seed: int) -> np.ndarray:
    """Return the probabilities, (N, 10), that networks give which were not trained on a sample."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(task.given)))
    probabilities = np.zeros((len(order), 10))
    for fold in order.chunk(FOLDS):
        others = torch.ones(len(order), dtype=torch.bool).index_fill(0, fold, False).nonzero()[:, 0]
        module = trained(task, others, seed)
        with torch.no_grad():
            probabilities[fold] = torch.cat([module(part).softmax(1) for part in task.images[fold].split(1000)])
    return probabilities


def row(part: str, task: Task, seed: int) -> dict[str, Any]:
    """Rank the samples of a task in every way; return the row of the table."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    watcher = RandomPruning(prune_ratio=0, log=False)
    trained(task, torch.arange(len(task.given)), seed, watcher)
    frame = to_frame(watcher.store, watcher.selected)
    probabilities, given = held_out(task, seed), task.given.numpy()
    rankings = {
        "last loss": frame["loss"],
        "mean loss": frame["mean_loss"],
        "mean confidence": -frame["confidence"],
        "suspects": frame["suspicion"],
        "cleanlab": 1 - get_label_quality_scores(given, probabilities),
        "cleanlab, adjusted": 1 - get_label_quality_scores(given, probabilities, adjust_pred_probs=True),
    }
    wrong = (task.given != task.true).numpy()
    issues = find_label_issues(given, probabilities)
    n = int(wrong.sum())
    order = {key: np.argsort(-np.asarray(values), kind="stable")[:n] for key, values in rankings.items()}
    taken_for = frame["predicted"].to_numpy(dtype=int)[order["suspects"]]
    return {
        "part": part,
        "seed": seed,
        "n": len(given),
        "epochs": task.epochs,
        "wrong": round(float(wrong.mean()), 4),
        "auroc": {key: round(float(roc_auc_score(wrong, values)), 4) for key, values in rankings.items()},
        "wrong_among_first": {key: round(float(wrong[first].mean()), 4) for key, first in order.items()},
        "confident_learning": {"called": int(issues.sum()), "wrong": round(float(wrong[issues].mean()), 4)},
        "first_suspects_taken_for_the_right_class": round(
            float((taken_for == task.true.numpy()[order["suspects"]]).mean()), 4
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON; rows of other parts and seeds stay in it")
    parser.add_argument("--quick", action="store_true", help="digits, some seconds; its figures mean nothing")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if arguments.quick:
        print(row("digits", digits(0), 0))
        return 0
    if arguments.data_dir is None:
        parser.error("--data-dir is needed for cifar10 and cifar_n; --quick does without.")
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for part in arguments.only:
            found = row(part, cifar10n(part, arguments.data_dir, seed), seed)
            print(found, flush=True)
            known = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
            rows = [each for each in known if (each["part"], each["seed"]) != (part, seed)] + [found]
            rows.sort(key=lambda each: (list(PARTS).index(each["part"]), each["seed"]))
            write_json(arguments.out, {"environment": environment("cleanlab"), "folds": FOLDS, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
