"""Networks and losses of the kinds that people train, on random data, in plain torch."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

Task = tuple[pl.LightningModule, DataLoader[Any]]


class Trained(pl.LightningModule):
    """Trains a network by a function of it and a batch, and logs the loss, as users write it."""

    def __init__(self, net: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(self.net, batch)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Encoder(nn.Module):
    """A transformer over tokens, with its loss inside, as in Hugging Face's models."""

    def __init__(self, vocabulary: int, width: int, layers: int, length: int, n_out: int, *, causal: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, 0.1, F.gelu, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, n_out)
        self.causal = causal

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, tokens.device) if self.causal else None
        h = self.tokens(tokens) + self.places.weight[:length]
        h = self.layers(h, mask, is_causal=self.causal)
        logits = self.head(h if self.causal else h[:, 0])
        if self.causal:
            labels = F.pad(labels, (0, 1), value=-100)[:, 1:]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1))
        return {"loss": loss, "logits": logits}


class Segmenter(nn.Module):
    """Convolutions down and up again, a class for each pixel."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.down, self.deep = self._block(3, width), self._block(width, 2 * width)
        self.up, self.head = nn.ConvTranspose2d(2 * width, width, 2, 2), nn.Conv2d(2 * width, classes, 1)

    @staticmethod
    def _block(n_in: int, n_out: int) -> nn.Module:
        first = nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
        second = nn.Sequential(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
        return nn.Sequential(first, second)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down(x)
        low = self.deep(F.max_pool2d(high, 2))
        return self.head(torch.cat([high, self.up(low)], 1))


def small_resnet18() -> nn.Module:
    """Return ResNet-18 with the stem that 32x32 images take."""
    net = resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def _cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def _own_loss(net: nn.Module, batch: Any) -> Tensor:
    return net(*batch)["loss"]


def _focal(net: nn.Module, batch: Any) -> Tensor:
    p = net(batch[0]).softmax(-1).gather(1, batch[1][:, None]).squeeze(1)
    return (-((1 - p) ** 2) * p.log()).mean()


def _loader(batch_size: int, *data: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data), batch_size=batch_size, shuffle=True)


def _images(n: int, size: int) -> Tensor:
    return torch.randn(n, 3, size, size)


def mlp() -> Task:
    """Make the task of a two-layer perceptron on scikit-learn's digits, in batches of 64."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return Trained(net, _cross_entropy), _loader(64, torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y))


def resnet(n_batches: int, batch_size: int = 128) -> Task:
    """Make the task of ResNet-18 under cross-entropy, in batches of 128."""
    torch.manual_seed(0)
    n = batch_size * n_batches
    return Trained(small_resnet18(), _cross_entropy), _loader(batch_size, _images(n, 32), torch.randint(10, (n,)))


def focal_resnet(n_batches: int) -> Task:
    """Make the task of ResNet-18 under a focal loss written out by hand, in batches of 16."""
    torch.manual_seed(0)
    n = 16 * n_batches
    return Trained(small_resnet18(), _focal), _loader(16, _images(n, 32), torch.randint(10, (n,)))


def classifier(n_batches: int) -> Task:
    """Make the task of a transformer that classifies texts of 128 tokens, in batches of 16."""
    torch.manual_seed(0)
    n = 16 * n_batches
    net = Encoder(30_000, 256, 4, 128, 2, causal=False)
    return Trained(net, _own_loss), _loader(16, torch.randint(30_000, (n, 128)), torch.randint(2, (n,)))


def language_model(n_batches: int) -> Task:
    """Make the task of a causal transformer with a vocabulary of 32,000, in batches of 4 texts of 128 tokens."""
    torch.manual_seed(0)
    n = 4 * n_batches
    net = Encoder(32_000, 256, 2, 128, 32_000, causal=True)
    tokens = torch.randint(32_000, (n, 128))
    return Trained(net, _own_loss), _loader(4, tokens, tokens)


def segmenter(n_batches: int) -> Task:
    """Make the task of finding one of 21 classes for each of 128x128 pixels, in batches of 4."""
    torch.manual_seed(0)
    n = 4 * n_batches
    net = Segmenter(32, 21)
    return Trained(net, _cross_entropy), _loader(4, _images(n, 128), torch.randint(21, (n, 128, 128)))
