"""Held-out tasks: written down after the last change of Frontier's rule, without a look at it."""

from __future__ import annotations

import dataclasses
import functools
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR

from benchmarks import held_out_task_data as data
from benchmarks.frontier_recipes import focal
from benchmarks.frontier_tasks import (
    FEATURES,
    bag_of_words,
    convolutions,
    flips_in,
    head,
    images,
    perceptron,
    regression,
    task,
    with_flips,
)
from benchmarks.held_out_task_networks import N_CHARACTERS, Characters, Mixer, small_resnet
from benchmarks.pretrained import image_features, pair_features, sentence_features, text_features
from benchmarks.stress_tasks import StressTask, stress_task

LENGTH = 32
TITLES = {
    "sentiment_features": "SST-2, pretrained features",
    "sentiment_features_30": "SST-2, pretrained features, 30 % of labels flipped",
    "topic_features": "AG News, pretrained features, Adam at a constant rate",
    "topic_features_10": "AG News, pretrained features, Adam at a constant rate, 10 % of labels flipped",
    "pairs": "STS-B, pretrained features",
    "image_features_imbalanced": "CIFAR-10, pretrained features, classes 50 to 1",
    "image_features_cats": "CIFAR-10, pretrained features, 40 % of the cats labelled dogs",
    "image_features_few": "CIFAR-10, pretrained features, 2,000 images, SGD in steps",
    "image_features_votes": "CIFAR-10, pretrained features, labels of single people (CIFAR-10H)",
    "augmented": "CIFAR-10, small ResNet, augmented, SGD in steps",
    "mixer": "Fashion-MNIST, MLP-Mixer",
    "shirts": "Fashion-MNIST, convolutions, shirts against the rest",
    "noise_images": "Fashion-MNIST, convolutions, a tenth noise with random labels",
    "repeated": "Fashion-MNIST, perceptron, a tenth of the images twenty times, hinge loss",
    "smoothing": "Fashion-MNIST, perceptron, label smoothing 0.1",
    "smoothing_20": "Fashion-MNIST, perceptron, label smoothing 0.1, 20 % of labels flipped",
    "bag_10": "SST-2, bag of words, 20 epochs, 10 % of labels flipped",
    "next_characters": "tinyshakespeare, every next character, GRU",
    "adult_weights": "Adult, perceptron, balanced by class weights, SGD at a constant rate",
    "adult_focal": "Adult, perceptron, focal loss",
    "adult_missing": "Adult, perceptron, three in ten values missing",
    "spirals": "made up, perceptron, five spirals",
    "checkerboard_10": "made up, perceptron, a board of three colours, 10 % of labels flipped",
    "sparse": "made up, perceptron, 20 of 500 columns decide",
    "group": "made up, perceptron, 40 % of labels flipped in a fifth of the samples",
    "outliers": "regression, a twentieth of the targets far off",
}


@dataclass
class HeldOutTask(StressTask):
    """A task that may have a recipe of no other.

    Attributes:
        optimizers: Made of the network, its rate and the number of steps; None for those of the named recipe.
    """

    optimizers: Callable[[nn.Module, float, int], Any] | None = None


def in_steps(network: nn.Module, lr: float, n_steps: int) -> Any:
    """Return SGD with momentum, its rate divided by 10 at half and at three quarters of the steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    schedule = MultiStepLR(optimizer, [n_steps // 2, 3 * n_steps // 4], 0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def constant_adam(network: nn.Module, lr: float, n_steps: int) -> Any:
    return torch.optim.Adam(network.parameters(), lr)


def constant_sgd(network: nn.Module, lr: float, n_steps: int) -> Any:
    return torch.optim.SGD(network.parameters(), lr, momentum=0.9)


def smoothed(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, label_smoothing=0.1)


def balanced(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy in which both classes of Adult weigh the same: one has a quarter of the rows."""
    return F.cross_entropy(logits, y, weight=torch.tensor([2 / 3, 2.0]))


