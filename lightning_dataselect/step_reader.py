"""What a training step's samples lost, by capture or by the user's own word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture
from lightning_dataselect.sample_loss import SampleLoss, read_sample_loss, reweighted


@dataclass(frozen=True)
class Reading:
    """The losses of a batch, float32 (B,), NaN where not finite; logits and targets if they were seen."""

    losses: Tensor
    logits: Tensor | None = None
    targets: Tensor | None = None


class StepReader:
    """Runs training steps and reads per-sample losses from them.

    Args:
        module: the LightningModule.
        source: where per-sample losses come from.
        required: whether a step without per-sample losses is an error, or only worth a warning.
        method: name of the method, for messages.
    """

    def __init__(self, module: pl.LightningModule, source: SampleLoss, *, required: bool, method: str) -> None:
        self.capture = LossCapture(module)
        self._source = source
        self._required = required
        self._method = method
        self._blind = False
        self._non_finite: Tensor | None = None

    def read(self, step: Callable[[], Any], previous: Tensor, weights: Tensor | None) -> tuple[Any, Reading | None]:
        """Run ``step`` once.

        Args:
            step: runs the module on a batch.
            previous: float32 (B,), the last losses of its samples.
            weights: float32 (B,), the weight of each sample in the loss, or None.

        Returns:
            What the step returned, with the weights in its loss, and what was read; None where
            nothing can be read and nothing is required.
        """
        if self._source != "auto":
            output = step()
            losses = read_sample_loss(self._source, output, previous)
            if weights is not None:
                output = reweighted(output, losses, weights)
            return output, self._finite(Reading(losses.detach().float()))
        if self._blind:
            return step(), None
        try:
            output, captured = self.capture.run(step, previous.numel(), weights)
        except CaptureError as error:
            if self._required or error.output is None:
                raise
            rank_zero_warn(f"{self._method} goes on without per-sample losses. {error}")
            self._blind = True
            return error.output, None
        reading = Reading(captured.losses, captured.logits, captured.targets)
        return output, self._finite(reading)

    def score(self, step: Callable[[], Any], previous: Tensor) -> Reading:
        """What the samples lose in ``step``, without a graph; after at least one :meth:`read`."""
        if self._source != "auto":
            return self._finite(Reading(read_sample_loss(self._source, step(), previous).float()))
        captured = self.capture.score(step, previous.numel())
        return self._finite(Reading(captured.losses, captured.logits, captured.targets))

    def root(self, loss: Tensor) -> Tensor:
        """Take a loss that a step back-propagates itself; give back what to back-propagate."""
        return loss if self._blind or self._source != "auto" else self.capture.root(loss)

    def pop_non_finite(self) -> int:
        """How many losses were NaN or infinite since this was asked last; waits for the device."""
        count = 0 if self._non_finite is None else int(self._non_finite)
        self._non_finite = None
        return count

    def _finite(self, reading: Reading) -> Reading:
        finite = reading.losses.isfinite()
        bad = (~finite).sum()
        self._non_finite = bad if self._non_finite is None else self._non_finite + bad
        losses = torch.where(finite, reading.losses, torch.nan)
        return Reading(losses, reading.logits, reading.targets)
