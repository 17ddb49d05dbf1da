import numpy as np
import pytest
import torch
from scipy import stats

from lightning_dataselect.numerics import parts, shuffle
from lightning_dataselect.numerics.shuffle import random_order


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("chunk", [2**20, 7])
def test_random_order_takes_each_permutation_equally_often(chunk, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    generator, seen = gen(4), {}
    for _ in range(2400):
        order = tuple(random_order(4, generator).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 1000, 2**22 - 1, 2**22, 2**22 + 2**16 + 1])
def test_random_order_is_that_of_random_numbers_in_half_the_bytes(n):
    order = random_order(n, gen())
    numbers = torch.empty(n, dtype=torch.int64).random_(2 ** (62 - n.bit_length()), generator=gen())
    assert order.dtype == torch.int32
    assert np.array_equal(order.numpy(), numbers.numpy().argsort(kind="stable"))


@pytest.mark.parametrize("n_bits", [8, 9, 24, 39])
@pytest.mark.parametrize("block", [64, 100, 5000])
def test_equal_numbers_keep_their_order_across_blocks(n_bits, block, monkeypatch):
    monkeypatch.setattr(shuffle, "_BLOCK", block)
    order = shuffle.order_of_blocks(3000, n_bits, gen(1))
    numbers = torch.empty(3000, dtype=torch.int64).random_(2**n_bits, generator=gen(1)).numpy()
    assert np.array_equal(order.numpy(), numbers.argsort(kind="stable"))
