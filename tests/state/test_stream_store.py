"""Columns of samples that have no index, beside a plain dict that does the same."""

import random
from collections import OrderedDict

import pytest
import torch

from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.stream_store import BatchStore, KeyedStore


def test_a_batch_store_forgets():
    store = BatchStore(0, {"s": 7.0})
    slots = store.open_batch(3)
    store["s"][slots] = 1.0
    slots = store.open_batch(5)
    assert slots.tolist() == [0, 1, 2, 3, 4] and store["s"][slots].tolist() == [7.0] * 5
    assert store.column("s").numel() == 0 and store.state_dict() == {} and store.n_samples == float("inf")


@pytest.mark.parametrize("capacity", [8, 50, 3000])
def test_a_keyed_store_remembers_what_came_last(capacity):
    rng = random.Random(capacity)
    store, expected = KeyedStore(capacity, {"s": 7.0}), OrderedDict()
    for turn in range(400):
        keys = rng.sample(range(4 * capacity), 5)
        for key in keys:
            if key in expected:
                expected.move_to_end(key)
        for key in keys:
            if key not in expected and len(expected) == capacity:
                expected.popitem(last=False)
            expected.setdefault(key, 7.0)
        slots = store.open_batch(keys)
        assert store["s"][slots].tolist() == [expected[key] for key in keys], turn
        store["s"][slots] = torch.tensor([float(turn + i) for i in range(5)])
        expected |= {key: float(turn + i) for i, key in enumerate(keys)}
    assert dict(zip(store.keys, store.column("s").tolist(), strict=True)) == dict(expected)
    assert store.n <= capacity


def test_saved_and_loaded():
    store = KeyedStore(4, {"s": 0.0})
    store["s"][store.open_batch(["a", "b", "c"])] = torch.tensor([1.0, 2.0, 3.0])
    store.open_batch(["a"])
    logits = torch.tensor([[2.0, 0.0]])
    store.record_logits(Observation(store.open_batch(["b"]), torch.zeros(1), logits, torch.tensor([0]), 5))
    again = KeyedStore(4, {"s": 0.0})
    again.load_rank_state(store.rank_state())
    by_key = dict(zip(again.keys, again.column("s").tolist(), strict=True))
    assert by_key == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert dict(zip(again.keys, again.column("first_learnt").tolist(), strict=True))["b"] == 5
    again.open_batch(["d", "e"])  # c came longest ago
    assert set(again.keys) == {"a", "b", "d", "e"}
    smaller = KeyedStore(2, {"s": 0.0})
    smaller.load_rank_state(store.rank_state())
    assert dict(zip(smaller.keys, smaller.column("s").tolist(), strict=True)) == {"a": 1.0, "b": 2.0}


def test_a_slot_that_is_taken_over_has_no_history():
    store = KeyedStore(2)
    store.count_trained(store.open_batch(["a", "b"]))
    store.count_trained(store.open_batch(["c"]))
    assert dict(zip(store.keys, store.column("times_trained").tolist(), strict=True)) == {"c": 1, "b": 1}


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="history_size=2 is less than a batch of 3"):
        KeyedStore(2).open_batch([1, 2, 3])
