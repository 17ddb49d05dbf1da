"""The tasks that Frontier is measured on: data, a network, and the epochs of a whole fit."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.image_data import channels_first, read_arrays
from benchmarks.pretrained import Halves, image_features, text_features
from benchmarks.tabular import encoded

FEATURES = Path("bench-out")
_PEOPLE = {"aggre": "aggre_label", "random1": "random_label1", "worse": "worse_label"}


NAMES = (
    "fashion", "fashion_20", "fashion_40", "regression", "fashion_5", "fashion_imbalanced", "fashion_duplicates",
    "cifar10", "adult", "heavy_tails", "convolutions", "convolutions_20", "convolutions_pairs",
    "convolutions_imbalanced", "ag_news", "cifar10_people", "cifar10_people_convolutions", "image_features",
    "image_features_aggre", "image_features_random1", "image_features_worse", "text_features", "text_features_20",
    "digits", "digits_20", "adult_20", "adult_rare", "overlapping", "ag_news_20", "convolutions_60k",
    "convolutions_long", "residual", "residual_worse",
)  # fmt: skip


@dataclass
class Task:
    """Samples to train on and to test on, a network for them, and the epochs of a whole fit.

    Attributes:
        train: Inputs and targets.
        test: The same.
        network: Makes the network.
        epochs: Of a whole fit.
        lr: The highest rate of OneCycle.
        augments: Whether images are flipped and shifted.
        precision: As the Trainer takes it.
        batch_size: Of the loader.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    network: Callable[[], nn.Module]
    epochs: int
    lr: float = 2e-3
    augments: bool = False
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    batch_size: int = 128


_Task = TypeVar("_Task", bound=Task)


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


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.main(x) + self.shortcut(x))


def resnet8(n_out: int, width: int = 16) -> nn.Module:
    """ResNet-8: three residual blocks, for images of 32 x 32."""
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, n_out),
    )  # fmt: skip
    return net.to(memory_format=torch.channels_last)


def bag_of_words(n_out: int) -> nn.Module:
    """Mean embedding of hashed words, which memorizes 10,000 texts within a few epochs."""
    bag = nn.EmbeddingBag(8192, 32, mode="mean", padding_idx=0)
    return nn.Sequential(bag, nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, n_out))


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
    if kind in _PEOPLE:
        with np.load(f"{data_dir}/cifar_n/cifar10n.npz") as people:
            y = torch.from_numpy(people[_PEOPLE[kind]]).long()
    x, y = x[order], y[order]
    if kind.isdigit():
        wrong = torch.from_numpy(rng.permutation(len(y))[: int(len(y) * int(kind) / 100)])
        y[wrong] = (y[wrong] + torch.from_numpy(rng.integers(1, 10, len(wrong)))) % 10
    elif kind == "pairs":  # three in ten of each class are labelled as the next one
        wrong = torch.from_numpy(rng.permutation(len(y))[: int(len(y) * 0.3)])
        y[wrong] = (y[wrong] + 1) % 10
    return (x.float() / 255 - 0.5, y), (test[0].float() / 255 - 0.5, test[1])


def flipped(y: Tensor, percent: int, rng: np.random.Generator) -> Tensor:
    """Return labels of which a share is one of the other classes, drawn evenly."""
    y, n_classes = y.clone(), int(y.max()) + 1
    wrong = torch.from_numpy(rng.random(len(y)) < percent / 100)
    y[wrong] = (y[wrong] + torch.from_numpy(rng.integers(1, n_classes, int(wrong.sum())))) % n_classes
    return y


def flips_in(name: str) -> tuple[str, int]:
    """Return what the end of a task's name, as in `adult_20`, says: the task, and the percentage of flipped labels.

    Example:
        >>> flips_in("adult_20"), flips_in("adult_rare")
        (('adult', 20), ('adult_rare', 0))
    """
    base, _, percent = name.rpartition("_")
    return (base, int(percent)) if percent.isdigit() else (name, 0)


def with_flips(made: _Task, percent: int, seed: int) -> _Task:
    """Return a task of whose training labels a share is one of the other classes, drawn evenly."""
    x, y = made.train
    return dataclasses.replace(made, train=(x, flipped(y, percent, np.random.default_rng(seed))))


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


def overlapping(rng: np.random.Generator) -> tuple[Any, Any]:
    """Return classes that are drawn at random, as a network with one hidden layer says how likely each is."""
    fixed = np.random.default_rng(5)
    inner, outer = fixed.normal(size=(20, 64)), fixed.normal(size=(64, 5))
    x = rng.normal(size=(18000, 20))
    logits = np.tanh(2 * x @ inner / math.sqrt(20)) @ outer / 2
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    x_, y_ = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return (x_[:12000], y_[:12000]), (x_[12000:], y_[12000:])


def with_rare_positives(halves: tuple[Any, Any], share: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return both halves with so few samples of class 1 that they are a share of all."""

    def thin(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rest, rare = (torch.from_numpy(rng.permutation((y == c).nonzero().squeeze(1).numpy())) for c in (0, 1))
        kept = torch.cat([rest, rare[: int(len(rest) * share / (1 - share))]])
        return x[kept], y[kept]

    return thin(*halves[0]), thin(*halves[1])


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
    if name == "overlapping":
        return Task(*overlapping(rng), lambda: perceptron(20, 5), 16)
    if name == "adult_rare":
        made = task("adult", seed, data_dir)
        train, test = with_rare_positives((made.train, made.test), 0.1, rng)
        return dataclasses.replace(made, train=train, test=test)
    base, percent = flips_in(name)
    if percent and base in ("adult", "ag_news"):
        return with_flips(task(base, seed, data_dir), percent, seed)
    if name.startswith("digits"):
        digits = load_digits()
        x, y = torch.tensor(digits.data, dtype=torch.float32) / 16 - 0.5, torch.tensor(digits.target)
        order = torch.from_numpy(rng.permutation(len(y)))
        given = flipped(y, percent, rng) if percent else y
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
        n = 60_000 if kind == "60k" else 12_000
        (x, y), (x_test, y_test) = images("fashion_mnist", data_dir, n, rng, kind)
        epochs = 100 if kind == "long" else 20
        return Task((pool(x), y), (pool(x_test), y_test), lambda: convolutions(10), epochs, lr=4e-3)
    if name.startswith("residual"):
        halves = images("cifar10", data_dir, 50_000, rng, name.partition("_")[2])
        return Task(*halves, lambda: resnet8(10), 16, lr=1e-2, augments=True, precision="bf16-mixed")
    if name.startswith("cifar10"):
        kind, pool = name.partition("_")[2].replace("people", "worse"), nn.AvgPool2d(2)
        (x, y), (x_test, y_test) = images("cifar10", data_dir, 12000, rng, kind.removesuffix("_convolutions"))
        data = (pool(x), y), (pool(x_test), y_test)
        if kind.endswith("_convolutions"):
            return Task(*data, lambda: convolutions(10, channels=3, side=16), 20, lr=3e-3)
        return Task(*data, lambda: perceptron(768, 10, 256), 12)
    kind = name.partition("_")[2]
    epochs = 20 if kind in ("20", "40") else 10
    return Task(*images("fashion_mnist", data_dir, 12000, rng, kind), lambda: perceptron(784, 10), epochs)
