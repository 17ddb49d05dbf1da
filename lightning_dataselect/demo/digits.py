"""Scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels that come with the library."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_dataselect.demo.classifier import ImageClassifier, ImageData
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.extras import require_report_extra


class DigitsModel(ImageClassifier):
    """A network of two hidden layers for 8x8 images of ten classes.

    It has no convolution on purpose: this one needs its epochs, so that saving some can hurt.

    Args:
        width: Units of each hidden layer.
        lr: The peak learning rate.

    Example:
        >>> DigitsModel(width=8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, width: int = 128, lr: float = 0.002) -> None:
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 10),
        )
        super().__init__(net, lr)


class DigitsData(ImageData):
    """The digits, split once and for all seeds alike into training and validation images.

    Args:
        batch_size: Samples in a training batch.
        n_val: Images held out for validation; the other 1797 - n_val are trained on.

    Raises:
        ValueError: If either part would be empty.

    Example:
        >>> data = DigitsData(n_val=600)
        >>> data.setup("fit")
        >>> len(data.train), len(data.val)
        (1197, 600)
    """

    def __init__(self, batch_size: int = 32, n_val: int = 600) -> None:
        super().__init__(batch_size)
        if not 0 < n_val < 1797:
            raise InvalidArgumentError(f"n_val={n_val}: hold out between 1 and 1796 of the 1797 digits.")
        self.n_val = n_val

    def setup(self, stage: str) -> None:
        """Read the images from scikit-learn, scaled to 0..1."""
        require_report_extra("The demo DigitsData", "sklearn")
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).float()[:, None] / 16
        classes = torch.from_numpy(digits.target).long()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        held_out, kept = order[: self.n_val], order[self.n_val :]
        self.train = TensorDataset(images[kept], classes[kept])
        self.val = TensorDataset(images[held_out], classes[held_out])
