"""Run a training step and read the losses of its samples, by capture or as the user has specified."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture, NoLossError, Outputs
from lightning_dataselect.capture.loss.refusals import without_other_methods
from lightning_dataselect.data.batch_source import BatchSource
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.hearings import Hearings
from lightning_dataselect.step.sample_loss import SampleLoss, read_sample_loss, reweighted, weighable
from lightning_dataselect.step.shared_reading import SharedReading

Summarize = Callable[[Outputs], Tensor | None]


class StepReader:
    """Run training steps and read per-sample losses from them.

    Args:
        module: The LightningModule.
        source: The source of the per-sample losses.
        required: True if a step without per-sample losses is an error, rather than just a warning.
        keeps_infinite: True if infinite losses are passed on; otherwise they become NaN, since they would stay in
            moving averages forever.
        method: Name of the method, for messages.
        weighs_value: True if weights change the value of the loss, not only its gradient.
        n_ranks: The number of processes that train.
        shared: Prepares the steps, if others read them as well; None if nobody does.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        source: SampleLoss,
        *,
        required: bool,
        keeps_infinite: bool,
        method: str,
        weighs_value: bool = False,
        n_ranks: int = 1,
        shared: SharedReading | None = None,
    ) -> None:
        self.capture = LossCapture(module) if shared is None else shared.steps.add_capture()
        self._shared = shared
        self.capture.keeps_value = not weighs_value
        self._source = source
        self._required = required
        self._keeps_infinite = keeps_infinite
        self._method = method
        self.batches = BatchSource()
        """The source of the batches of the steps."""
        self.hearings = Hearings(module, self.capture, self.batches, n_ranks)
        """Decides when single samples are used to check how a step is read."""
        self._step_facts = 0, False  # epoch of the step under way, and whether it rescores
        self.blind = False
        """True once nothing is read from steps any more, because it cannot be or is not needed."""

    @property
    def captures(self) -> bool:
        """True if losses are captured, and not given by the user, as long as that is possible."""
        return self._source == "auto" and not self.blind

    def watch_outputs(self, summarize: Summarize, wanted: Callable[[int, bool], bool]) -> None:
        """Fill ``Observation.outputs`` from the outputs that are passed to loss functions.

        Args:
            summarize: Given a batch's outputs, returns what to keep of them, float32 (B, D), or None.
            wanted: Called with the epoch and whether a pass rescores; says whether outputs are kept.
        """

        def summary(outputs: Outputs) -> Tensor | None:
            return summarize(outputs) if wanted(*self._step_facts) else None

        self.capture.summarize = summary

    def run(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        samples: BatchSamples,
        store: ScoreStore,
        epoch: int,
        *,
        is_full_batch: bool = True,
    ) -> tuple[Any, Observation | None]:
        """Run a step that trains.

        Args:
            step: Runs the module on a batch.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            samples: The samples of the batch, and their weights in the loss.
            store: Knows the last loss of every sample.
            epoch: 0-based epoch.
            is_full_batch: False if the batch was cut.

        Returns:
            What the step returned, with the weights in its loss, and the observation. The observation is None if
            nothing can be read and nothing is required, and for a step unlike all before, which has to be probed first.
        """
        if self.blind:
            return step(*args, **kwargs), None
        indices, weights = samples.indices, samples.weights
        if self._source != "auto":
            output = step(*args, **kwargs)
            losses = read_sample_loss(self._source, output, _looked_up(store["loss"], indices))
            if weights is not None:
                each = weighable(self._source, output, losses)
                output = reweighted(output, each, weights, keeps_value=self.capture.keeps_value)
            losses = self._owned(losses.detach().float())
            return output, Observation(indices, losses, None, None, epoch, None, is_full_batch)
        self._step_facts = epoch, False
        if self.batches.part is not None:
            self.hearings.look_at_loaders(self.batches.part, args, kwargs)
        call, alone = functools.partial(step, *args, **kwargs), step
        if self._shared is not None:
            alone = self._shared.step
        elif is_full_batch:
            self.hearings.before_step(step, args, kwargs, indices)
        returned: list[Any] = []
        if not self._required:
            call = functools.partial(_keep_output, call, returned)
        try:
            output, captured = self.capture.run(call, indices.numel(), weights, args or tuple(kwargs.values()))
        except NoLossError:
            return None, None
        except CaptureError as error:
            if not returned and not self._required:
                raise
            self.go_blind(error)
            return returned[0], None
        if self.capture.doubts.found and is_full_batch:
            self.hearings.take_up_doubts(alone, args, kwargs, indices)
        if self.hearings.witness.is_waiting:
            self.capture.probe_next()
        if not captured.known or self.blind:
            return output, None
        losses = captured.losses if captured.is_own and self._keeps_infinite else self._owned(captured.losses)
        logits, targets, outputs = captured.logits, captured.targets, captured.outputs
        return output, Observation(indices, losses, logits, targets, epoch, outputs, is_full_batch)

    def score(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        indices: Tensor,
        store: ScoreStore,
        epoch: int,
        *,
        is_rescoring: bool = False,
    ) -> Observation:
        """Run a step for the losses of its samples, without a graph except when a step is first probed.

        Args:
            step: Runs the module on a batch.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            indices: int64 (B,), the samples of the batch.
            store: Knows the last loss of every sample.
            epoch: 0-based epoch.
            is_rescoring: True for a pass between two epochs.
        """
        if self._source != "auto":
            losses = read_sample_loss(self._source, step(*args, **kwargs), _looked_up(store["loss"], indices)).float()
            return Observation(indices, self._owned(losses), None, None, epoch, None, True, is_rescoring)
        self._step_facts = epoch, is_rescoring
        if self.batches.part is not None:
            self.hearings.look_at_loaders(self.batches.part, args, kwargs)
        self.hearings.before_step(step, args, kwargs, indices)
        call = functools.partial(step, *args, **kwargs)
        try:
            captured = self.capture.score(call, indices.numel(), args or tuple(kwargs.values()))
        except NoLossError:
            unknown = torch.full_like(indices, torch.nan, dtype=torch.float32)
            nobody = torch.full_like(indices, store.n)  # the padding slot: nothing was measured
            return Observation(nobody, unknown, None, None, epoch, None, True, is_rescoring)
        if self.capture.doubts.found:
            self.hearings.take_up_doubts(step, args, kwargs, indices)
        losses, logits, targets, outputs = captured.losses, captured.logits, captured.targets, captured.outputs
        return Observation(indices, self._owned(losses), logits, targets, epoch, outputs, True, is_rescoring)

    def go_blind(self, error: CaptureError) -> None:
        """Read nothing from further steps, and say why.

        Raises:
            CaptureError: If the method cannot work without losses.
        """
        if self.batches.doubt:
            error = CaptureError(f"{self.batches.doubt} {error}")
        if self._required:
            raise error
        if not self.blind:
            rank_zero_warn(
                f"{self._method} goes on without per-sample losses, as it needs none to choose samples."
                f" {without_other_methods(str(error))}"
            )
        self.blind = True

    def register_backward_loss(self, loss: Tensor) -> Tensor:
        """Take a loss that the step back-propagates itself, and return the one to back-propagate."""
        if self.blind or self._source != "auto":
            return loss
        try:
            return self.capture.register_backward_loss(loss)
        except CaptureError as error:
            self.go_blind(error)
            return loss

    def _owned(self, losses: Tensor) -> Tensor:
        """Return a copy of the losses, since compiled modules reuse the memory for the next batch."""
        # non-finite values become NaN without checking for them, which would wait for the device
        return losses.clone() if self._keeps_infinite else losses.add(losses, alpha=0)


def _keep_output(call: Callable[[], Any], returned: list[Any]) -> Any:
    returned.append(call())
    return returned[-1]


def _looked_up(column: Tensor, indices: Tensor) -> Tensor:
    """Return the entries of ``column``, which may be on the CPU, at ``indices``, on the device of these."""
    return column[indices.to(column.device)].to(indices.device)
