"""Frontier against its baseline: the same budget spent on everything for fewer epochs, the schedule fitted to it.

    python -m benchmarks.frontier --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

All are the package's callbacks in a Lightning fit, on the same seeds: `Frontier(budget=0.5)` beside
`FewerEpochs(budget=0.5)`, and beside `FewerEpochs(budget=1)`, the whole fit. Between these two the score of full data
is taken to rise evenly with every doubling of compute; what full data would have needed to reach the score of Frontier,
beyond what Frontier spent, is *saved*. Small networks: five seeds of all tasks take about an hour of CPU. DIR holds
fashion_mnist, cifar10, cifar_n, adult and ag_news; the two regressions are made up. Features of pretrained networks,
for the tasks on them, are measured once and kept (`--features`).

All tasks but `fashion_duplicates`, `text_features`, `digits`, their likes with labels flipped, `adult_20` and
`ag_news_20` were looked at, with other seeds or these, while the rule and its thresholds were made.
"""

import argparse
import csv
import dataclasses
import functools
import gzip
import json
import logging
import math
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.image_data import channels_first, read_arrays
from benchmarks.pretrained import Halves, image_features, text_features
from benchmarks.resident import Resident
from benchmarks.tabular import encoded
from lightning_dataselect import FewerEpochs, Frontier

BUDGET, FIRST_SEED = 0.5, 100
RESULTS = Path(__file__).parent / "results" / "frontier.json"
FEATURES = Path("bench-out")
_PEOPLE = {"aggre": "aggre_label", "random1": "random_label1", "worse": "worse_label"}


@dataclass
class Task:
    """Samples to train on and to test on, a network for them, and the epochs of a whole fit."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    network: Callable[[], nn.Module]
    epochs: int
    lr: float = 2e-3


def perceptron(n_in: int, n_out: int, width: int = 128) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_out)
    )


def convolutions(n_out: int, channels: int = 1, side: int = 14) -> nn.Module:
    """Two convolutions, for images of ``side`` x ``side``."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, n_out),
    )  # fmt: skip


def head(n_in: int, n_out: int) -> nn.Module:
    """One hidden layer, for features of a pretrained network."""
    return nn.Sequential(nn.Linear(n_in, 256), nn.ReLU(), nn.Linear(256, n_out))


def bag_of_words(n_out: int) -> nn.Module:
    """Mean embedding of hashed words, which memorizes 10,000 texts within a few epochs."""
    bag = nn.EmbeddingBag(8192, 32, mode="mean", padding_idx=0)
    return nn.Sequential(bag, nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, n_out))


class Module(pl.LightningModule):
    """A network with the loss that fits its targets, and a schedule over the whole fit."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network, self.lr = task.network(), task.lr

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


@functools.cache
def _arrays(name: Any, data_dir: str) -> tuple[Tensor, ...]:
    arrays = read_arrays(name, data_dir)
    x, x_test = (channels_first(arrays[part]) for part in ("x_train", "x_test"))
    y, y_test = (torch.from_numpy(arrays[part]).long() for part in ("y_train", "y_test"))
    return x, y, x_test, y_test


def images(name: Any, data_dir: str, n: int, rng: np.random.Generator, kind: str) -> tuple[Any, Any]:
    """Return ``n`` training images with labels of a kind, and the test images with true ones."""
    x, y, *test = _arrays(name, f"{data_dir}/{name}")
    order = torch.from_numpy(rng.permutation(len(y)))
    if kind == "imbalanced":  # the largest class a hundred times the smallest
        kept = [order[y[order] == c][: int(5000 * 0.01 ** (c / 9))] for c in range(10)]
        order = torch.cat(kept)[torch.from_numpy(rng.permutation(sum(map(len, kept))))]
    elif kind == "duplicates":  # half of the samples are copies of a quarter of them
        order = torch.cat([order[: n // 2], order[torch.from_numpy(rng.integers(0, n // 4, n - n // 2))]])
    else:
        order = order[:n]
    if kind == "people":  # 40 % wrong
        with np.load(f"{data_dir}/cifar_n/cifar10n.npz") as people:
            y = torch.from_numpy(people["worse_label"]).long()
    x, y = x[order], y[order]
    if kind.isdigit():
        wrong = torch.from_numpy(rng.permutation(len(y))[: int(len(y) * int(kind) / 100)])
        y[wrong] = (y[wrong] + torch.from_numpy(rng.integers(1, 10, len(wrong)))) % 10
    return (x.float() / 255 - 0.5, y), (test[0].float() / 255 - 0.5, test[1])


def flipped(y: Tensor, percent: int, rng: np.random.Generator) -> Tensor:
    """Return labels of which a share is one of the other classes, drawn evenly."""
    y, n_classes = y.clone(), int(y.max()) + 1
    wrong = torch.from_numpy(rng.random(len(y)) < percent / 100)
    y[wrong] = (y[wrong] + torch.from_numpy(rng.integers(1, n_classes, int(wrong.sum())))) % n_classes
    return y


def on_features(halves: Halves, kind: str, rng: np.random.Generator, data_dir: str) -> tuple[Any, Any]:
    """Return 10,000 training samples with labels of a kind, and the test samples with true ones."""
    (x, y), test = halves
    order = torch.from_numpy(rng.permutation(len(y))[:10_000])
    if kind.isdigit():
        y = flipped(y, int(kind), rng)
    elif kind:
        with np.load(f"{data_dir}/cifar_n/cifar10n.npz") as people:
            y = torch.from_numpy(people[_PEOPLE[kind]][: len(y)]).long()
    return (x[order], y[order]), test


def regression(rng: np.random.Generator, degrees: float) -> tuple[Any, Any]:
    """Return a smooth function of ten features, with noise of Student's t, and without any for testing."""
    fixed = np.random.default_rng(5)
    inner, outer = fixed.normal(size=(10, 16)), fixed.normal(size=16)
    x = rng.normal(size=(16000, 10))
    y = np.tanh(x @ inner / 3) @ outer
    y = (y - y.mean()) / y.std()
    noisy = y[:12000] + 0.3 * rng.standard_t(degrees, 12000)
    x_, y_, noisy_ = (torch.tensor(a, dtype=torch.float32) for a in (x, y, noisy))
    return (x_[:12000], noisy_), (x_[12000:], y_[12000:])


