"""Scoring on smaller images, and whole batches in between, as in composer's SelectiveBackprop."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import fit, loader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import BatchSelector

N, BATCH = 40, 10


class Highest(BatchSelector):
    """Takes the highest losses, and writes down what was seen."""

    def __init__(self, **common):
        super().__init__(**{"warmup_epochs": 0, "batch_ratio": 0.5, **common})
        self.scored = []

    def choose(self, seen, k, generator):
        self.scored.append((seen.indices.clone(), seen.losses.clone()))
        return seen.losses.topk(k).indices


class Images(L.LightningModule):
    """Lists sizes and weights at each pass; images are averaged, so that any size will do."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
            self.head = nn.Linear(16, 3)
        trained, scored = [], []
        self.trained = trained

        def training_step(batch, batch_idx):
            x, y = batch["more"] if isinstance(batch, dict) else batch
            if len(x) in (BATCH // 2, BATCH):  # and no few samples, as the witness takes
                weights = [p.detach().clone() for p in self.parameters()]
                (trained if self.training else scored).append((tuple(x.shape), weights))
            return F.cross_entropy(self.head(self.net(x)), y)

        training_step.scored = scored  # out of sight of the guard that takes back what a scoring pass does
        self.training_step = self.step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 1, 8, 8, generator=generator), torch.randint(3, (N,), generator=generator)


def nested(samples):
    x, y = zip(*samples, strict=True)
    return {"more": (torch.stack(x), torch.stack(y)), "ids": ["a"] * len(x)}


@pytest.mark.parametrize("collate", [None, nested])
def test_scores_are_those_of_the_smaller_images(collate):
    selector, module, data = Highest(score_scale=0.5), Images(), TensorDataset(*images())
    fit(selector, module, DataLoader(data, BATCH, shuffle=True, collate_fn=collate), max_epochs=2, limit_val_batches=0)
    assert {shape for shape, _ in module.step.scored} == {(BATCH, 1, 4, 4)}
    assert {shape for shape, _ in module.trained} == {(BATCH // 2, 1, 8, 8)}
    x, y = data.tensors
    plain = Images()
    assert len(selector.scored) == len(module.trained) == 2 * N // BATCH
    for (indices, losses), (_, weights) in zip(selector.scored, module.trained, strict=True):
        for p, value in zip(plain.parameters(), weights, strict=True):
            p.data = value
        # halving bilinearly is the mean of two by two
        small = x[indices].reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
        with torch.no_grad():
            expected = F.cross_entropy(plain.head(plain.net(small)), y[indices], reduction="none")
        torch.testing.assert_close(losses, expected)


def test_batch_without_images_is_an_error_on_the_first_batch():
    with pytest.raises(ValueError, match=r"score_scale=0.5 found no images in the batch: no float tensor of four"):
        fit(Highest(score_scale=0.5), train=loader(), max_epochs=1)


@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_every_nth_batch_is_whole_and_not_scored(every):
    selector, module = Highest(whole_every_n_batches=every), Images()
    train = DataLoader(TensorDataset(*images()), BATCH, shuffle=True)
    fit(selector, module, train, max_epochs=2, limit_val_batches=0)
    whole = [every > 0 and batch % every == every - 1 for batch in range(N // BATCH)] * 2
    assert [shape[0] for shape, _ in module.trained] == [BATCH if is_whole else BATCH // 2 for is_whole in whole]
    assert len(selector.scored) == whole.count(False)
    n_whole, n_cut = whole.count(True) // 2, whole.count(False) // 2
    counts = [(r["n_forward"], r["n_backward"]) for r in selector.history]
    assert counts == [(BATCH * n_whole + BATCH * 3 // 2 * n_cut, BATCH * n_whole + BATCH // 2 * n_cut)] * 2
    assert selector.losses.isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_scale": 0}, "score_scale=0 is outside \\(0, 1\\]: give the factor"),
        ({"score_scale": 2}, r"score_scale=2 is outside \(0, 1\]"),
        ({"whole_every_n_batches": -1}, "whole_every_n_batches=-1 is too small"),
    ],
)
def test_arguments_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        Highest(**options)
