"""`LossCapture` and `register_loss` refuse wrong arguments in a plain sentence."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_dataselect.capture import LossCapture, register_loss
from lightning_dataselect.utils.errors import DataSelectError

MODEL = nn.Linear(2, 1)


def step():
    return MODEL(torch.ones(4, 2)).square().mean()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LossCapture("model"), r"LossCapture\('model'\) was not given a module: give the torch.nn.Module"),
        (lambda: LossCapture(nn.Linear), r"LossCapture\(<class .*Linear'>\) was not given a module"),
        (lambda: LossCapture().run(step(), 4), "cannot be called: give a function without arguments"),
        (lambda: LossCapture().run(step, "4"), "batch_size='4' is not a whole number"),
        (lambda: LossCapture().run(step, None), "batch_size=None is not a whole number"),
        (lambda: LossCapture().run(step, -1), "batch_size=-1 is too small"),
        (lambda: LossCapture().score(step, 0.5), "batch_size=0.5 is not a whole number"),
        (
            lambda: LossCapture().run(step, 4, [1.0] * 4),
            r"weights=\[1.0, 1.0, 1.0, 1.0\] is not a tensor: give",
        ),
        (lambda: LossCapture().run(step, 4, torch.ones(3)), r"weights has the shape \(3,\): give one weight for each"),
        (
            lambda: register_loss("mse"),
            r"register_loss\('mse'\): give the function itself .*, not its name",
        ),
        (lambda: register_loss(lambda x: x), r"needs an argument 'reduction', but it takes x\."),
        (lambda: register_loss(lambda: 0), r"needs an argument 'reduction', but it takes none\."),
    ],
)
def test_it_is_quoted_with_the_fix(call, message):
    with pytest.raises(DataSelectError, match=message):
        call()


def test_a_batch_size_may_be_any_whole_number():
    assert LossCapture().run(step, np.int64(4))[1].losses.shape == (4,)
