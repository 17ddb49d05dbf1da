"""The workers of a loader end with the epoch, or the pass, that they were started for."""

import gc
import multiprocessing

import lightning as L
import pytest
from helpers import Net, fit, loader
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect import KAKURENBO, Frontier, InfoBatch, SelectiveBackprop

N_WORKERS = 2


@pytest.fixture(autouse=True)
def _without_garbage_collection():
    # which would end workers that live on, after five seconds each
    before = set(multiprocessing.active_children())
    gc.collect()
    gc.disable()
    yield
    for left in set(multiprocessing.active_children()) - before:
        left.kill()
    gc.enable()


class CountsWorkers(L.Callback):
    def __init__(self):
        self.others, self.found = set(multiprocessing.active_children()), []

    def on_train_batch_end(self, *_):
        self.found.append(self.now())

    def now(self):
        return len(set(multiprocessing.active_children()) - self.others)


@pytest.mark.parametrize("persistent_workers", [False, True])
@pytest.mark.parametrize(
    "make",
    [InfoBatch, lambda: Frontier(budget=0.5), SelectiveBackprop, lambda: KAKURENBO(tau=0.0)],
    ids=["InfoBatch", "Frontier", "SelectiveBackprop", "KAKURENBO"],
)
def test_workers_end_with_their_epoch(make, persistent_workers):
    counts = CountsWorkers()
    train = loader(num_workers=N_WORKERS, persistent_workers=persistent_workers, multiprocessing_context="fork")
    fit(make(), Net(), train, callbacks=[counts], max_epochs=3)
    assert set(counts.found) == {N_WORKERS} and counts.now() == 0


def test_workers_of_a_stateful_loader_end_with_their_epoch():
    counts, plain = CountsWorkers(), loader()
    train = StatefulDataLoader(plain.dataset, 10, shuffle=True, num_workers=N_WORKERS, multiprocessing_context="fork")
    fit(InfoBatch(), Net(), train, callbacks=[counts], max_epochs=3)
    assert set(counts.found) == {N_WORKERS} and counts.now() == 0
