"""Per-sample losses out of any training step, without a change to it."""

from lightning_dataselect.capture.capture import LossCapture
from lightning_dataselect.capture.errors import CaptureError, NoLossReturned
from lightning_dataselect.capture.losses import register_loss
from lightning_dataselect.capture.outputs import Outputs
from lightning_dataselect.capture.probe import WouldChangeModel
from lightning_dataselect.capture.step_result import Captured
from lightning_dataselect.capture.witness import Shown

__all__ = [
    "CaptureError",
    "Captured",
    "LossCapture",
    "NoLossReturned",
    "Outputs",
    "Shown",
    "WouldChangeModel",
    "register_loss",
]
