"""How many samples a batch holds of which nobody has drawn the indices."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lightning_dataselect.data.row_count import RowCounter


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
