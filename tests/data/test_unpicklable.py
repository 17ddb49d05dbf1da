"""Data sets that cannot be pickled: torch's own error where workers would need them so, and a fit without workers."""

import threading

import pytest
import torch
from helpers import Hardest, dataset, fit, same_weights
from torch.utils.data import DataLoader, Dataset

from lightning_dataselect import EvolvedSampling


class Locked(Dataset):
    """Holds a lock, as a data set with an open file or a connection does."""

    def __init__(self):
        self.rows, self.lock = dataset(), threading.Lock()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        with self.lock:
            return self.rows[index]


def own_state(loader):
    return {name: value for name, value in vars(loader).items() if not name.startswith("_DataLoader__")}


def make(name):
    return Hardest(prune_ratio=0.5) if name == "Hardest" else EvolvedSampling(warmup_epochs=0)


@pytest.mark.parametrize("name", ["Hardest", "EvolvedSampling"])
@pytest.mark.parametrize("options", [{}, {"num_workers": 1, "multiprocessing_context": "fork"}], ids=["none", "fork"])
def test_where_nothing_is_pickled_the_fit_is_that_of_the_rows(name, options):
    (selector, other), (locked, plain) = (make(name), make(name)), (Locked(), dataset())
    loader = DataLoader(locked, 20, shuffle=True, **options)
    before = own_state(loader)
    _, net = fit(selector, train=loader, max_epochs=3)
    _, expected = fit(other, train=DataLoader(plain, 20, shuffle=True, **options), max_epochs=3)
    assert same_weights(net, expected)
    assert torch.equal(selector.selected, other.selected)
    assert own_state(loader) == before and loader.dataset is locked


def reasons(error):
    """Return the messages of ``error`` and of what it came from."""
    return [] if error is None else [*reasons(error.__context__), str(error)]


@pytest.mark.filterwarnings("ignore")
def test_spawned_workers_end_the_fit_as_without_a_selector_and_leave_the_loader_alone(monkeypatch):
    # set by seed_everything(workers=True) in an earlier test, it has Lightning itself change the loader
    monkeypatch.delenv("PL_SEED_WORKERS", raising=False)
    locked, selector = Locked(), Hardest(prune_ratio=0.5)
    loader = DataLoader(locked, 20, shuffle=True, num_workers=1, multiprocessing_context="spawn")
    before, ends = own_state(loader), []
    for chosen in (None, selector):
        with pytest.raises(Exception) as end:
            fit(chosen, train=loader, max_epochs=3)
        ends.append((end.type, reasons(end.value)))
    assert ends[0] == ends[1] and "cannot pickle '_thread.lock' object" in ends[1][1]
    assert own_state(loader) == before and loader.dataset is locked
    # the same selector is as good as new for a loader that needs no pickling
    _, net = fit(selector, train=DataLoader(locked, 20, shuffle=True), max_epochs=3)
    _, expected = fit(Hardest(prune_ratio=0.5), train=DataLoader(locked, 20, shuffle=True), max_epochs=3)
    assert same_weights(net, expected)
