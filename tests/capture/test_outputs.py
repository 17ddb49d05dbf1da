"""Logits and targets are those of the step's losses, where loss functions were left unreduced, too."""

import torch
import torch.nn.functional as F

from lightning_dataselect.capture.loss.terms import Source
from lightning_dataselect.capture.reading.outputs import classes_of_sources

B, C = 4, 3


def source() -> Source:
    logits, targets = torch.randn(B, C, requires_grad=True), torch.randint(C, (B,))
    return Source((logits, targets), F.cross_entropy(logits, targets, reduction="none"))


def test_the_loss_says_whose_logits_they_are_and_the_first_ones_are_taken_where_it_cannot() -> None:
    first, second = source(), source()
    of_second, of_first, of_nobody = (
        classes_of_sources([first, second], B, second.losses.mean()),
        classes_of_sources([first, second], B, None),
        classes_of_sources([first, second], B, None, any_may_do=False),
    )
    assert of_second is not None and torch.equal(of_second[0], second.classes[0])
    assert of_first is not None and torch.equal(of_first[0], first.classes[0])
    assert of_nobody is None