def _on_image_features(kind: str, data_dir: str, features: Path, rng: np.random.Generator) -> HeldOutTask:
    (x, y), (x_test, y_test) = image_features(data_dir, features)
    network = partial(head, 1280, 10)
    if kind == "few":
        chosen = torch.from_numpy(rng.permutation(len(y))[:2_000])
        halves = (x[chosen], y[chosen]), (x_test, y_test)
        return HeldOutTask(*halves, network, 20, lr=1e-3, batch_size=32, optimizers=in_steps)
    if kind == "imbalanced":
        chosen = data.fewer_of_later_classes(y, 1_100, 50, rng)
        return HeldOutTask((x[chosen], y[chosen]), (x_test, y_test), network, 10, lr=5e-4, batch_size=64)
    if kind == "votes":  # people have labelled the test images alone
        with np.load(f"{data_dir}/cifar_n/cifar10h_counts.npz") as people:
            votes = data.single_votes(people["counts"][: len(y_test)], rng)
        return HeldOutTask(
            (x_test, votes), (x[:8_000], y[:8_000]), network, 12, lr=1e-3, batch_size=64, recipe="linear"
        )
    cat, dog = 3, 5
    return HeldOutTask((x, data.confused(y, dog, cat, 0.4, rng)), (x_test, y_test), network, 8, lr=5e-4, batch_size=256)


def _on_fashion_mnist(name: str, data_dir: str, rng: np.random.Generator) -> HeldOutTask:
    (x, y), (x_test, y_test) = images("fashion_mnist", data_dir, 12_000, rng, "")
    if name == "mixer":
        return HeldOutTask((x, y), (x_test, y_test), partial(Mixer, 10), 10, lr=3e-3, recipe="linear")
    network = partial(perceptron, 784, 10)
    if name == "smoothing":
        return HeldOutTask((x, y), (x_test, y_test), network, 16, loss=smoothed)
    if name == "repeated":
        chosen = data.repeated(4_000, 0.1, 20, rng)
        return HeldOutTask((x[chosen], y[chosen]), (x_test, y_test), network, 16, loss=F.multi_margin_loss)
    small, small_test = (nn.functional.avg_pool2d(some, 2) for some in (x, x_test))
    if name == "shirts":
        is_shirt, is_test_shirt = ((some == 6).long() for some in (y, y_test))
        return HeldOutTask((small, is_shirt), (small_test, is_test_shirt), partial(convolutions, 2), 12, batch_size=64)
    train = data.with_noise_images(small, y, 0.1, rng)
    return HeldOutTask(train, (small_test, y_test), partial(convolutions, 10), 16, lr=4e-3)


def _as_many_of_both(x: Tensor, y: Tensor, rng: np.random.Generator) -> data.Samples:
    first, second = (torch.from_numpy(rng.permutation((y == c).nonzero().squeeze(1).numpy())) for c in (0, 1))
    n = min(len(first), len(second))
    chosen = torch.cat([first[:n], second[:n]])
    return x[chosen], y[chosen]


def _on_adult(name: str, seed: int, data_dir: str, rng: np.random.Generator) -> HeldOutTask:
    known = task("adult", seed, data_dir)
    (x, y), (x_test, y_test) = known.train, known.test
    network = partial(perceptron, x.shape[1], 2)
    if name == "adult_weights":
        test = _as_many_of_both(x_test, y_test, rng)
        return HeldOutTask(known.train, test, network, 12, lr=0.02, loss=balanced, optimizers=constant_sgd)
    if name == "adult_focal":
        return HeldOutTask(known.train, known.test, network, 15, batch_size=512, loss=focal)
    missing, missing_test = (torch.from_numpy(rng.random(some.shape) < 0.3) for some in (x, x_test))
    halves = (x.masked_fill(missing, 0), y), (x_test.masked_fill(missing_test, 0), y_test)
    return HeldOutTask(*halves, network, 10, batch_size=256)


