"""Steady steps on a device that is not the CPU and cannot be mixed with it leave nothing there, and read nothing."""

import warnings

import pytest
import torch
from capture_steps import STEPS, B, Net, make_batch
from other_device import Apart

from lightning_dataselect.capture import LossCapture


def test_the_device_is_none_to_be_mixed_or_read() -> None:
    here, there = torch.ones(2), torch.ones(2, device="meta")
    with Apart():
        assert (there + there.to("meta") * torch.tensor(2.0)).device.type == "meta"
        for mixes in (lambda: here + there, lambda: there.index_copy_(0, torch.tensor([0]), there[:1])):
            with pytest.raises(RuntimeError, match="different devices"):
                mixes()
        with pytest.raises(RuntimeError):
            there.sum().item()


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_steady_step_stays_on_its_device(name: str) -> None:
    step, capture, net = STEPS[name], LossCapture(), Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            capture.run(lambda: step(net, make_batch()), B)
    with torch.device("meta"):
        moved = Net()
    batch = {key: part.to("meta") for key, part in make_batch().items()}
    with Apart():
        try:
            step(moved, batch)
        except Exception as error:  # a step that makes tensors on the CPU, or looks at values, itself
            pytest.skip(f"cannot run there: {error}")
        for weights in (None, torch.ones(B, device="meta")):
            loss, captured = capture.run(lambda: step(moved, batch), B, weights)
            loss.backward()
            assert captured.known and captured.losses.device.type == "meta" and captured.losses.shape == (B,)
        assert capture.score(lambda: step(moved, batch), B).losses.device.type == "meta"
