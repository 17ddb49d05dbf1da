"""Losses between the samples of a batch, of Lightly and PyTorch Metric Learning, and those that only look like it."""

import lightning as L
import pytest
import torch
from harness import Case, check_losses, check_trains, fit, rows_loader

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError

N = 32
VIEWS = torch.randn(2, N, 12, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(N) % 4


class Embedding(L.LightningModule):
    def __init__(self, loss):
        super().__init__()
        self.network, self.loss = torch.nn.Linear(12, 8), loss

    def training_step(self, batch, batch_idx):
        if isinstance(batch[0], list):
            (first, second), _ = batch
            return self.loss(self.network(first), self.network(second))
        return self.loss(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def case(loss, two_views):
    inputs = zip(*VIEWS, strict=True) if two_views else VIEWS[0]

    def module():
        torch.manual_seed(0)
        return Embedding(loss())

    return Case(module, rows_loader(list(zip(inputs, CLASSES, strict=True))))


@pytest.mark.parametrize("name", ["NTXentLoss", "BarlowTwinsLoss"])
def test_lightly_contrastive_loss_is_refused(name):
    losses = pytest.importorskip("lightly.loss")
    with pytest.raises(CaptureError, match="depends on the other samples of its batch.*sample_loss"):
        fit(case(getattr(losses, name), True), InfoBatch(), batch_size=8, max_epochs=1)


def test_lightly_of_two_views():
    losses = pytest.importorskip("lightly.loss")
    made = case(losses.NegativeCosineSimilarity, True)
    check_losses(made)
    check_trains(made)


@pytest.mark.parametrize("name", ["ContrastiveLoss", "TripletMarginLoss", "NTXentLoss", "MultiSimilarityLoss"])
def test_metric_learning_contrastive_loss_is_refused(name):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    with pytest.raises(CaptureError, match="sample_loss"):
        fit(case(getattr(losses, name), False), InfoBatch(), batch_size=8, max_epochs=1)


@pytest.mark.parametrize("name", ["ArcFaceLoss", "ProxyNCALoss"])
def test_metric_learning_loss_that_picks_rows_by_a_mask_is_each_samples_own(name):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    check_losses(case(lambda: getattr(losses, name)(4, 8), False))
