"""Stress tasks: made to find where an earlier rule of Frontier fails. What they showed led to its last change."""

from __future__ import annotations

import csv
import functools
import gzip
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import make_classification, make_moons
from torch import Tensor, nn

from benchmarks.frontier_tasks import (
    FEATURES,
    Task,
    bag_of_words,
    convolutions,
    flips_in,
    images,
    perceptron,
    regression,
    task,
    texts,
    with_flips,
)

N_CHARACTERS, CONTEXT = 65, 24
TITLES = {
    "small": "Fashion-MNIST, convolutions, 1,000 images, 60 epochs",
    "merged": "Fashion-MNIST, convolutions, half of the shirts labelled T-shirts",
    "turned": "Fashion-MNIST, convolutions, a tenth of the images turned",
    "unsure": "Fashion-MNIST, convolutions, 25 % wrong where a linear model is unsure",
    "unsure_perceptron": "Fashion-MNIST, perceptron, 25 % wrong where a linear model is unsure",
    "attention": "Fashion-MNIST, vision Transformer",
    "attention_20": "Fashion-MNIST, vision Transformer, 20 % of labels flipped",
    "norms": "CIFAR-10, convolutions with batch norm",
    "norms_20": "CIFAR-10, convolutions with batch norm, 20 % of labels flipped",
    "norms_random1": "CIFAR-10, convolutions with batch norm, 17 % wrong by people",
    "norms_worse": "CIFAR-10, convolutions with batch norm, 40 % wrong by people",
    "norms_imbalanced": "CIFAR-10, convolutions with batch norm, classes 100 to 1",
    "linear": "CIFAR-10, pretrained features, linear",
    "linear_worse": "CIFAR-10, pretrained features, linear, 40 % wrong by people",
    "dropout_random1": "CIFAR-10, pretrained features, batch norm and dropout, 17 % wrong by people",
    "recurrent": "AG News, GRU",
    "windows": "AG News, 1-D convolutions",
    "windows_20": "AG News, 1-D convolutions, 20 % of labels flipped",
    "sentiment": "SST-2, bag of words",
    "sentiment_windows": "SST-2, 1-D convolutions",
    "characters": "tinyshakespeare, the next character, perceptron",
    "one_logit": "Adult, perceptron of one output",
    "informative": "made up, perceptron, six clusters",
    "informative_20": "made up, perceptron, six clusters, 20 % of labels flipped",
    "clusters": "made up, perceptron, six classes of four clusters",
    "clusters_20": "made up, perceptron, six classes of four clusters, 20 % of labels flipped",
    "moons": "made up, perceptron, two moons that overlap",
    "parity": "made up, perceptron, a chessboard in three dimensions",
    "huber": "regression, heavy tails, Huber loss",
    "autoencoder": "Fashion-MNIST, autoencoder",
}


@dataclass
class StressTask(Task):
    """A task with a recipe of its own.

    Attributes:
        loss: Of the network's outputs and the targets; None for the one of every task.
        recipe: AdamW with OneCycle, AdamW with a linear warm-up and decay, or SGD with momentum and a cosine.
    """

    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    recipe: Literal["onecycle", "linear", "sgd"] = "onecycle"


