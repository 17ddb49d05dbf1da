"""Images that lie on the device from the start, and are augmented there."""

import functools
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.resident import Resident

Name = Literal["cifar10", "fashion_mnist", "digits", "made_up"]
Arrays = dict[str, np.ndarray]


class ImageData(pl.LightningDataModule):
    """Training images, a validation split of them for every choice, and test images for the report.

    Augmentation (flip, shifted crop, cutout) is done on the device after the transfer, so that scoring and training see
    the same images.

    Args:
        name: Which images.
        data_dir: Where they lie; digits come with scikit-learn, and made-up images need none.
        batch_size: Of training.
        n_val: Training images held out for validation, the same for every seed.
        n_train: Train on so many of the others, the same for every seed; None takes all.
        flip: Whether to mirror half of the images.
        crop: Pixels by which an image may shift.
        cutout: Side of the square that is blanked, 0 for none.
        noise: Share of the training labels that is replaced by one of the other classes, drawn evenly.
        human_noise: Training labels as CIFAR-10N's people gave them, such as ``worse_label``; None for the true ones.
        class_labels_seed: Of the split and of the noise.
    """

    def __init__(
        self,
        name: Name,
        data_dir: str | None = None,
        batch_size: int = 128,
        n_val: int = 5000,
        n_train: int | None = None,
        flip: bool = False,
        crop: int = 0,
        cutout: int = 0,
        noise: float = 0.0,
        human_noise: str | None = None,
        class_labels_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = batch_size
        self.crop, self.cutout, self.flip = crop, cutout, flip

    def setup(self, stage: str) -> None:
        if hasattr(self, "train"):
            return
        options = self.hparams
        arrays = read_arrays(options["name"], options["data_dir"])
        classes = torch.from_numpy(arrays["y_train"]).long()
        noisy = self._training_labels(classes)
        order = torch.randperm(len(classes), generator=self._generator())
        held_out, rest = order[: options["n_val"]], order[options["n_val"] :][: options["n_train"]]
        images = channels_first(arrays["x_train"])
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        over = (0, 2, 3)
        self.mean = images[rest].float().mean(over).view(1, -1, 1, 1).to(device)
        self.std = images[rest].float().std(over).view(1, -1, 1, 1).to(device)
        self.train = _resident(images[rest], noisy[rest], device)
        self.val = _resident(images[held_out], classes[held_out], device)
        test_classes = torch.from_numpy(arrays["y_test"]).long()
        self.test = _resident(channels_first(arrays["x_test"]), test_classes, device)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.train.loader(self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.val.loader(1000)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.test.loader(1000)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        images, classes = batch
        images = (images.float() - self.mean) / self.std
        if self.trainer is not None and self.trainer.training:
            images = augment(images, self.flip, self.crop, self.cutout)
        return images.contiguous(memory_format=torch.channels_last), classes

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.hparams["class_labels_seed"])

    def _training_labels(self, classes: Tensor) -> Tensor:
        options = self.hparams
        if options["human_noise"] is not None:
            with np.load(Path(options["data_dir"]).parent / "cifar_n" / "cifar10n.npz") as labels:
                return torch.from_numpy(labels[options["human_noise"]]).long()
        generator = self._generator()
        wrong = torch.rand(len(classes), generator=generator) < options["noise"]
        n_classes = int(classes.max()) + 1
        others = (classes + torch.randint(1, n_classes, classes.shape, generator=generator)) % n_classes
        return torch.where(wrong, others, classes)


def augment(images: Tensor, flip: bool, crop: int, cutout: int) -> Tensor:
    """Mirror, shift and blank each image on its own, with no loop over images.

    Args:
        images: Float (B, C, H, W).
        flip: Whether to mirror half of them.
        crop: The most pixels that an image is shifted by, up, down and sideways; what comes in is black.
        cutout: Side of the blanked square, 0 for none.
    """
    n, _, height, width = images.shape
    device = images.device
    if flip:
        images = torch.where(torch.rand(n, 1, 1, 1, device=device) < 0.5, images.flip(3), images)
    rows = torch.arange(height, device=device).view(1, -1, 1)
    columns = torch.arange(width, device=device).view(1, 1, -1)
    if crop:
        shift = torch.randint(0, 2 * crop + 1, (2, n, 1, 1), device=device)
        padded = F.pad(images, (crop,) * 4)
        each = torch.arange(n, device=device).view(-1, 1, 1)
        images = padded.permute(0, 2, 3, 1)[each, rows + shift[0], columns + shift[1]].permute(0, 3, 1, 2)
    if cutout:
        top = torch.randint(0, height, (n, 1, 1), device=device) - cutout // 2
        left = torch.randint(0, width, (n, 1, 1), device=device) - cutout // 2
        hidden = (rows >= top) & (rows < top + cutout) & (columns >= left) & (columns < left + cutout)
        images = images.masked_fill(hidden[:, None], 0.0)
    return images


def _read_cifar10(folder: Path) -> Arrays:
    parts = [_read_npz(folder / f"cifar10_{part}.npz") for part in "ab"]
    return {
        "x_train": np.concatenate([part["x_train"] for part in parts]),
        "y_train": np.concatenate([part["y_train"] for part in parts]),
        "x_test": parts[1]["x_test"],
        "y_test": parts[1]["y_test"],
    }


def _read_fashion_mnist(folder: Path) -> Arrays:
    return _read_npz(folder / "fashion_mnist.npz")


def _read_digits(folder: Path) -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:400], order[400:]
    return {
        "x_train": images[train],
        "y_train": digits.target[train],
        "x_test": images[test],
        "y_test": digits.target[test],
    }


def _read_made_up(folder: Path, n_train: int = 20_000, n_test: int = 4_000) -> Arrays:
    """Return images of CIFAR-10's shape that no one took: a coarse pattern for each of ten classes, under noise."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(128, 40, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.float32)
    arrays = {}
    for split, n in (("train", n_train), ("test", n_test)):
        classes = rng.integers(0, 10, n)
        noise = 80 * rng.standard_normal((n, 32, 32, 3), dtype=np.float32)
        arrays[f"x_{split}"] = (patterns[classes] + noise).clip(0, 255).astype(np.uint8)
        arrays[f"y_{split}"] = classes
    return arrays


READERS = {
    "cifar10": _read_cifar10,
    "fashion_mnist": _read_fashion_mnist,
    "digits": _read_digits,
    "made_up": _read_made_up,
}


@functools.cache  # reading is no training: only the first run of a study would pay for it
def read_arrays(name: Name, data_dir: str | None) -> Arrays:
    return READERS[name](Path(data_dir or "."))


def _read_npz(path: Path) -> Arrays:
    """Read the arrays of a file; those named ``*_d`` are stored as differences of neighbouring pixels and planes."""
    with np.load(path) as stored:
        return {
            name.removesuffix("_d"): _decode(stored[name]) if name.endswith("_d") else stored[name] for name in stored
        }


def _decode(differences: np.ndarray) -> np.ndarray:
    """Turn differences modulo 256, uint8 (3, N, H, W), into images (N, H, W, 3)."""
    planes = differences.cumsum(-2, dtype=np.uint8).cumsum(-1, dtype=np.uint8)
    planes[[0, 2]] += planes[1]  # red and blue are stored as differences to green
    return np.ascontiguousarray(planes.transpose(1, 2, 3, 0))


def channels_first(images: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(images)
    return tensor[:, None] if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2).contiguous()


def _resident(images: Tensor, classes: Tensor, device: torch.device) -> Resident:
    return Resident(images.to(device), classes.to(device))
