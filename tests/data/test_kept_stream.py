"""A stream without what a pass leaves out: which loaders read one, and what it leaves of their data set."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect.data.kept_stream import KeptStream, SampleKey, kept_stream
from lightning_dataselect.state.key_filter import KeyFilter, hashes_of


class Numbers(IterableDataset):
    n = 6

    def __iter__(self):
        return iter(range(self.n))


class Resumed(Numbers):
    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        self.n = state["n"]


class OwnLoader(DataLoader):
    def __iter__(self):
        return super().__iter__()


def without(*keys):
    keeps = KeyFilter(8)
    keeps.leave_out(hashes_of(keys))
    return keeps


def test_it_is_its_data_set_but_for_what_is_left_out():
    numbers = Numbers()
    kept = KeptStream(numbers, without(1, 2), int)
    assert list(kept) == [0, 3, 4, 5] and kept.n == 6
    kept.n = 4
    assert numbers.n == 4 and list(kept) == [0, 3] and list(pickle.loads(pickle.dumps(kept))) == [0, 3]
    with pytest.raises(TypeError, match="has no len"):
        len(kept)
    with pytest.raises(AttributeError, match="nothing"):
        _ = kept.nothing


def test_it_stands_back_where_the_data_set_asks_itself():
    keeps = without(1)
    assert list(KeptStream(Numbers(), keeps, int)) == [0, 2, 3, 4, 5]
    keeps(7)
    assert list(KeptStream(Numbers(), keeps, int)) == [0, 1, 2, 3, 4, 5]


def test_only_a_data_set_with_a_state_has_one():
    keeps = without()
    plain, resumed = (kept_stream(DataLoader(data, 2), keeps, "id") for data in (Numbers(), Resumed()))
    assert not hasattr(plain, "state_dict") and resumed.state_dict() == {"n": 6}
    resumed.load_state_dict({"n": 2})
    assert resumed.n == 2


def test_loaders_that_make_batches_of_samples_read_it():
    keeps = without()
    for loader in (DataLoader(Numbers(), 2), StatefulDataLoader(Numbers(), 2)):
        assert isinstance(kept_stream(loader, keeps, "id"), KeptStream)
    for loader in (DataLoader(Numbers(), None), OwnLoader(Numbers(), 2), DataLoader(range(4), 2), [1, 2], iter(())):
        assert kept_stream(loader, keeps, "id") is None


@pytest.mark.parametrize(
    ("sample", "sample_id", "key"),
    [
        ({"x": 1.0, "id": "a"}, "id", "a"),
        ((1.0, torch.tensor(7)), 1, 7),
        ({"id": b"a"}, "id", b"a"),
        ((1.0, "a"), lambda batch: [name + "!" for name in batch[1]], "a!"),
    ],
)
def test_the_key_of_a_sample_is_that_of_a_batch_of_it(sample, sample_id, key):
    collate = DataLoader([sample]).collate_fn
    assert SampleKey(sample_id, collate)(sample) == key


@pytest.mark.parametrize(
    ("sample_id", "words"), [("x", "strings or whole numbers"), ("key", "is no field of the batch")]
)
def test_a_sample_without_a_key(sample_id, words):
    with pytest.raises(ValueError, match=words):
        SampleKey(sample_id, DataLoader([0]).collate_fn)({"x": 1.5, "id": "a"})