class Attention(nn.Module):
    """A Transformer of two layers on sixteen patches of an image."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).mT + self.places).mean(1))


class Recurrent(nn.Module):
    """The largest outputs of a GRU over the words of a text."""

    def __init__(self, n_out: int) -> None:
        super().__init__()
        self.words, self.gru = nn.Embedding(8192, 32, padding_idx=0), nn.GRU(32, 48, batch_first=True)
        self.head = nn.Linear(48, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.words(x))[0].amax(1))


class Windows(nn.Module):
    """The largest outputs of a convolution over three words each, with dropout."""

    def __init__(self, n_out: int) -> None:
        super().__init__()
        self.words, self.windows = nn.Embedding(8192, 32, padding_idx=0), nn.Conv1d(32, 64, 3, padding=1)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, n_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.windows(self.words(x).mT).relu().amax(2))


def norms() -> nn.Module:
    """Three convolutions with batch norm, for images of 16 x 16."""

    def layer(n_in: int, n_out: int) -> list[nn.Module]:
        return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]

    pooled = [*layer(3, 24), nn.MaxPool2d(2), *layer(24, 48), nn.MaxPool2d(2), *layer(48, 64), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(64, 10))


def next_character() -> nn.Module:
    return nn.Sequential(nn.Embedding(N_CHARACTERS, 16), perceptron(16 * CONTEXT, N_CHARACTERS))


def with_dropout(n_in: int, width: int, n_out: int, share: float) -> nn.Module:
    layers = [nn.Linear(n_in, width), nn.ReLU(), nn.Dropout(share), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(share), nn.Linear(width, n_out))


def regularized_head() -> nn.Module:
    hidden = nn.Sequential(nn.BatchNorm1d(1280), nn.Dropout(0.3), nn.Linear(1280, 512), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(hidden, nn.Linear(512, 10))


def wrong_where_unsure(x: Tensor, y: Tensor, share: float) -> Tensor:
    """Return labels of which a share is the likeliest other class of a linear model, mostly where it is unsure."""
    x = x.flatten(1)
    model = nn.Linear(x.shape[1], 10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):
        for chosen in torch.randperm(len(x)).split(256):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    with torch.no_grad():
        likely = model(x).log_softmax(1).scatter(1, y[:, None], -torch.inf)
    highest, other = likely.max(1)
    noise = torch.distributions.Gumbel(0.0, 1.0).sample(highest.shape)
    wrong = (highest + noise).topk(int(share * len(y))).indices
    return y.scatter(0, wrong, other[wrong])


@functools.cache
def _sentences(path: str) -> tuple[Tensor, Tensor]:
    """Return the first 32 words of each sentence of more than three, hashed to 1 .. 8191, and the labels."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [row for row in rows if len(row["sentence"].split()) > 3]
    words = torch.zeros(len(rows), 32, dtype=torch.long)
    for place, row in enumerate(rows):
        found = re.findall(r"[a-z0-9']+", row["sentence"].lower())[:32]
        words[place, : len(found)] = torch.tensor([1 + zlib.crc32(word.encode()) % 8191 for word in found])
    return words, torch.tensor([int(row["label"]) for row in rows])