@functools.cache
def texts(path: str) -> tuple[Tensor, Tensor]:
    """Return the first 64 words of each text, hashed to 1 .. 8191, and the labels."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = torch.zeros(len(rows), 64, dtype=torch.long)
    for place, row_ in enumerate(rows):
        found = re.findall(r"[a-z0-9]+", row_["text"].lower())[:64]
        words[place, : len(found)] = torch.tensor([1 + zlib.crc32(word.encode()) % 8191 for word in found])
    return words, torch.tensor([int(row_["label"]) for row_ in rows])


def task(name: str, seed: int, data_dir: str, features: Path = FEATURES) -> Task:
    rng = np.random.default_rng(seed)
    if name.startswith(("image_features", "text_features")):
        measure, n_in, n_out = (image_features, 1280, 10) if name.startswith("image") else (text_features, 384, 4)
        kind = name.partition("features")[2].removeprefix("_")
        halves = on_features(measure(data_dir, features), kind, rng, data_dir)
        return Task(*halves, lambda: head(n_in, n_out), 20, lr=1e-3)
    if name in ("regression", "heavy_tails"):
        return Task(*regression(rng, 2.2 if name == "heavy_tails" else 50), lambda: perceptron(10, 1), 16)
    base, _, percent = name.rpartition("_")
    if base in ("adult", "ag_news"):
        made = task(base, seed, data_dir)
        return dataclasses.replace(made, train=(made.train[0], flipped(made.train[1], int(percent), rng)))
    if name.startswith("digits"):
        digits = load_digits()
        x, y = torch.tensor(digits.data, dtype=torch.float32) / 16 - 0.5, torch.tensor(digits.target)
        order = torch.from_numpy(rng.permutation(len(y)))
        given = flipped(y, int(percent), rng) if base else y
        train, test = order[:1300], order[1300:]
        return Task((x[train], given[train]), (x[test], y[test]), lambda: perceptron(64, 10), 40)
    if name == "adult":
        inputs, classes, n_train = encoded("adult", f"{data_dir}/adult")
        inputs = (inputs - inputs[:n_train].mean(0)) / inputs[:n_train].std(0).clamp(min=1e-3)
        halves = (inputs[:n_train], classes[:n_train]), (inputs[n_train:], classes[n_train:])
        return Task(*halves, lambda: perceptron(inputs.shape[1], 2), 10)
    if name == "ag_news":
        train, test = (texts(f"{data_dir}/ag_news/ag_news_{part}.tsv.gz") for part in ("train10k", "test"))
        return Task(train, test, lambda: bag_of_words(4), 12, lr=1e-2)
    if name.startswith("convolutions"):
        pool, kind = nn.AvgPool2d(2), name.partition("_")[2]
        (x, y), (x_test, y_test) = images("fashion_mnist", data_dir, 12000, rng, kind)
        return Task((pool(x), y), (pool(x_test), y_test), lambda: convolutions(10), 20, lr=4e-3)
    if name.startswith("cifar10"):
        kind, pool = name.partition("_")[2], nn.AvgPool2d(2)
        (x, y), (x_test, y_test) = images("cifar10", data_dir, 12000, rng, kind.removesuffix("_convolutions"))
        data = (pool(x), y), (pool(x_test), y_test)
        if kind.endswith("_convolutions"):
            return Task(*data, lambda: convolutions(10, channels=3, side=16), 20, lr=3e-3)
        return Task(*data, lambda: perceptron(768, 10, 256), 12)
    kind = name.partition("_")[2]
    epochs = 20 if kind in ("20", "40") else 10
    return Task(*images("fashion_mnist", data_dir, 12000, rng, kind), lambda: perceptron(784, 10), epochs)


NAMES = (
    "fashion", "fashion_20", "fashion_40", "regression", "fashion_5", "fashion_imbalanced", "fashion_duplicates",
    "cifar10", "adult", "heavy_tails", "convolutions", "convolutions_20", "convolutions_imbalanced", "ag_news",
    "cifar10_people", "cifar10_people_convolutions", "image_features", "image_features_aggre",
    "image_features_random1", "image_features_worse", "text_features", "text_features_20",
    "digits", "digits_20", "adult_20", "ag_news_20",
)  # fmt: skip


@dataclass
class Run:
    """A finished fit: its score, the samples it back-propagated, its CPU seconds, and the kinds that were left out."""

    score: float  # accuracy on the test set in percent, or the mean squared error times 100
    n_backward: int
    seconds: float
    left_out: str = ""


def run(made: Task, selector: Any, seed: int) -> Run:
    pl.seed_everything(seed, verbose=False)
    module = Module(made)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=made.epochs, callbacks=[selector], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    began = time.process_time()
    trainer.fit(module, Resident(*made.train).loader(128, shuffle=True))
    seconds = time.process_time() - began
    module.eval()
    with torch.no_grad():
        out = torch.cat([module.network(x) for x in made.test[0].split(1000)])
    y = made.test[1]
    if y.is_floating_point():
        score = 100 * float((out.squeeze(1) - y).square().mean())
    else:
        score = 100 * float((out.argmax(1) == y).float().mean())
    decisions = getattr(selector, "decisions", [])
    kinds = [kind for kind in ("learnt", "contradicted") if any(getattr(made_, kind) for made_ in decisions)]
    n_backward = sum(record["n_backward"] for record in selector.history)
    return Run(score, n_backward, seconds, "+".join(kinds) or "nothing")


def saved_share(gains: np.ndarray, rises: np.ndarray) -> float:
    """Return the share of full data's compute that was saved to reach the same score.

    Args:
        gains: (n,), what each seed gained over full data at the same compute.
        rises: (n,), what each seed's full data gained by twice the compute.

    Returns:
        ``1 - 2 ** -(mean gain / mean rise)``, as the score rises evenly with the logarithm of compute.

    Example:
        >>> float(saved_share(np.array([1.0, 1.0]), np.array([1.0, 1.0])))
        0.5
    """
    return 1 - 2 ** -(gains.mean() / rises.mean())


def row(name: str, data_dir: str, n_seeds: int, features: Path = FEATURES) -> dict[str, Any]:
    """Run a task on every seed; return the row of the table."""
    runs: list[tuple[Run, Run, Run]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        made = task(name, seed, data_dir, features)
        fewer = run(made, FewerEpochs(budget=BUDGET, seed=seed), seed)
        found = run(made, Frontier(budget=BUDGET, seed=seed), seed)
        assert abs(found.n_backward - fewer.n_backward) <= 0.01 * fewer.n_backward, (fewer, found)
        runs.append((fewer, found, run(made, FewerEpochs(budget=1.0, seed=seed), seed)))
    lower = made.train[1].is_floating_point()
    fewer, found, whole = (np.array([one.score for one in some]) for some in zip(*runs, strict=True))
    gains, rises = (found - fewer, whole - fewer) if not lower else (fewer - found, fewer - whole)
    left = [np.delete(np.arange(n_seeds), seed) for seed in range(n_seeds)]
    jackknife = np.array([saved_share(gains[some], rises[some]) for some in left])
    rises_for_sure = rises.mean() > 2 * rises.std(ddof=1) / math.sqrt(n_seeds)
    return {
        "task": name,
        "lower_is_better": lower,
        "seeds": n_seeds,
        "fewer_epochs": round(float(fewer.mean()), 3),
        "whole_fit": round(float(whole.mean()), 3),
        "difference": round(float((found - fewer).mean()), 3),
        "standard_error": round(float(gains.std(ddof=1)) / math.sqrt(n_seeds), 3),
        "saved": round(float(saved_share(gains, rises)), 3) if rises_for_sure else None,
        "saved_error": round(math.sqrt(n_seeds - 1) * float(jackknife.std()), 3) if rises_for_sure else None,
        "cpu_time": round(float(np.median([b.seconds / a.seconds for a, b, _ in runs])), 3),
        "left_out": ", ".join(sorted({one.left_out for _, one, _ in runs})),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--features", type=Path, default=FEATURES, help="where features of pretrained networks are kept"
    )
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = []
    for name in arguments.only:
        rows.append(row(name, arguments.data_dir, arguments.seeds, arguments.features))
        print(rows[-1], flush=True)
        lines = ",\n  ".join(map(json.dumps, rows))
        arguments.out.write_text(f'{{"budget": {BUDGET}, "rows": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
