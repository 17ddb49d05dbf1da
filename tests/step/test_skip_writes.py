"""Writes of a step to tensors that stay are left out, whichever way it goes about them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_dataselect.step.skip_writes import SkipWrites, UnskippableWriteError

WRITES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda w: w.add_(1),
    "an operator": lambda w: w.__imul__(2),
    "an index": lambda w: w.__setitem__(0, 5.0),
    "through data": lambda w: w.data.mul_(2),
    "a view": lambda w: w.view(4)[1:].zero_(),
    "several at once": lambda w: torch._foreach_add_([w, torch.zeros(2, 2)], 1.0),
    "out": lambda w: torch.add(w, 1, out=w),
    "initialised anew": nn.init.xavier_normal_,
    "copied": lambda w: w.copy_(torch.zeros(2, 2)),
    "filled where masked": lambda w: w.masked_fill_(torch.eye(2).bool(), 7.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_every_way_to_write_is_left_out(name: str) -> None:
    weight, other = torch.ones(2, 2), torch.ones(2, 2)
    with SkipWrites([weight]), torch.no_grad():
        WRITES[name](weight)
        WRITES[name](other)
    assert torch.equal(weight, torch.ones(2, 2)) and not torch.equal(other, weight)


def test_what_is_returned_is_what_stays() -> None:
    weight = torch.ones(2)
    with SkipWrites([weight]):
        assert weight.mul_(3) is weight
        assert torch.equal(weight.mul_(3) + 1, torch.full((2,), 2.0))


def test_an_operator_that_also_computes_something_is_refused() -> None:
    mean = torch.zeros(3)
    normalise = torch.ops.aten._native_batch_norm_legit
    with SkipWrites([mean]), pytest.raises(UnskippableWriteError):
        normalise(torch.randn(4, 3), None, None, mean, torch.ones(3), True, 0.1, 1e-5)
    assert torch.equal(mean, torch.zeros(3))
