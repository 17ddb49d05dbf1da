"""Loaders of a user's class may leave batches out or hold them back; rows that change places are noticed."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import Net, dataset, fit, trainer
from torch.utils.data import DataLoader

from lightning_dataselect import EvolvedSampling, InfoBatch, RandomPruning
from lightning_dataselect.utils.errors import InvalidLoaderError, UnsupportedTrainerError

MAKE = [lambda: InfoBatch(prune_ratio=0.5), lambda: EvolvedSampling(batch_ratio=0.5)]


class Frozen(Net):
    """Trains nothing, so that the loss of a sample stays, and takes the first two parts of a batch."""

    def __init__(self):
        super().__init__(lr=0.0)
        self.trained = set()

    def training_step(self, batch, batch_idx):
        self.trained.update(tuple(x.tolist()) for x in batch[0])
        return super().training_step(tuple(batch[:2]), batch_idx)

    def validation_step(self, batch, batch_idx):
        pass

    def wrong(self, losses):
        x, y = dataset().tensors
        right = F.cross_entropy(self.net(x), y, reduction="none").detach()
        seen = torch.tensor([tuple(row.tolist()) in self.trained for row in x])
        assert seen.any()
        return int((~torch.isclose(losses, right, atol=1e-5))[seen].sum())


class LeavesOut(DataLoader):
    def __iter__(self):
        yield from (batch for i, batch in enumerate(super().__iter__()) if i % 3 != 1)


class LeavesOutAndAdds(DataLoader):
    def __iter__(self):
        for i, (x, y) in enumerate(super().__iter__()):
            if i not in (0, 4):
                yield x, y, torch.tensor(i)


class ReadsAhead(DataLoader):
    def __iter__(self):
        waiting = []
        for batch in super().__iter__():
            waiting.append(batch)
            if len(waiting) == 3:
                yield waiting.pop(0)
        yield from waiting


class ReadsAheadAndCopies(ReadsAhead):
    def __iter__(self):
        for x, y in super().__iter__():
            yield x.clone(), y.clone()


class ItsOwnIterator(DataLoader):
    def __iter__(self):
        self.batches = super().__iter__()
        return self

    def __next__(self):
        return next(self.batches)


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("cls", [LeavesOut, LeavesOutAndAdds, ReadsAhead, ReadsAheadAndCopies, ItsOwnIterator])
def test_losses_belong_to_the_samples_of_the_batches_that_are_yielded(cls, n_workers, make):
    selector, net = make(), Frozen()
    fit(selector, net, cls(dataset(), 10, shuffle=True, num_workers=n_workers), max_epochs=3)
    assert net.wrong(selector.losses) == 0


class LeavesOutCopies(DataLoader):
    def __iter__(self):
        yield from ((x.clone(), y.clone()) for i, (x, y) in enumerate(super().__iter__()) if i % 3 != 1)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(InvalidLoaderError, match="own __iter__ changes the batches that it reads, and yields more"):
        fit(InfoBatch(), Frozen(), LeavesOutCopies(dataset(), 10, shuffle=True), max_epochs=3)


class ReadsByItself(DataLoader):
    def __iter__(self):
        yield from zip(*(part.split(10) for part in dataset().tensors), strict=True)


def test_a_loader_that_draws_no_samples_is_refused_with_the_reason():
    with pytest.raises(UnsupportedTrainerError, match="has to draw the samples of each batch from its batch_sampler"):
        fit(InfoBatch(), Frozen(), ReadsByItself(dataset(), 10), max_epochs=2)


def turned(batch):
    return [part.flip(0) for part in batch]


class TurnsBefore(Frozen):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return turned(batch)


class TurnsAfter(Frozen):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return turned(batch)


class SortsInPlace(Frozen):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        order = batch[0][:, 0].argsort()
        for part in batch:
            part.copy_(part[order])
        return batch


class Turns(DataLoader):
    def __iter__(self):
        yield from map(turned, super().__iter__())


class TurningData(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(dataset(), 10, shuffle=True)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return turned(batch)


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize(
    "module, loader",
    [(TurnsBefore, DataLoader), (TurnsAfter, DataLoader), (SortsInPlace, DataLoader), (Frozen, Turns)],
)
def test_rows_that_change_places_on_their_way_are_refused(module, loader, make):
    with pytest.raises(InvalidLoaderError, match="in another order when they reach the training step"):
        fit(make(), module(), loader(dataset(), 10, shuffle=True), max_epochs=2)


def test_a_datamodule_is_watched_too_and_a_method_without_losses_is_not():
    with pytest.raises(InvalidLoaderError, match="in another order"):
        trainer(InfoBatch()).fit(Frozen(), datamodule=TurningData())
    trainer(RandomPruning(prune_ratio=0.5)).fit(Frozen(), datamodule=TurningData())


class Augments(Frozen):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return x + 0.1 * torch.randn_like(x), y


class Mixes(Frozen):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        (x, y), order = batch, torch.randperm(len(batch[0]))
        return 0.7 * x + 0.3 * x[order], y, y[order]


class Halves(Frozen):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0].double().float(), batch[1]


@pytest.mark.parametrize("module", [Augments, Mixes, Halves])
def test_no_other_change_is_blamed(module):
    fit(InfoBatch(prune_ratio=0.5), module(), DataLoader(dataset(), 10, shuffle=True), max_epochs=3)
