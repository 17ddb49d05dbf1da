"""Run a training step and read what its samples lost, by capture or by the user's own word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.capture import CaptureError, LossCapture, NoLossError, Outputs
from lightning_dataselect.data.batch_layout import BatchLayout
from lightning_dataselect.data.chosen_loader import BatchPart
from lightning_dataselect.data.sample_sizes import SampleSizes
from lightning_dataselect.data.subset_batch import step_on_part
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.step.sample_loss import SampleLoss, read_sample_loss, reweighted, weighable
from lightning_dataselect.step.witness import Witness

Summarize = Callable[[Outputs], Tensor | None]


class StepReader:
    """Run training steps and read per-sample losses from them.

    Args:
        module: The LightningModule.
        source: Where per-sample losses come from.
        required: True if a step without per-sample losses is an error, and not only worth a warning.
        keeps_infinite: True if infinite losses are shown as they are; else they become NaN, as they would stay in
            moving averages for good.
        method: Name of the method, for messages.
        weighs_value: True if weights change the value of the loss, and not its gradient alone.
        n_ranks: The number of processes that train.
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
    ) -> None:
        self.capture = LossCapture(module)
        self.capture.keeps_value = not weighs_value
        self._source = source
        self._required = required
        self._keeps_infinite = keeps_infinite
        self._method = method
        self._module = module
        self._n_ranks = n_ranks
        self._put_off: tuple[Any, ...] | None = None  # the step and the batch that a look is due at
        self._unread: tuple[Any, ...] | None = None  # those of a step whose doubts have to be waited for
        self._witness = Witness(module, self.capture, n_ranks)
        self._sizes: SampleSizes | None = SampleSizes()
        self.layout = BatchLayout()
        """The layout of the samples in a batch."""
        self.loader: DataLoader[Any] | None = None
        """The train loader, once the Trainer has it."""
        self.collate: Callable[[Sequence[int]], Any] | None = None
        """Makes a batch of samples anew, by their indices, on the module's device; None where they have none."""
        self.part: BatchPart | None = None
        """Of several train loaders, where the batches of that one are; None where it is the only one."""
        self._present: tuple[bool, ...] | None = None
        self._step_facts = 0, False  # epoch of the step under way, and whether it rescores
        self.blind = False
        """True once nothing can be read, and nothing is required."""

    def watch_outputs(self, summarize: Summarize, wanted: Callable[[int, bool], bool]) -> None:
        """Have ``Observation.outputs`` made of the outputs that loss functions are given.

        Args:
            summarize: Makes of a batch's outputs what is kept of them, float32 (B, D), or None.
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
        known: Tensor,
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
            known: float32 (N + 1,), the last loss of every sample.
            epoch: 0-based epoch.
            is_full_batch: False if the batch was cut.

        Returns:
            What the step returned, with the weights in its loss, and what was seen; None where nothing can be read and
            nothing is required, and for a step like none before, which calls for a second look.
        """
        indices, weights = samples.indices, samples.weights
        if self._source != "auto":
            output = step(*args, **kwargs)
            losses = read_sample_loss(self._source, output, _looked_up(known, indices))
            if weights is not None:
                each = weighable(self._source, output, losses)
                output = reweighted(output, each, weights, keeps_value=self.capture.keeps_value)
            losses = self._owned(losses.detach().float())
            return output, Observation(indices, losses, None, None, epoch, None, is_full_batch)
        if self.blind:
            return step(*args, **kwargs), None
        self._step_facts = epoch, False
        if self.part is not None:
            self._look_at_loaders(self.part, args, kwargs)
        if is_full_batch:
            self._look(step, args, kwargs, indices)
        call = functools.partial(step, *args, **kwargs)
        returned: list[Any] = []
        if not self._required:
            call = functools.partial(_keep_output, call, returned)
        try:
            output, captured = self.capture.run(call, indices.numel(), weights)
        except NoLossError:
            return None, None
        except CaptureError as error:
            if not returned:
                raise
            self._go_blind(error)
            return returned[0], None
        self._unread = None
        if self.capture.doubts.found and is_full_batch:
            self._doubt(step, args, kwargs, indices)
        if self._witness.is_waiting:
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
        known: Tensor,
        epoch: int,
        *,
        is_rescoring: bool = False,
    ) -> Observation:
        """Run a step for what its samples lose, without a graph but for the first look at a step.

        Args:
            step: Runs the module on a batch.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            indices: int64 (B,), the samples of the batch.
            known: float32 (N + 1,), the last loss of every sample.
            epoch: 0-based epoch.
            is_rescoring: True for a pass between two epochs.
        """
        if self._source != "auto":
            losses = read_sample_loss(self._source, step(*args, **kwargs), _looked_up(known, indices)).float()
            return Observation(indices, self._owned(losses), None, None, epoch, None, True, is_rescoring)
        self._step_facts = epoch, is_rescoring
        if self.part is not None:
            self._look_at_loaders(self.part, args, kwargs)
        self._look(step, args, kwargs, indices)
        call = functools.partial(step, *args, **kwargs)
        try:
            captured = self.capture.score(call, indices.numel())
        except NoLossError:
            unknown = torch.full_like(indices, torch.nan, dtype=torch.float32)
            nobody = torch.full_like(indices, known.numel() - 1)  # the slot of padding: nothing was measured
            return Observation(nobody, unknown, None, None, epoch, None, True, is_rescoring)
        self._unread = None
        if self.capture.doubts.found:
            self._doubt(step, args, kwargs, indices)
        losses, logits, targets, outputs = captured.losses, captured.logits, captured.targets, captured.outputs
        return Observation(indices, self._owned(losses), logits, targets, epoch, outputs, True, is_rescoring)

    def register_backward_loss(self, loss: Tensor) -> Tensor:
        """Take a loss that a step back-propagates itself; give back what to back-propagate."""
        if self.blind or self._source != "auto":
            return loss
        try:
            return self.capture.register_backward_loss(loss)
        except CaptureError as error:
            self._go_blind(error)
            return loss

    @property
    def waits_for_ranks(self) -> bool:
        """True if single samples are to be asked again as soon as all ranks do so (see `look_together`)."""
        return self._witness.is_due or (self._witness.must_wait and self._put_off is not None)

    def settle_doubts(self) -> None:
        """Ask single samples at once about what the last step has left in doubt, as no other one may follow."""
        batch, self._unread = self._put_off or self._unread, None
        is_due = self._put_off is not None or (batch is not None and self.capture.has_doubts(wait=True))
        if batch is None or not is_due or self._witness.must_wait:
            return
        self._put_off = None
        with self._module.trainer.precision_plugin.train_step_context():
            self._hear(*batch)
        self.capture.settle()

    def look_together(self) -> None:
        """Ask single samples in the next step; to be called on all ranks."""
        self._witness.agree()

    def batch_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the batch of the samples among the arguments of a step: that of the loader that they come from."""
        if self.part is not None:
            return self.part.in_step(args, kwargs)
        return args[0] if args else next(iter(kwargs.values()))

    def _look_at_loaders(self, part: BatchPart, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell capture what comes from which of several loaders, and let it look anew where one has run out."""
        self.capture.batch_tensors = functools.partial(part.tensors, args, kwargs)
        present = part.present(args, kwargs)
        if present != self._present:
            # loss functions are known by their turn, which is another one where a loss is left out
            self._present = present
            self.capture.forget()
            self._witness = Witness(self._module, self.capture, self._n_ranks)

    def _look(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor) -> None:
        """Let single samples show how the step is read, where that is due or they are of several sizes at last."""
        if not self._witness.is_able:
            return
        size, differ = indices.numel(), False
        if self._sizes is not None:
            differ = self._sizes.differ_anew(self.batch_in(args, kwargs), size)
            if differ:
                self.capture.probe_next()
            if self._sizes.all_differ:
                self._sizes = None
        if not self.capture.will_probe(size):
            return
        waiting, self._put_off = self._put_off, None
        if waiting is not None:
            self._hear(*waiting)
        if waiting is None or differ:
            self._hear(step, args, kwargs, indices)
        if self.part is not None:
            self._look_at_loaders(self.part, args, kwargs)

    def _doubt(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor) -> None:
        """Have single samples of a batch asked before the next step, where this one shows what they have not so far.

        Not at once: whoever watches the module's calls is to find those of the step as the last ones.
        """
        if not self._witness.is_able:
            return
        batch = step, args, kwargs, indices, self.capture.doubts.counts
        if self.capture.has_doubts():
            self._put_off = batch
            self.capture.probe_next()
        elif self.capture.doubts.found:
            self._unread = batch

    def _hear(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        indices: Tensor,
        counts: Sequence[int] | None = None,
    ) -> None:
        if self._witness.must_wait:
            self._put_off = self._put_off or (step, args, kwargs, indices, counts)
            return
        size = indices.numel()
        batch, of_loader = self.batch_in(args, kwargs), self.part
        on_part = step_on_part(step, args, kwargs, indices, self.layout, self.loader, self.collate, of_loader)

        def part(positions: Sequence[int]) -> Callable[[], Any]:
            smaller = on_part(positions)
            if of_loader is not None:
                self._look_at_loaders(of_loader, smaller.args, smaller.keywords)
            return smaller

        self._witness.hear(part, size, batch, counts)

    def _owned(self, losses: Tensor) -> Tensor:
        """Return losses in memory of their own, as compiled modules write the next batch's into the same."""
        # not finite becomes NaN without a look at it, which would wait for the device
        return losses.clone() if self._keeps_infinite else losses.add(losses, alpha=0)

    def _go_blind(self, error: CaptureError) -> None:
        if self._required:
            raise error
        if not self.blind:
            rank_zero_warn(f"{self._method} goes on without per-sample losses. {error}")
        self.blind = True


def _keep_output(call: Callable[[], Any], returned: list[Any]) -> Any:
    returned.append(call())
    return returned[-1]


def _looked_up(column: Tensor, indices: Tensor) -> Tensor:
    """Return what ``column``, which may lie on the CPU, holds of ``indices``, on their device."""
    return column[indices.to(column.device)].to(indices.device)
