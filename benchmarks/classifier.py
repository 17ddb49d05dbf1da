"""A classifier as a good engineer would train it today, for the studies of images and tables."""

from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from lightning_dataselect.demo.classifier import conv_block

Batch = tuple[Tensor, Tensor]


class Classifier(pl.LightningModule):
    """Trains by cross-entropy, label-smoothed or not, under OneCycle, and logs `val_acc` and `test_acc`.

    Args:
        net: ``resnet18`` (the variant for 32x32 images), ``small_cnn`` or ``mlp``.
        n_inputs: Channels of an image, or columns of a table.
        n_classes: Of the outputs.
        lr: The peak learning rate.
        optimizer: ``sgd``, with Nesterov momentum, or ``adamw``.
        weight_decay: On all weights that have two dimensions or more.
        label_smoothing: Share of the target that is spread over all classes.
        width: Channels of the first block, or units of a hidden layer.
    """

    def __init__(
        self,
        net: Literal["resnet18", "small_cnn", "mlp"],
        n_inputs: int,
        n_classes: int,
        lr: float,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        weight_decay: float = 5e-4,
        label_smoothing: float = 0.0,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        make = {"resnet18": resnet18, "small_cnn": small_cnn, "mlp": mlp}[net]
        self.net = make(n_inputs, n_classes, width).to(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, classes = batch
        return F.cross_entropy(self(inputs), classes, label_smoothing=self.hparams["label_smoothing"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.hparams
        weights = [p for p in self.parameters() if p.dim() > 1]
        others = [p for p in self.parameters() if p.dim() <= 1]
        groups = [{"params": weights, "weight_decay": options["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
        optimizer: torch.optim.Optimizer
        if options["optimizer"] == "sgd":
            optimizer = torch.optim.SGD(groups, lr=options["lr"], momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=options["lr"])
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, options["lr"], total_steps=steps, pct_start=0.25)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: Batch, stage: str) -> None:
        inputs, classes = batch
        logits = self(inputs)
        self.log(f"{stage}_loss", F.cross_entropy(logits, classes))
        self.log(f"{stage}_acc", (logits.argmax(1) == classes).float().mean())


def resnet18(n_inputs: int, n_classes: int, width: int = 64) -> nn.Module:
    """Return ResNet-18 with the stem for 32x32 images: no stride and no pooling before the first block."""
    from torchvision.models import resnet18 as torchvision_resnet18

    net = torchvision_resnet18(num_classes=n_classes)
    net.conv1 = nn.Conv2d(n_inputs, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def small_cnn(n_inputs: int, n_classes: int, width: int) -> nn.Module:
    """Return three blocks of convolution, batch norm, ReLU and pooling, then the mean over the image."""
    return nn.Sequential(
        conv_block(n_inputs, width),
        conv_block(width, 2 * width),
        conv_block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, n_classes),
    )


def mlp(n_inputs: int, n_classes: int, width: int) -> nn.Module:
    """Return a network of two hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, n_classes),
    )
