"""Sizes that samples may be sorted by are found in batches of any kind, and where they first differ."""

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from lightning_dataselect.data.sample_sizes import SampleSizes, unlike_samples

Pair = namedtuple("Pair", ["x", "y"])
EVEN, UNEVEN = [5, 5, 5, 5], [5, 5, 3, 5]

BATCHES: dict[str, Any] = {
    "a list of tensors": lambda n: [torch.ones(k) for k in n],
    "a list of arrays": lambda n: [np.ones(k) for k in n],
    "texts": lambda n: {"text": ["a" * k for k in n]},
    "lists of tokens": lambda n: {"ids": [[1] * k for k in n], "scale": 2.0},
    "records": lambda n: [(torch.ones(k), i) for i, k in enumerate(n)],
    "mappings": lambda n: [{"boxes": torch.ones(k, 4), "id": i} for i, k in enumerate(n)],
    "numbers": lambda n: (torch.ones(4, 8), n),
    "a tensor of numbers": lambda n: Pair(torch.ones(4, 8), torch.tensor(n)),
    "a mask": lambda n: {"mask": torch.arange(8) < torch.tensor(n)[:, None]},
    "a mask of real numbers": lambda n: {"mask": (torch.arange(8) < torch.tensor(n)[:, None]).float()},
    "labels": lambda n: torch.where(torch.arange(8) < torch.tensor(n)[:, None], torch.randint(1, 9, (4, 8)), -100),
    "padded tokens": lambda n: (torch.arange(8) < torch.tensor(n)[:, None]) * torch.randint(1, 9, (4, 8)),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_the_first_batch_of_several_sizes_is_noticed_once(kind: str) -> None:
    sizes, make = SampleSizes(), BATCHES[kind]
    assert [sizes.differ_anew(make(n), 4) for n in (EVEN, EVEN, UNEVEN, EVEN, UNEVEN)] == [
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("kind", BATCHES)
def test_a_first_batch_of_several_sizes_leaves_nothing_to_notice(kind: str) -> None:
    sizes, make = SampleSizes(), BATCHES[kind]
    assert not any(sizes.differ_anew(make(n), 4) for n in (UNEVEN, EVEN, UNEVEN))


def test_nothing_is_left_to_notice_once_everything_has_differed() -> None:
    sizes = SampleSizes()
    assert not sizes.all_differ, "nothing has been seen yet"
    for lengths, classes, all_differ in ((EVEN, EVEN, False), (UNEVEN, EVEN, False), (EVEN, UNEVEN, True)):
        sizes.differ_anew({"length": torch.tensor(lengths), "class": classes}, 4)
        assert sizes.all_differ is all_differ


@pytest.mark.parametrize("kind", BATCHES)
def test_samples_of_several_sizes_are_found(kind: str) -> None:
    assert 2 in unlike_samples(BATCHES[kind](UNEVEN), 4, [0, 1, 3])


def test_samples_that_differ_in_several_ways_are_found_one_by_one() -> None:
    batch = {"length": torch.tensor([5, 5, 3, 5, 5]), "label": [0, 0, 0, 0, 1]}
    assert unlike_samples(batch, 5, [0, 1, 3]) == [0, 2, 4]
    assert unlike_samples(batch, 5, [0, 1]) == [0, 2]
    assert unlike_samples({"x": torch.ones(5, 3)}, 5, [4, 0, 2]) == [4, 0, 2]


def test_samples_differ_in_how_many_of_their_labels_are_ignored() -> None:
    labels = torch.tensor([[3, -1, 2], [3, 1, 2], [4, 1, -1], [-1, -1, 2]])
    assert unlike_samples({"labels": labels}, 4, [0, 2, 3]) == [0, 1, 3]


def test_samples_differ_in_how_many_of_their_values_are_missing() -> None:
    rows = torch.tensor([[1.5, 2.0, 3.0], [4.0, 5.0, 6.5], [7.0, torch.nan, 8.0], [2.5, 9.0, 1.0]])
    assert unlike_samples({"rows": rows}, 4, [0, 1, 3]) == [0, 2, 3]


def test_a_batch_of_another_structure_or_of_one_sample_tells_nothing() -> None:
    sizes = SampleSizes()
    assert not sizes.differ_anew([torch.ones(5)], 1)
    assert not sizes.differ_anew({"a": {"n": [5, 5]}}, 2)
    for other in ({"a": 3}, {"b": [5, 5]}, None, [torch.ones(2)] * 3, {"a": {"n": None}}):
        assert not sizes.differ_anew(other, 2)
    assert sizes.differ_anew({"a": {"n": [5, 4]}}, 2)
