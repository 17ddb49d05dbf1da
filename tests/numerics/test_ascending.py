import numpy as np
import pytest
import torch

from lightning_dataselect.numerics import ascending as module
from lightning_dataselect.numerics import parts
from lightning_dataselect.numerics.ascending import ascending


def values_of(kind, n=5000):
    gen = torch.Generator().manual_seed(0)
    normal = torch.randn(n, generator=gen)
    return {
        "normal": normal,
        "many orders of magnitude": (normal * 20).exp(),
        "ties": (normal * 2).round() / 10,
        "constant": torch.full((n,), 0.3),
        "infinite": torch.where(normal > 1, torch.inf, torch.where(normal < -1, -torch.inf, normal)),
        "both zeros": normal.sign() * 0.0,
        "any bits": torch.randint(-(2**31), 2**31 - 1, (n,), generator=gen).int().view(torch.float32).nan_to_num(),
        "one tied group among others": torch.where(normal > 0, 0.75, normal.abs()),
    }[kind]


KINDS = ["normal", "many orders of magnitude", "ties", "constant", "infinite", "both zeros", "any bits"]


@pytest.mark.parametrize("kind", [*KINDS, "one tied group among others"])
@pytest.mark.parametrize("most", [2**22, 50], ids=["bit by bit", "at once where a piece is large"])
def test_values_ascend_as_numpy_sorts_them(monkeypatch, kind, most):
    monkeypatch.setattr(module, "FEWEST", 0)
    monkeypatch.setattr(module, "MOST", most)
    monkeypatch.setattr(parts, "_CHUNK", 700)
    values = values_of(kind)
    mask = torch.rand(len(values), generator=torch.Generator().manual_seed(1)) < 0.7
    before = values.clone()
    found = ascending(values, lambda part: mask[part])
    assert np.array_equal(found.numpy(), np.sort(values.numpy()[mask.numpy()]))
    assert torch.equal(values.view(torch.int32), before.view(torch.int32))


@pytest.mark.parametrize("fewest", [0, 2**20])
def test_of_no_values_none_ascend(monkeypatch, fewest):
    monkeypatch.setattr(module, "FEWEST", fewest)
    assert ascending(torch.ones(5), lambda part: torch.zeros(5, dtype=torch.bool)[part]).shape == (0,)
    assert ascending(torch.ones(0), lambda part: torch.ones(0, dtype=torch.bool)).shape == (0,)


def test_a_million_values_ascend():
    values = torch.rand(2**20 + 3, generator=torch.Generator().manual_seed(2))
    assert np.array_equal(ascending(values, lambda part: values[part] > 0.5), np.sort(values[values > 0.5].numpy()))
