"""The demos' data."""

import numpy as np
import pytest
import torch

from lightning_dataselect.demo import DigitsData, FashionMNISTData


def test_digits_are_split_once_for_all_seeds():
    parts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        data = DigitsData(n_val=600)
        data.setup("fit")
        parts.append(data)
    for name in ("train", "val"):
        images, classes = getattr(parts[0], name).tensors
        assert torch.equal(images, getattr(parts[1], name).tensors[0])
        assert images.shape[1:] == (1, 8, 8) and images.min() == 0 and images.max() == 1
        assert classes.dtype == torch.int64 and classes.unique().tolist() == list(range(10))
    assert len(parts[0].train) + len(parts[0].val) == 1797


@pytest.mark.parametrize(("n_train", "expected"), [(None, 12), (5, 5)])
def test_fashion_mnist_is_read_from_its_folder(tmp_path, n_train, expected):
    x = np.arange(12 * 28 * 28).astype(np.uint8).reshape(12, 28, 28)
    x[:, 0, 0] = np.arange(12)
    y = np.arange(12).astype(np.uint8)
    np.savez(tmp_path / "fashion_mnist.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    data = FashionMNISTData(str(tmp_path), n_train=n_train)
    data.setup("fit")
    images, classes = data.train.tensors
    assert images.shape == (expected, 1, 28, 28) and len(data.val) == 3
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), classes)


def test_a_missing_file_says_what_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="give --data-dir a folder with fashion_mnist.npz"):
        FashionMNISTData(str(tmp_path)).setup("fit")


@pytest.mark.parametrize("n_val", [0, 1797])
def test_digits_need_both_parts(n_val):
    with pytest.raises(ValueError, match=f"n_val={n_val}: hold out"):
        DigitsData(n_val=n_val)
