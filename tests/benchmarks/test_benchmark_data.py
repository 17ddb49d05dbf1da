"""The studies' data: what is read, held out, flipped and augmented, and that a batch is fetched whole."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from benchmarks.classifier import Classifier
from benchmarks.frontier_tasks import task
from benchmarks.image_data import ImageData, augment
from benchmarks.pretrained import image_features
from benchmarks.resident import Resident
from benchmarks.tabular import TableData
from lightning_dataselect import EpsilonGreedy

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def stored(images):
    """Images (N, H, W, 3) as the archives hold them: red and blue less green, then differences along both axes."""
    wide = images.astype(np.int64)
    planes = np.stack([wide[..., 0] - wide[..., 1], wide[..., 1], wide[..., 2] - wide[..., 1]])
    planes[..., 1:] = np.diff(planes, axis=-1)
    planes[..., 1:, :] = np.diff(planes, axis=-2)
    return (planes % 256).astype(np.uint8)


def test_cifar_archives_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    images = {
        part: rng.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8) for part, size in zip("abt", (5, 4, 3), strict=True)
    }
    labels = {part: rng.integers(0, 3, len(these)) for part, these in images.items()}
    np.savez(tmp_path / "cifar10_a.npz", x_train_d=stored(images["a"]), y_train=labels["a"])
    np.savez(
        tmp_path / "cifar10_b.npz",
        **{"x_train_d": stored(images["b"]), "y_train": labels["b"]},
        **{"x_test_d": stored(images["t"]), "y_test": labels["t"]},
    )
    data = ImageData("cifar10", str(tmp_path), n_val=2)
    data.setup("fit")
    together = np.concatenate([images["a"], images["b"]])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(data.val.inputs.permute(0, 2, 3, 1), together[order[:2]])
    assert np.array_equal(data.train.inputs.permute(0, 2, 3, 1), together[order[2:]])
    assert np.array_equal(data.train.classes, np.concatenate([labels["a"], labels["b"]])[order[2:]])
    assert np.array_equal(data.test.inputs.permute(0, 2, 3, 1), images["t"])


def test_labels_are_flipped_in_the_training_set_alone():
    clean, noisy = ImageData("digits", n_val=300), ImageData("digits", n_val=300, noise=0.4)
    clean.setup("fit")
    noisy.setup("fit")
    wrong = clean.train.classes != noisy.train.classes
    assert wrong.float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert set(noisy.train.classes[wrong].tolist()) == set(range(10))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert torch.equal(clean.val.classes, noisy.val.classes) and torch.equal(clean.test.classes, noisy.test.classes)


def test_each_image_is_shifted_on_its_own_and_nothing_is_invented():
    torch.manual_seed(0)
    images = torch.arange(1.0, 26.0).view(1, 1, 5, 5).repeat(64, 1, 1, 1)
    shifted = augment(images, flip=False, crop=2, cutout=0)
    centre = shifted[:, 0, 2, 2]
    assert len(centre.unique()) > 15  # of 25 shifts
    for image, value in zip(shifted[:, 0], centre.long().tolist(), strict=True):
        row, column = divmod(value - 1, 5)
        padded = np.pad(np.arange(1.0, 26.0).reshape(5, 5), 4)
        assert np.array_equal(image, padded[row + 2 : row + 7, column + 2 : column + 7])
    mirrored = augment(images, flip=True, crop=0, cutout=0)
    turned = (mirrored == images.flip(3)).all(dim=(1, 2, 3))
    assert 10 < int(turned.sum()) < 54 and bool((turned | (mirrored == images).all(dim=(1, 2, 3))).all())
    blanked = (augment(images, flip=False, crop=0, cutout=2) == 0).sum(dim=(1, 2, 3))
    assert set(blanked.tolist()) <= {1, 2, 4} and int(blanked.max()) == 4


class Rows(pl.LightningModule):
    """Loses the number that each sample is."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        inputs, _ = batch
        return torch.nn.functional.mse_loss(self.weight.expand(len(inputs)), inputs.sqrt())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_samples_are_chosen_from_a_set_that_is_read_a_batch_at_a_time(tmp_path):
    data = Resident(torch.arange(40.0), torch.zeros(40, dtype=torch.int64))
    selector = EpsilonGreedy(prune_ratio=0.5, every_n_epochs=1, epsilon=0.0, whole_batches=False)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[selector], default_root_dir=tmp_path, **QUIET)
    trainer.fit(Rows(), data.loader(8, shuffle=True))
    assert torch.allclose(selector.losses, torch.arange(40.0), atol=1e-4)
    assert torch.equal(selector.selected, torch.arange(20, 40))


def test_table_is_standardised_by_its_training_rows():
    data = TableData("breast_cancer", n_val=100)
    data.setup("fit")
    assert (len(data.train), len(data.val), len(data.test)) == (320, 100, 149)
    assert torch.allclose(data.train.inputs.mean(0), torch.zeros(30), atol=1e-4)
    assert torch.allclose(data.train.inputs.std(0), torch.ones(30), atol=1e-3)
    assert 0.5 < data.train.classes.float().mean() < 0.75


@pytest.mark.parametrize(
    ("net", "inputs"), [("resnet18", (3, 32, 32)), ("small_cnn", (1, 28, 28)), ("mlp", (64,))], ids=lambda x: str(x)
)
def test_every_network_takes_its_inputs(net, inputs):
    model = Classifier(net, n_inputs=inputs[0], n_classes=10, lr=0.1, width=8)
    assert model(torch.zeros(2, *inputs)).shape == (2, 10)


def kept_features(folder, n=12_000, classes=10):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    halves = ((3 + 2 * x, torch.arange(n) % classes), (3 + 2 * x[:100], torch.arange(100) % classes))
    torch.save(halves, folder / "cifar10_efficientnet_lite0.pt")


def test_features_that_are_kept_come_standardized_and_a_share_of_their_labels_is_wrong(tmp_path):
    kept_features(tmp_path)
    (x, true), (x_test, y_test) = image_features("nowhere", tmp_path)
    assert torch.allclose(x.mean(0), torch.zeros(8), atol=1e-4) and torch.allclose(x.std(0), torch.ones(8), atol=1e-2)
    made = task("image_features_20", 3, "nowhere", tmp_path)
    rows = {tuple(row): int(label) for row, label in zip(x.tolist(), true, strict=True)}
    wrong = [int(label) != rows[tuple(row)] for row, label in zip(made.train[0].tolist(), made.train[1], strict=True)]
    assert len(wrong) == 10_000 and abs(sum(wrong) / len(wrong) - 0.2) < 0.02
    assert set(made.train[1].tolist()) == set(range(10))
    assert torch.equal(made.test[0], x_test) and torch.equal(made.test[1], y_test)
