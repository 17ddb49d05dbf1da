"""Fashion-MNIST: 60,000 / 10,000 images of clothes, 28x28 pixels, read from one .npz file."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_dataselect.demo.classifier import ImageClassifier, ImageData, conv_block
from lightning_dataselect.utils.errors import MissingFileError

FILE = "fashion_mnist.npz"


class FashionMNISTModel(ImageClassifier):
    """A small convolutional network for 28x28 images of ten classes.

    Args:
        width: Channels of the first of two blocks; the second has twice as many.
        lr: The peak learning rate.

    Example:
        >>> FashionMNISTModel(width=4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, width: int = 16, lr: float = 0.01) -> None:
        net = nn.Sequential(
            conv_block(1, width),
            conv_block(width, 2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * 49, 10),
        )
        super().__init__(net, lr)


class FashionMNISTData(ImageData):
    """Fashion-MNIST from `data_dir`, validated on its official test images.

    Args:
        data_dir: A folder with `fashion_mnist.npz`, whose arrays are `x_train`, `y_train`,
            `x_test` and `y_test` (uint8; images (N, 28, 28), classes (N,)).
        batch_size: Samples in a training batch.
        n_train: Train on this many images, drawn once and for all seeds alike; None takes all.

    Raises:
        FileNotFoundError: In `setup`, if there is no such file.
    """

    def __init__(self, data_dir: str, batch_size: int = 128, n_train: int | None = None) -> None:
        super().__init__(batch_size)
        self.data_dir = Path(data_dir)
        self.n_train = n_train

    def setup(self, stage: str) -> None:
        """Read the file and scale the images to 0..1."""
        path = self.data_dir / FILE
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist: give --data-dir a folder with {FILE}.")
        with np.load(path) as arrays:
            images, classes = _tensors(arrays["x_train"], arrays["y_train"])
            self.val = TensorDataset(*_tensors(arrays["x_test"], arrays["y_test"]))
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        kept = order[: self.n_train]
        self.train = TensorDataset(images[kept], classes[kept])


def _tensors(images: np.ndarray, classes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(images).float()[:, None] / 255, torch.from_numpy(classes).long()