def _made_up(name: str, rng: np.random.Generator) -> HeldOutTask:
    if name == "outliers":
        (x, y), test = regression(rng, 50)
        train = x, data.with_outliers(y, 0.05, 5, rng)
        return HeldOutTask(train, test, partial(perceptron, 10, 1), 12)
    make: dict[str, tuple[Callable[[int, np.random.Generator], data.Samples], int, Callable[[], nn.Module], int]] = {
        "spirals": (data.spirals, 4_000, partial(perceptron, 2, 5, 64), 60),
        "checkerboard": (data.checkerboard, 12_000, partial(perceptron, 8, 3), 30),
        "sparse": (data.sparse_linear, 6_000, partial(perceptron, 500, 2), 20),
        "group": (data.gaussians, 12_000, partial(perceptron, 20, 8), 12),
    }
    samples, n, network, epochs = make[name]
    x, y = samples(n + 6_000, rng)
    given = data.wrong_in_group(y[:n], x[:n, 0] > 0, 0.4, rng) if name == "group" else y[:n]
    batch_size = {"spirals": 64, "checkerboard": 256}.get(name, 128)
    return HeldOutTask((x[:n], given), (x[n:], y[n:]), network, epochs, lr=4e-3, batch_size=batch_size)


@functools.cache
def _characters(path: str) -> Tensor:
    """Return a text as numbers of its characters."""
    with gzip.open(path, "rt") as file:
        text = file.read()
    number = {character: place for place, character in enumerate(sorted(set(text)))}
    assert len(number) == N_CHARACTERS
    return torch.tensor([number[character] for character in text])


def _on_characters(data_dir: str, rng: np.random.Generator) -> HeldOutTask:
    numbers = _characters(f"{data_dir}/tinyshakespeare/input.txt.gz")
    starts = LENGTH * torch.from_numpy(rng.permutation((len(numbers) - 1) // LENGTH)[:8_000])
    rows = numbers[starts[:, None] + torch.arange(LENGTH + 1)]
    x, following = rows[:, :-1], rows[:, 1:]
    halves = (x[:6_000], following[:6_000]), (x[6_000:], following[6_000:])
    return HeldOutTask(*halves, Characters, 8, lr=4e-3, batch_size=64)


def held_out_task(name: str, seed: int, data_dir: str, features: Path = FEATURES) -> HeldOutTask:
    """Make the task of a name, with data and labels drawn by a seed.

    Example:
        >>> made = held_out_task("spirals", 0, "")
        >>> made.train[0].shape, made.network()(made.test[0]).shape
        (torch.Size([4000, 2]), torch.Size([6000, 5]))
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    base, percent = flips_in(name)
    if percent:
        return with_flips(held_out_task(base, seed, data_dir, features), percent, seed)
    if name in ("sentiment_features", "topic_features"):
        measure, n_out = (sentence_features, 2) if name == "sentiment_features" else (text_features, 4)
        (x, y), test = measure(data_dir, features)
        order = torch.from_numpy(rng.permutation(len(y))[:8_000])
        made = HeldOutTask((x[order], y[order]), test, partial(head, 384, n_out), 10, lr=1e-3, batch_size=64)
        return made if name == "sentiment_features" else dataclasses.replace(made, lr=1e-4, optimizers=constant_adam)
    if name == "pairs":
        halves = [(x, (y - 2.5) / 1.5) for x, y in pair_features(data_dir, features)]
        return HeldOutTask(*halves, partial(head, 768, 1), 12, lr=3e-4, batch_size=32)
    if name.startswith("image_features"):
        return _on_image_features(name.removeprefix("image_features_"), data_dir, features, rng)
    if name == "augmented":
        halves = images("cifar10", data_dir, 5_000, rng, "")
        return HeldOutTask(*halves, partial(small_resnet, 10), 16, lr=0.05, augments=True, optimizers=in_steps)
    if name == "bag":
        known = stress_task("sentiment", seed, data_dir)
        return HeldOutTask(known.train, known.test, partial(bag_of_words, 2), 20, lr=4e-3)
    if name == "next_characters":
        return _on_characters(data_dir, rng)
    if name.startswith("adult"):
        return _on_adult(name, seed, data_dir, rng)
    if name in ("spirals", "checkerboard", "sparse", "group", "outliers"):
        return _made_up(name, rng)
    return _on_fashion_mnist(name, data_dir, rng)
