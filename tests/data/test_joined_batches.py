"""Samples of several batches, cut, put into one and given out again, whatever the batches are made of."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lightning_dataselect.data.batch_layout import BatchLayout
from lightning_dataselect.data.gathered import GatheredSamples
from lightning_dataselect.data.joined_batches import join_batches
from lightning_dataselect.data.subset_batch import subset_batch
from lightning_dataselect.state.selection import BatchSamples
from lightning_dataselect.utils.errors import UnsupportedLoaderError

Pair = namedtuple("Pair", "x y")


@dataclass
class Fields:
    x: torch.Tensor
    name: list


KINDS = {
    "a tensor": lambda rows: torch.tensor(rows),
    "a tuple": lambda rows: (torch.tensor(rows), torch.tensor(rows).float()),
    "a named tuple": lambda rows: Pair(torch.tensor(rows), torch.tensor(rows)[:, None].expand(-1, 3)),
    "a list of fields": lambda rows: [torch.tensor(rows), [str(row) for row in rows]],
    "a dict within a dict": lambda rows: {"a": {"x": torch.tensor(rows)}, "name": [f"{row}.jpg" for row in rows]},
    "an encoding": lambda rows: UserDict(ids=torch.tensor(rows), mask=torch.ones(len(rows), 2)),
    "a dataclass": lambda rows: Fields(torch.tensor(rows), [bytes([row]) for row in rows]),
    "an array": lambda rows: {"x": np.array(rows), "t": torch.tensor(rows)},
    "what is one for all": lambda rows: {"x": torch.tensor(rows), "scale": 2.0, "grid": torch.eye(7), "task": "a"},
}


def cut(batch, size, positions, layout):
    return subset_batch(batch, torch.tensor(positions, dtype=torch.int64), size, layout.axes)


def same(one, other):
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_joined_parts_are_the_batch_of_their_samples(make):
    layout = BatchLayout()
    first, second = make([0, 1, 2, 3, 4]), make([5, 6, 7, 8, 9])
    parts = [cut(first, 5, [4, 1], layout), cut(second, 5, [0, 3, 2], layout)]
    assert same(join_batches(parts, [2, 3], layout), make([4, 1, 5, 8, 7]))
    assert same(first, make([0, 1, 2, 3, 4]))  # left as it is


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_samples_come_out_in_the_order_in_which_they_went_in(make):
    generator = np.random.default_rng(0)
    layout, gathered, waiting, row = BatchLayout(), GatheredSamples(), [], 0
    for _ in range(40):
        rows = list(range(row % 90, row % 90 + 6))
        row += 6
        positions = generator.permutation(6)[: generator.integers(7)].tolist()
        part = cut(make(rows), 6, positions, layout)
        if positions:
            gathered.add(part, BatchSamples(torch.tensor(positions)))
        waiting += [rows[position] for position in positions]
        assert len(gathered) == len(waiting)
        if (n := int(generator.integers(6))) and n <= len(waiting):
            batch, weights = gathered.take(n, layout)
            assert weights is None and same(batch, make(waiting[:n]))
            del waiting[:n]
        restored = GatheredSamples()
        restored.load_state_dict(gathered.state_dict())
        gathered = restored
    gathered.drop(len(waiting) - 2, layout)
    assert same(gathered.take(2, layout)[0], make(waiting[-2:]))


def test_weights_stay_with_their_samples_and_are_one_where_there_are_none():
    layout, gathered = BatchLayout(), GatheredSamples()
    for rows, weights in (([1, 2], None), ([3, 4, 5], torch.tensor([0.5, 2.0, 3.0]))):
        batch = cut(torch.tensor(rows), len(rows), list(range(len(rows))), layout)
        gathered.add(batch, BatchSamples(torch.tensor(rows), weights))
    batch, weights = gathered.take(4, layout)
    assert batch.tolist() == [1, 2, 3, 4] and weights.tolist() == [1.0, 1.0, 0.5, 2.0]
    batch, weights = gathered.take(1, layout)
    assert batch.tolist() == [5] and weights.tolist() == [3.0]


def test_a_count_of_samples_is_that_of_all():
    layout = BatchLayout()
    layout.per_sample["n",] = 2.0  # as the collate function was seen to make it
    parts = [{"x": torch.zeros(2), "n": 4}, {"x": torch.zeros(3), "n": 6}]
    layout.axes["x",] = 0
    assert join_batches(parts, [2, 3], layout)["n"] == 10


REFUSED = {
    "number at 'temperature' that is not per sample": lambda i: {"x": torch.zeros(4), "temperature": float(i)},
    "Tensor at 'grid' that is not per sample": lambda i: {"x": torch.zeros(4), "grid": torch.full((7,), i)},
    "str at 'task' that is not per sample": lambda i: {"x": torch.zeros(4), "task": f"task {i}"},
    r"samples of different sizes at 'x', \(5,\) and \(6,\)": lambda i: {"x": torch.zeros(4, 5 + i)},
    "Some batches have an entry at 'more' and others have none": lambda i: (
        {"x": torch.zeros(4)} if i else {"x": torch.zeros(4), "more": torch.zeros(4)}
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_belongs_to_a_batch_and_not_to_its_samples_is_refused(words):
    layout = BatchLayout()
    parts = [cut(REFUSED[words](i), 4, [0, 2], layout) for i in range(2)]
    with pytest.raises(UnsupportedLoaderError, match=f"{words}.*constant_batch_size=False"):
        join_batches(parts, [2, 2], layout)
