"""What a training step's samples lost, by capture or by the user's own word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.capture import Captured, CaptureError, LossCapture, NoLossReturned
from lightning_dataselect.step.sample_loss import SampleLoss, read_sample_loss, reweighted
from lightning_dataselect.step.witness import Part, Witness


@dataclass(frozen=True)
class Reading:
    """The losses of a batch, float32 (B,), as they are; logits, targets and outputs if they were seen."""

    losses: Tensor
    logits: Tensor | None = None
    targets: Tensor | None = None
    outputs: Tensor | None = None


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
        self._witness = Witness(module, self.capture)
        self.blind = False
        """Whether nothing can be read, and nothing is required."""

    def read(
        self,
        step: Callable[[], Any],
        indices: Tensor,
        known: Tensor,
        weights: Tensor | None,
        part: Part | None = None,
    ) -> tuple[Any, Reading | None]:
        """Run ``step`` once.

        Args:
            step: runs the module on a batch.
            indices: int64 (B,), its samples.
            known: float32 (N + 1,), the last loss of every sample.
            weights: float32 (B,), the weight of each sample in the loss, or None.
            part: makes the same step on some samples of the batch, for a `Witness`; None: it cannot be made.

        Returns:
            What the step returned, with the weights in its loss, and what was read; None where
            nothing can be read and nothing is required, and for a step like none before, which
            calls for a second look.
        """
        if self._source != "auto":
            output = step()
            losses = read_sample_loss(self._source, output, known[indices])
            if weights is not None:
                output = reweighted(output, losses, weights)
            return output, Reading(losses.detach().float())
        if self.blind:
            return step(), None
        self._call_witness(part, indices.numel())
        returned: list[Any] = []

        def kept() -> Any:
            returned.append(step())
            return returned[-1]

        try:
            output, captured = self.capture.run(kept, indices.numel(), weights)
        except NoLossReturned:
            return returned[0], None
        except CaptureError as error:
            if not returned:
                raise
            self._go_blind(error)
            return returned[0], None
        if self._witness.is_waiting:
            self.capture.probe_next()
        return output, _reading(captured) if captured.known and not self.blind else None

    def _call_witness(self, part: Part | None, size: int) -> None:
        if part is not None and self.capture.is_probing:
            self._witness.hear(part, size)

    def score(self, step: Callable[[], Any], indices: Tensor, known: Tensor, part: Part | None = None) -> Reading:
        """What the samples lose in ``step``, which keeps nothing for a backward pass; NaN where it returns None."""
        if self._source != "auto":
            return Reading(read_sample_loss(self._source, step(), known[indices]).float())
        self._call_witness(part, indices.numel())
        try:
            return _reading(self.capture.score(step, indices.numel()))
        except NoLossReturned:
            return Reading(torch.full_like(indices, torch.nan, dtype=torch.float32))

    def root(self, loss: Tensor) -> Tensor:
        """Take a loss that a step back-propagates itself; give back what to back-propagate."""
        if self.blind or self._source != "auto":
            return loss
        try:
            return self.capture.root(loss)
        except CaptureError as error:
            self._go_blind(error)
            return loss

    def _go_blind(self, error: CaptureError) -> None:
        if self._required:
            raise error
        if not self.blind:
            rank_zero_warn(f"{self._method} goes on without per-sample losses. {error}")
        self.blind = True


def _reading(captured: Captured) -> Reading:
    return Reading(captured.losses, captured.logits, captured.targets, captured.outputs)
