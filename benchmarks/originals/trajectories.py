"""The course of each sample in a training: made up from a seed, or from a fit on Fashion-MNIST."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.image_data import read_arrays
from lightning_dataselect.state.selection import Observation

CLASSES = 10


@dataclass(frozen=True)
class Trajectory:
    """The logits of every sample in every epoch.

    Attributes:
        logits: float32 (T, N, C).
        targets: int64 (N,).
    """

    logits: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.targets)

    @property
    def losses(self) -> Tensor:
        """float32 (T, N)."""
        return torch.stack([F.cross_entropy(each, self.targets, reduction="none") for each in self.logits])

    @property
    def target_probabilities(self) -> Tensor:
        """float32 (T, N)."""
        return self.logits.softmax(2)[:, torch.arange(self.n), self.targets]

    def seen(self, epoch: int, samples: Tensor | None = None) -> Observation:
        """Return what a step on ``samples``, by default all, in ``epoch`` has shown."""
        i = torch.arange(self.n) if samples is None else samples
        logits, targets = self.logits[epoch, i], self.targets[i]
        return Observation(i, F.cross_entropy(logits, targets, reduction="none"), logits, targets, epoch)


def made_up(n: int, epochs: int, seed: int) -> Trajectory:
    """Return a trajectory in which logits walk at random, ever less, towards the target; classes differ in size."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(CLASSES, size=n, p=_falling(CLASSES))
    pace = 1.5 / np.arange(1, epochs + 1)[:, None, None] ** 2
    logits = (rng.normal(size=(epochs, n, CLASSES)) * pace).cumsum(0)
    gain = rng.normal(3, 2, size=n)[None] * (1 - 2.0 ** -np.arange(1, epochs + 1)[:, None])
    logits[:, np.arange(n), targets] += gain
    return Trajectory(torch.from_numpy(logits).float(), torch.from_numpy(targets))


def _falling(classes: int) -> np.ndarray:
    sizes = 0.7 ** np.arange(classes)
    return np.asarray(sizes / sizes.sum())


def fitted(data_dir: str, n: int, epochs: int, seed: int) -> Trajectory:
    """Return the trajectory of a perceptron that is trained on ``n`` images of Fashion-MNIST."""
    images, targets, _, _ = fashion(data_dir, n, seed)
    torch.manual_seed(seed)
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    logits = []
    for _ in range(epochs):
        for batch in torch.randperm(n).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), targets[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            logits.append(model(images))
    return Trajectory(torch.stack(logits), targets)


def fashion(data_dir: str, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``n`` training images of Fashion-MNIST and their classes, and all those of the test."""
    arrays = read_arrays("fashion_mnist", str(Path(data_dir) / "fashion_mnist"))
    chosen = np.random.default_rng(seed).permutation(len(arrays["y_train"]))[:n]
    x, y = arrays["x_train"][chosen], arrays["y_train"][chosen]
    pairs = ((x, y), (arrays["x_test"], arrays["y_test"]))
    flat = [(torch.from_numpy(a).flatten(1).float() / 255 - 0.3, torch.from_numpy(b).long()) for a, b in pairs]
    return (*flat[0], *flat[1])


def perceptron() -> nn.Sequential:
    """Return the network of the fits."""
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, CLASSES))
