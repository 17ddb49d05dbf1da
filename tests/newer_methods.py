"""A module that writes down what each step scored and trained on, with its weights, and what NumPy makes of them."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from matrix_settings import BATCH, Tiny, samples
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class WatchedStep:
    """The dataset indices that a step scored, with which weights, and those it then trained on."""

    scored: list[int]
    x: np.ndarray
    y: np.ndarray
    weights: list[np.ndarray] = field(repr=False)
    trained: list[int] = field(default_factory=list)


class Watched(Tiny):
    """Lists what each step scored and trained on; ``whole`` has the sizes of batches that were not scored."""

    def __init__(self, seed=0):
        super().__init__(seed)
        # in a closure, out of sight of the guard that takes back what a scoring pass does to its module
        self.training_step, self.steps, self.whole = self._watched()

    def _watched(self):
        steps, whole, scored = [], [], []

        def training_step(batch, batch_idx):
            x, y, i = batch
            if not self.training:
                if len(i) == BATCH:  # and no single sample, as the witness takes
                    weights = [p.detach().double().numpy().copy() for p in self.model.parameters()]
                    scored.append(WatchedStep(i.tolist(), x.double().numpy().copy(), y.numpy().copy(), weights))
            elif scored:
                steps.append(scored.pop())
                steps[-1].trained = i.tolist()
                scored.clear()
            else:
                whole.append(len(i))
            return F.cross_entropy(self.model(x), y)

        return training_step, steps, whole


class Regressor(Tiny):
    """Has no classification loss."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.model(x)[:, 0], y.float())


def watched_loader(**options):
    """The samples of the matrix with their indices, which are never dropped from the batch."""
    tensors = samples().tensors
    numbered = TensorDataset(*tensors, torch.arange(len(tensors[0])))
    return DataLoader(numbered, BATCH, shuffle=True, **options)


def forward(step):
    """The hidden layer and the probabilities of a step's batch, in float64."""
    w1, b1, w2, b2 = step.weights
    hidden = np.maximum(step.x @ w1.T + b1, 0)
    z = hidden @ w2.T + b2
    p = np.exp(z - z.max(1, keepdims=True))
    return hidden, p / p.sum(1, keepdims=True)


def probabilities(step):
    """The probability of each sample's own class."""
    return forward(step)[1][np.arange(len(step.y)), step.y]
