"""A step under capture, the probed one too, holds no more memory at a time than the step alone."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.memory import peak_bytes
from lightning_dataselect.capture import LossCapture

B, T, WIDTH, VOCABULARY = 4, 16, 8, 4000


def focal(logits: Tensor, y: Tensor) -> Tensor:
    p = logits.softmax(-1).gather(1, y[:, None]).squeeze(1)
    return (-((1 - p) ** 2) * p.log()).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "label_smoothing": lambda logits, y: F.cross_entropy(logits, y, label_smoothing=0.1),
    "focal": focal,
}


@pytest.mark.parametrize("name", LOSSES)
def test_no_step_needs_more_memory_than_without_capture(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), nn.Tanh(), nn.Linear(WIDTH, VOCABULARY))
    tokens = torch.randint(VOCABULARY, (B, T))

    def step() -> Tensor:
        return LOSSES[name](net(tokens).flatten(0, 1), tokens.flatten())

    capture = LossCapture(net)
    step().backward()  # allocates the gradients

    plain = peak(lambda: step().backward())
    probed, later = (peak(lambda: capture.run(step, B)[0].backward()) for _ in range(2))

    assert probed < 1.01 * plain
    assert later < 1.01 * plain


def peak(run: Callable[[], None]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    return peak_bytes(profiler)
