"""Scheduled settings of optimizers are read as numbers, whatever form the user has given them in."""

from types import SimpleNamespace

import pytest
import torch

from lightning_dataselect.trainer import scheduled_settings


@pytest.mark.parametrize(
    ("betas", "momentum"),
    [((0.9, 0.999), {"momentum": [0.9]}), ([0.8, 0.999], {"momentum": [0.8]}), ((torch.tensor(0.9), 0.99), {})],
)
def test_momentum_is_read_of_pairs_and_lists_but_not_of_tensors_that_may_have_to_be_waited_for(betas, momentum):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0.01)
    optimizer.param_groups[0]["betas"] = betas
    found = scheduled_settings(SimpleNamespace(optimizers=[optimizer]))
    assert found == {"learning rate": [0.1], "weight decay": [0.01], **momentum}