def _characters(path: str, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return sequences of characters, and the character that comes next."""
    with gzip.open(path, "rt") as file:
        text = file.read()
    number = {character: place for place, character in enumerate(sorted(set(text)))}
    assert len(number) == N_CHARACTERS
    numbers = torch.tensor([number[character] for character in text])
    starts = rng.permutation(len(numbers) - CONTEXT)[:n]
    rows = torch.stack([numbers[start : start + CONTEXT + 1] for start in starts])
    return rows[:, :CONTEXT], rows[:, CONTEXT]


def _on_fashion_mnist(kind: str, data_dir: str, rng: np.random.Generator) -> StressTask:
    pool = nn.AvgPool2d(2)
    (x, y), (x_test, y_test) = images("fashion_mnist", data_dir, 1_000 if kind == "small" else 12_000, rng, "")
    if kind == "attention":
        return StressTask((x, y), (x_test, y_test), Attention, 12, lr=3e-3)
    if kind == "autoencoder":
        small, small_test = (pool(some).flatten(1) for some in (x[:6_000], x_test[:3_000]))
        return StressTask((small, small), (small_test, small_test), lambda: perceptron(196, 196, 64), 12)
    if kind.startswith("unsure"):
        y = wrong_where_unsure(x, y, 0.25)
    if kind == "unsure_perceptron":
        return StressTask((x, y), (x_test, y_test), lambda: perceptron(784, 10), 20)
    if kind == "merged":
        y = torch.where((y == 6) & torch.from_numpy(rng.random(len(y)) < 0.5), 0, y)
    if kind == "turned":
        is_turned, is_test_turned = (torch.from_numpy(rng.random(len(some)) < 0.1) for some in (x, x_test))
        x = torch.where(is_turned[:, None, None, None], x.rot90(1, (2, 3)), x)
        x_test = torch.where(is_test_turned[:, None, None, None], x_test.rot90(1, (2, 3)), x_test)
    epochs, batch_size = {"small": (60, 32), "unsure": (20, 128)}.get(kind, (16, 128))
    data = (pool(x), y), (pool(x_test), y_test)
    return StressTask(*data, lambda: convolutions(10), epochs, lr=4e-3, batch_size=batch_size)


def _on_texts(kind: str, data_dir: str, rng: np.random.Generator) -> StressTask:
    if kind == "characters":
        rows, following = _characters(f"{data_dir}/tinyshakespeare/input.txt.gz", 24_000, rng)
        halves = (rows[:16_000], following[:16_000]), (rows[16_000:], following[16_000:])
        return StressTask(*halves, next_character, 10, lr=3e-3)
    if kind.startswith("sentiment"):
        words, labels = _sentences(f"{data_dir}/glue/sst2_train.tsv.gz")
        train, test = torch.from_numpy(rng.permutation(len(labels))[:18_000]).split([12_000, 6_000])
        network = Windows if kind == "sentiment_windows" else bag_of_words
        return StressTask((words[train], labels[train]), (words[test], labels[test]), lambda: network(2), 8, lr=4e-3)
    halves = (texts(f"{data_dir}/ag_news/ag_news_{part}.tsv.gz") for part in ("train10k", "test"))
    if kind == "recurrent":
        return StressTask(*halves, lambda: Recurrent(4), 8, lr=4e-3, recipe="linear")
    return StressTask(*halves, lambda: Windows(4), 12, lr=4e-3, recipe="linear")


def _made_up(kind: str, rng: np.random.Generator) -> StressTask:
    seed = int(rng.integers(2**31))
    n_in, n_out, n = {"moons": (2, 2, 6_000), "parity": (6, 2, 12_000)}.get(kind, (30, 6, 12_000))
    if kind == "moons":
        x, y = make_moons(2 * n, noise=0.35, random_state=seed)
        network, epochs = functools.partial(perceptron, 2, 2, 64), 20
    elif kind == "parity":
        x = rng.uniform(-2, 2, size=(n + 4_000, 6))
        y = (np.floor(x[:, :3]).sum(1) % 2).astype(np.int64)
        network, epochs = functools.partial(perceptron, n_in, n_out, 192), 40
    else:
        shape = {"n_features": n_in, "n_informative": 12, "n_redundant": 4, "n_classes": n_out, "flip_y": 0}
        n_clusters = 4 if kind == "clusters" else 1
        x, y = make_classification(n + 8_000, n_clusters_per_class=n_clusters, random_state=seed, **shape)
        network, epochs = functools.partial(with_dropout, n_in, 128, n_out, 0.2), 15
    x_, y_ = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return StressTask((x_[:n], y_[:n]), (x_[n:], y_[n:]), network, epochs, lr=4e-3 if kind == "parity" else 2e-3)


def _binary(outputs: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(1), y.float())


def _huber(outputs: Tensor, y: Tensor) -> Tensor:
    return nn.functional.huber_loss(outputs.squeeze(1), y)


def stress_task(name: str, seed: int, data_dir: str, features: Path = FEATURES) -> StressTask:
    """Make the task of a name, with data and labels drawn by a seed.

    Example:
        >>> made = stress_task("moons", 0, "")
        >>> made.train[0].shape, made.network()(made.test[0]).shape
        (torch.Size([6000, 2]), torch.Size([6000, 2]))
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    base, percent = flips_in(name)
    if percent:
        return with_flips(stress_task(base, seed, data_dir, features), percent, seed)
    kind, _, labels = name.partition("_")
    if kind == "norms":
        (x, y), (x_test, y_test) = images("cifar10", data_dir, 12_000, rng, labels)
        pool = nn.AvgPool2d(2)
        return StressTask((pool(x), y), (pool(x_test), y_test), norms, 14, recipe="sgd")
    if name in ("linear", "linear_worse", "dropout_random1"):
        known = task(f"image_features_{labels}".removesuffix("_"), seed, data_dir, features)
        if kind == "dropout":
            return StressTask(known.train, known.test, regularized_head, 12, lr=1e-3, recipe="linear")
        return StressTask(known.train, known.test, lambda: nn.Linear(1280, 10), 20, lr=3e-3)
    if name == "one_logit":
        known = task("adult", seed, data_dir)
        n_in = known.train[0].shape[1]
        return StressTask(known.train, known.test, lambda: perceptron(n_in, 1), known.epochs, loss=_binary)
    if name == "huber":
        return StressTask(*regression(rng, 2.2), lambda: perceptron(10, 1), 16, loss=_huber)
    if name in ("recurrent", "windows", "sentiment", "sentiment_windows", "characters"):
        return _on_texts(name, data_dir, rng)
    if name in ("informative", "clusters", "moons", "parity"):
        return _made_up(name, rng)
    return _on_fashion_mnist(name, data_dir, rng)
