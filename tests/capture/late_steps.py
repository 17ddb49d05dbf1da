"""Fits of a model that learns nothing, by one kind of step, and from one batch on by another."""

import warnings

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import DataSelector, Selection
from lightning_dataselect.capture import CaptureError

N, B, D, C, LATE = 80, 8, 4, 3, 6
FIRST_LOOK = 25  # that nothing but time calls for


class Everything(DataSelector):
    """Measures, and trains on everything."""

    def select(self, epoch, scores, generator):
        return Selection(torch.arange(scores.numel()))


class Late(L.LightningModule):
    """Takes one kind of step, and from one batch on another one; learns nothing."""

    def __init__(self, plain, other, is_other) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.other, self.is_other = plain, other, is_other
        self.body, self.head = nn.Sequential(nn.Linear(D, 8), nn.Tanh()), nn.Linear(8, C)
        self.at: dict[int, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx: int):
        self.at |= dict.fromkeys(batch[2].tolist(), batch_idx)
        return (self.other if self.is_other(batch_idx) else self.plain)(self, batch[0], batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def classes(model, x, y):
    return F.cross_entropy(model(x), y)


def by_hand(model, x, y):
    return (model(x)[:, 0] - y).square().mean()


def summed(model, x, y):
    return F.cross_entropy(model(x), y, reduction="sum") / len(y)


def fit(plain, other, is_other, n: int = N):
    """Return the module, what was measured, and what was said."""
    g = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(n, D, generator=g), torch.randint(C, (n,), generator=g), torch.arange(n))
    module, selector, refusal = Late(plain, other, is_other), Everything(prune_ratio=0.0), ""
    trainer = L.Trainer(
        max_epochs=1, callbacks=[selector], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            trainer.fit(module, DataLoader(data, B))
        except CaptureError as error:
            refusal = str(error)
    return module, data.tensors, selector, refusal, " ".join([refusal, *(str(warning.message) for warning in said)])
