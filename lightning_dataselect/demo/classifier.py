"""An image classifier as users write them: cross-entropy, accuracy, AdamW under OneCycle."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]


class ImageClassifier(pl.LightningModule):
    """Train `net` and log `val_loss` and `val_acc` (a share, 0 to 1).

    Args:
        net: Takes images, float32 (B, 1, H, W), and gives logits, float32 (B, C).
        lr: The peak of the OneCycle schedule, which spans `trainer.estimated_stepping_batches`.
    """

    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.net = net
        self.lr = lr

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits, float32 (B, C), of images, float32 (B, 1, H, W)."""
        return self.net(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of a batch of images and int64 classes."""
        images, classes = batch
        return F.cross_entropy(self(images), classes)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy, averaged over the epoch by sample."""
        images, classes = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, classes))
        self.log("val_acc", (logits.argmax(1) == classes).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW under OneCycle, which steps after every batch."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ImageData(pl.LightningDataModule):
    """Return loaders over the data sets `train` and `val` that a subclass sets in `setup`.

    Args:
        batch_size: Samples in a training batch; validation takes eight times as many, since it keeps no graph.
    """

    train: Dataset[tuple[Tensor, ...]]
    val: Dataset[tuple[Tensor, ...]]

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return a loader of shuffled batches of the training set."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return a loader of the validation set, in order."""
        return DataLoader(self.val, batch_size=8 * self.batch_size)


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a convolution, batch norm, ReLU, and a pooling that halves height and width."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
