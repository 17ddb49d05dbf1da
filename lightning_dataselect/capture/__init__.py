"""Per-sample losses out of any training step, without a change to it."""

from lightning_dataselect.capture.capture import LossCapture
from lightning_dataselect.capture.loss.loss_functions import register_loss
from lightning_dataselect.capture.loss.shown import Answers, Shown
from lightning_dataselect.capture.reading.outputs import Outputs
from lightning_dataselect.capture.reading.results import Captured
from lightning_dataselect.capture.shared_steps import SharedSteps
from lightning_dataselect.utils.errors import CaptureError, NoLossError

__all__ = [
    "Answers",
    "CaptureError",
    "Captured",
    "LossCapture",
    "NoLossError",
    "Outputs",
    "SharedSteps",
    "Shown",
    "register_loss",
]
