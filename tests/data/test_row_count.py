"""How many samples a batch holds of which nobody has drawn the indices."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lightning_dataselect.data.row_count import RowCounter, rows_agreed_on


@dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


def batch_of(n):
    return {
        "pair": (torch.zeros(n, 4), torch.zeros(n)),
        "array": np.zeros((n, 2)),
        "names": [f"{i}" for i in range(n)],
        "scale": torch.tensor(2.0),
    }


@pytest.mark.parametrize("known", [8, None])
def test_containers(known):
    counter = RowCounter(known)
    assert [counter.count(batch_of(n)) for n in (8, 8, 3)] == [8, 8, 3]


def test_dataclasses_and_plain_tensors():
    assert RowCounter(None).count(Pair(torch.zeros(5, 2), torch.zeros(5))) == 5
    assert RowCounter(None).count(torch.zeros(5, 2)) == 5


def test_lists_of_one_item_a_sample():
    def images(n):
        return [torch.zeros(3, 4 + i, 4) for i in range(n)], [{"boxes": torch.zeros(i, 4)} for i in range(n)]

    counter = RowCounter(8)
    assert [counter.count(images(n)) for n in (8, 5)] == [8, 5]


def test_a_part_of_another_first_axis_is_passed_over_where_the_size_is_known():
    def time_major(n):
        return torch.zeros(11, n, 4), torch.zeros(n)

    counter = RowCounter(8)
    assert [counter.count(time_major(n)) for n in (8, 5)] == [8, 5]


def test_what_stays_where_others_change_is_no_sample_axis():
    counter = RowCounter(8)
    batches = [(torch.zeros(n, 4), torch.zeros(8)) for n in (8, 8, 5, 8)]  # 8 class weights, by chance
    assert [counter.count(batch) for batch in batches] == [8, 8, 5, 8]


@pytest.mark.parametrize("batch", [(torch.zeros(11, 8), torch.zeros(8)), {"scale": 2.0}, "text"])
def test_what_cannot_be_told_is_refused(batch):
    with pytest.raises(TypeError, match="cannot be determined.*batch_size=.*sample_id"):
        RowCounter(None).count(batch)


IMAGES = [torch.zeros(3, 4 + i, 4) for i in range(8)]
GRAPHS = {"x": torch.zeros(30, 4), "edges": torch.zeros(2, 50), "graph": torch.zeros(30)}


@pytest.mark.parametrize(
    ("batch", "n", "rows"),
    [
        ((torch.zeros(8, 4), torch.zeros(8)), 7, 8),
        (torch.zeros(8), 9, 8),
        (Pair(torch.zeros(8, 4), torch.zeros(8)), 1, 8),
        ({"x": np.zeros((8, 4)), "n": 3, "name": "batch", "more": None}, 7, 8),
        ((IMAGES, [{"boxes": torch.zeros(i, 4)} for i in range(8)]), 9, 8),
        (((torch.zeros(8, 4), torch.zeros(8, 4)), torch.zeros(8)), 7, 8),
        (["a", "b"], 1, None),
        ((torch.zeros(8, 4), torch.zeros(8)), 8, None),
        ({"x": torch.zeros(8, 4), "id": ["a"] * 7}, 7, None),
        ((IMAGES, [{"boxes": torch.zeros(i, 4)} for i in range(8)]), 8, None),
        ([[torch.zeros(8, 4), torch.zeros(8, 4)]], 8, None),
        (torch.zeros(11, 8), 8, None),  # time first
        (GRAPHS, 5, None),
        ({"x": object(), "scale": torch.zeros(3)}, 8, None),
        ({"scale": 2.0}, 8, None),
    ],
)
def test_rows_that_all_parts_agree_on(batch, n, rows):
    assert rows_agreed_on(batch, n) == rows


def test_the_part_that_is_told_apart_does_not_count():
    keys = ["a"]
    assert rows_agreed_on({"x": torch.zeros(8), "id": keys}, 1, besides=keys) == 8
    assert rows_agreed_on({"x": torch.zeros(8), "id": keys}, 1) is None
