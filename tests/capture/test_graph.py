"""A graph is walked to its ends, and what looks at the tensors saved for it is noticed."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_dataselect.capture.loss.graph import saving_is_noted, within_checkpoint


def test_a_checkpoint_is_known_by_hooks_and_by_the_stack_alike() -> None:
    """The latter is all there is in torch before 2.7."""
    x, inside = torch.ones(2, requires_grad=True), []

    def loss(x: Tensor) -> Tensor:
        inside.append((saving_is_noted(), within_checkpoint()))
        return x.sin().sum()

    checkpoint(loss, x, use_reentrant=False).backward()
    loss(x)
    assert inside == [(True, True), (True, True), (False, False)]
