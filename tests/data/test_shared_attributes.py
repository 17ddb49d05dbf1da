"""A loader of a user's class answers, and hears, as it would without a selector."""

import pytest
import torch
from helpers import Net, Shares, dataset, fit
from torch.utils.data import DataLoader, default_collate

from lightning_dataselect import EvolvedSampling


class Numbered(DataLoader):
    """Adds the epoch that it was told to each batch."""

    epoch, passes = 0, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.passes += 1
        epoch = self.epoch
        for x, y in super().__iter__():
            yield x, y, torch.full((len(x),), epoch)


def numbered(epoch):
    def collate(samples):
        x, y = default_collate(samples)
        return x, y, torch.full((len(x),), epoch)

    return collate


def made(kind, n_workers=0):
    collate = numbered(0) if kind == "collate_fn" else None
    cls = DataLoader if kind == "collate_fn" else Numbered
    return cls(dataset(), 10, shuffle=True, collate_fn=collate, num_workers=n_workers)


def write(loader, kind, epoch):
    if kind == "collate_fn":
        loader.collate_fn = numbered(epoch)
    elif kind == "epoch":
        loader.epoch = epoch
    else:
        loader.set_epoch(epoch)


class Writing(Net):
    """Writes to the loader that it finds, or to the one that the user has kept, between epochs."""

    def __init__(self, kind, kept=None):
        super().__init__()
        self.kind, self.kept = kind, kept
        self.found, self.passes = [], []

    def training_step(self, batch, batch_idx):
        x, y, epoch = batch
        self.found.append((self.trainer.current_epoch, *epoch.unique().tolist()))
        return super().training_step((x, y), batch_idx)

    def on_train_epoch_end(self):
        loader = self.kept or self.trainer.train_dataloader
        write(loader, self.kind, self.trainer.current_epoch + 1)
        self.passes.append(getattr(self.trainer.train_dataloader, "passes", None))


@pytest.mark.parametrize("kind", ["collate_fn", "epoch", "set_epoch"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("make", [lambda: None, lambda: Shares(0.5), lambda: EvolvedSampling(batch_ratio=0.5)])
def test_what_is_written_to_the_loader_takes_effect(make, kept, kind):
    train = made(kind)
    net = Writing(kind, train if kept else None)
    fit(make(), net, train, max_epochs=3)
    assert set(net.found) == {(0, 0), (1, 1), (2, 2)}
    assert net.passes == ([None] * 3 if kind == "collate_fn" else [1, 2, 3])


def test_the_collate_function_that_takes_its_place_is_checked_too():
    class Turning(Net):
        def on_train_epoch_end(self):
            self.trainer.train_dataloader.collate_fn = lambda samples: default_collate(samples[::-1])

    with pytest.raises(ValueError, match="reorders the samples of a batch"):
        fit(Shares(0.5), Turning(), DataLoader(dataset(), 10), max_epochs=2)


def test_workers_are_given_it_with_the_next_pass():
    net = Writing("collate_fn")
    fit(Shares(0.5), net, made("collate_fn", n_workers=1), max_epochs=2)
    assert set(net.found) == {(0, 0), (1, 1)}
