"""The made-up data of `benchmarks.held_out_tasks`, and what is done to the samples and labels of the real ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Samples = tuple[Tensor, Tensor]


def confused(y: Tensor, given: int, instead_of: int, share: float, rng: np.random.Generator) -> Tensor:
    """Return labels in which a share of one class carries the label of another.

    Example:
        >>> y = torch.arange(3).repeat(1000)
        >>> found = confused(y, 2, 1, 0.4, np.random.default_rng(0))
        >>> bool((found[y != 1] == y[y != 1]).all()), int((found[y == 1] == 2).sum())
        (True, 400)
    """
    of_class = (y == instead_of).nonzero().squeeze(1)
    chosen = torch.from_numpy(rng.permutation(len(of_class))[: int(share * len(of_class))])
    return y.index_fill(0, of_class[chosen], given)


def wrong_in_group(y: Tensor, is_in_group: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Return labels of which a share is one of the other classes in a group of samples, and none elsewhere."""
    n_classes = int(y.max()) + 1
    wrong = is_in_group & torch.from_numpy(rng.random(len(y)) < share)
    return torch.where(wrong, (y + torch.from_numpy(rng.integers(1, n_classes, len(y)))) % n_classes, y)


def fewer_of_later_classes(y: Tensor, largest: int, times: float, rng: np.random.Generator) -> Tensor:
    """Return the positions of samples of which the first class has `times` as many as the last, in random order."""
    n_classes = int(y.max()) + 1
    order, kept = torch.from_numpy(rng.permutation(len(y))), []
    for c in range(n_classes):
        kept.append(order[y[order] == c][: int(largest * times ** (-c / (n_classes - 1)))])
    chosen = torch.cat(kept)
    return chosen[torch.from_numpy(rng.permutation(len(chosen)))]


def repeated(n: int, share: float, times: int, rng: np.random.Generator) -> Tensor:
    """Return the positions of `n` samples, of which a share occurs so many times.

    Example:
        >>> counts = repeated(1000, 0.1, 20, np.random.default_rng(0)).bincount()
        >>> int((counts == 20).sum()), int((counts == 1).sum())
        (100, 900)
    """
    order = torch.from_numpy(rng.permutation(n))
    n_repeated = int(share * n)
    return torch.cat([order[:n_repeated].repeat(times), order[n_repeated:]])


def single_votes(counts: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Return for each sample the vote of one person, drawn from the counts (N, classes) of the votes of many."""
    each = rng.random(len(counts)) * counts.sum(1)
    return torch.from_numpy((each[:, None] >= counts.cumsum(1)).sum(1))


def with_noise_images(x: Tensor, y: Tensor, share: float, rng: np.random.Generator) -> Samples:
    """Return samples of which a share is noise as bright as the images and as varied, with labels drawn evenly."""
    chosen = torch.from_numpy(rng.permutation(len(y))[: int(share * len(y))])
    noise = rng.normal(float(x.mean()), float(x.std()), (len(chosen), *x.shape[1:]))
    labels = torch.from_numpy(rng.integers(0, int(y.max()) + 1, len(chosen)))
    return x.index_copy(0, chosen, torch.tensor(noise, dtype=x.dtype)), y.index_copy(0, chosen, labels)


def with_outliers(y: Tensor, share: float, size: float, rng: np.random.Generator) -> Tensor:
    """Return targets of which a share is off by a number of the deviation `size`."""
    is_off = rng.random(len(y)) < share
    return y + torch.tensor(is_off * rng.normal(0, size, len(y)), dtype=y.dtype)


def spirals(n: int, rng: np.random.Generator) -> Samples:
    """Return points of five spirals around each other in two columns, and of which spiral each is."""
    y = rng.integers(0, 5, n)
    length = np.sqrt(rng.random(n))
    angle = 6 * length + 2 * np.pi * y / 5
    points = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1) + rng.normal(0, 0.05, (n, 2))
    return torch.tensor(2 * points, dtype=torch.float32), torch.from_numpy(y)


def checkerboard(n: int, rng: np.random.Generator) -> Samples:
    """Return points of a board of 4 x 4 fields of three colours, beside six columns that mean nothing."""
    x = rng.uniform(-2, 2, (n, 8))
    y = np.floor(x[:, :2]).astype(np.int64).sum(1) % 3
    return torch.tensor(x, dtype=torch.float32), torch.from_numpy(y)


def sparse_linear(n: int, rng: np.random.Generator) -> Samples:
    """Return 500 columns, of which twenty decide how likely each of two classes is, the same for every seed."""
    weights = 1.2 * np.random.default_rng(7).choice([-1.0, 1.0], 20)
    x = rng.normal(size=(n, 500))
    y = x[:, :20] @ weights + rng.logistic(size=n) > 0
    return torch.tensor(x, dtype=torch.float32), torch.from_numpy(y.astype(np.int64))


def gaussians(n: int, rng: np.random.Generator) -> Samples:
    """Return 20 columns of eight classes of three clusters each, the same for every seed; the first tells a group."""
    centres = 1.5 * np.random.default_rng(11).normal(size=(24, 20))
    cluster = rng.integers(0, 24, n)
    x = centres[cluster] + 1.6 * rng.normal(size=(n, 20))
    x[:, 0] = rng.random(n) < 0.2
    return torch.tensor(x, dtype=torch.float32), torch.from_numpy(cluster % 8)
