"""The columns that Frontier keeps of losses, whenever they are written, beside one sample at a time in float64."""

import copy

import numpy as np
import pytest
import torch
from other_device import Apart

from lightning_dataselect import Frontier
from lightning_dataselect.methods.frontier.renewal import renew
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.state.stream_store import BatchStore, KeyedStore

N = 60
COLUMNS = ("score", "previous", "latest", "visits")


class Diary:
    """The same columns, one sample at a time."""

    def __init__(self):
        self.score, self.previous, self.latest = np.full((3, N), np.nan)
        self.visits = np.zeros(N)

    def see(self, i, losses):
        for sample, loss in zip(i, losses, strict=True):
            if sample < N:
                mean = self.score[sample]
                self.previous[sample], self.latest[sample] = self.latest[sample], loss
                self.score[sample] = loss if np.isnan(mean) else (mean + loss) / 2
                self.visits[sample] += 1

    def check(self, store):
        for name in COLUMNS:
            np.testing.assert_allclose(store.column(name), getattr(self, name), rtol=1e-6, err_msg=name)


def batches(comes_again, n_batches=200):
    """Batches of several sizes: of a shuffled set, over and over, or with samples that come again at any time."""
    rng, order = np.random.default_rng(0), []
    for _ in range(n_batches):
        size = int(rng.integers(1, 8))
        if comes_again:
            i = np.append(rng.choice(N, size, replace=False), N)  # the last one is padding
        else:
            order = order if len(order) >= size else rng.permutation(N).tolist()
            i, order = np.array(order[:size]), order[size:]
        losses = rng.exponential(size=len(i)).astype(np.float32)
        yield i, np.where(rng.random(len(i)) < 0.1, np.nan, losses).astype(np.float32)


def seen(i, losses):
    return Observation(torch.tensor(i), torch.tensor(losses), torch.zeros(len(i), 2), torch.zeros(len(i)).long(), 0)


def take(selector, store, one):
    store.record_losses(one.indices, one.losses)
    selector.observe(one, store)


@pytest.mark.parametrize("read_every", [1, 5, 1000])
@pytest.mark.parametrize("comes_again", [True, False])
def test_whenever_it_is_written_it_is_the_same(comes_again, read_every):
    selector, diary = Frontier(), Diary()
    store = SampleHistoryStore(N, selector.columns())
    for step, (i, losses) in enumerate(batches(comes_again)):
        take(selector, store, seen(i, losses))
        diary.see(i, losses)
        if step % read_every == 0:
            diary.check(store)
            np.testing.assert_array_equal(store["latest"][:N], diary.latest.astype(np.float32))
    diary.check(copy.deepcopy(store))
    diary.check(store)


def test_a_column_shows_what_came_before_without_its_being_asked_to():
    selector = Frontier()
    store = SampleHistoryStore(2, selector.columns())
    for loss in (4.0, 2.0, 8.0, 1.0):
        take(selector, store, seen([1], [loss]))
    assert store["score"][1] == 3.25
    take(selector, store, seen([1], [5.0]))
    store.forget_measured()
    assert store["score"].isnan().all() and store["visits"].eq(0).all()


def test_what_is_loaded_takes_the_place_of_what_is_not_written_yet():
    selector = Frontier()
    store = SampleHistoryStore(2, selector.columns())
    saved = store.state_dict()
    take(selector, store, seen([1], [4.0]))
    store.load_state_dict(saved)
    assert store.column("latest").isnan().all()


def test_a_slot_that_another_sample_takes_has_none_of_the_losses_before():
    selector = Frontier()
    store = KeyedStore(2, selector.columns())
    for key, loss in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        take(selector, store, seen(store.open_batch([key]).tolist(), [loss]))
    assert dict(zip(store.keys, store.column("latest").tolist(), strict=True)) == {"c": 3.0, "b": 2.0}
    assert store.column("previous").isnan().all()


@pytest.mark.parametrize("store", [BatchStore(0, Frontier().columns()), ScoreStore(1, Frontier().columns())])
def test_a_store_that_buffers_nothing_is_written_at_once(store):
    slots = store.open_batch(1) if isinstance(store, BatchStore) else torch.tensor([0])
    store.write_later(renew, slots, torch.tensor([2.0]))
    if isinstance(store, BatchStore):
        store.open_batch(1)
        assert store["latest"].isnan().all()
    else:
        assert store.column("latest").tolist() == [2.0]


def test_on_another_device_nothing_is_asked_of_it():
    store = SampleHistoryStore(3, Frontier().columns())
    store.to("meta")
    two = [(torch.tensor([0, 1], device="meta"), torch.zeros(2, device="meta")) for _ in range(2)]
    with Apart():
        renew(store, two)  # a tensor on the meta device has no value that could be waited for
