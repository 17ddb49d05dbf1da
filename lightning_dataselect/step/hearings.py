"""When the witness is heard, and on which batch: at the start, in doubt, and together with other ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lightning_dataselect.capture import LossCapture
from lightning_dataselect.data.batch_source import BatchSource
from lightning_dataselect.data.chosen_loader import BatchPart
from lightning_dataselect.data.sample_sizes import SampleSizes
from lightning_dataselect.step.witness import Witness

# Steps until one is probed again without any other reason; after that, twice as many each time, so that it costs
# almost nothing; both odd and even ones, since a step may alternate.
_FIRST_LOOK = 25


class Hearings:
    """Let single samples show their losses whenever steps leave something open.

    Args:
        module: The LightningModule.
        capture: Reads its steps.
        batches: The source of their batches.
        n_ranks: The number of processes that train.
    """

    def __init__(self, module: pl.LightningModule, capture: LossCapture, batches: BatchSource, n_ranks: int) -> None:
        self._module = module
        self._capture = capture
        self._batches = batches
        self._n_ranks = n_ranks
        self.witness = Witness(module, capture, n_ranks)
        """Runs the step on single samples."""
        self._n_steps, self._next_look = 0, _FIRST_LOOK
        self._sizes: SampleSizes | None = SampleSizes()
        self._put_off: tuple[Any, ...] | None = None  # the step and the batch of a probe that was put off
        self._unread: tuple[Any, ...] | None = None  # the same for a step whose doubts have to be waited for
        self._present: tuple[bool, ...] | None = None  # if there are several loaders, those with a batch in the step

    # ---- in a step -----------------------------------------------------------------------------------------------

    def look_at_loaders(self, part: BatchPart, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell capture what comes from which of several loaders, and let it probe again when one has run out."""
        self._capture.batch_tensors = functools.partial(part.tensors, args, kwargs)
        present = part.present(args, kwargs)
        if present != self._present:
            # loss functions are identified by the order of their calls, which changes if one is left out
            self._present = present
            self._capture.forget()
            self.witness = Witness(self._module, self._capture, self._n_ranks)

    def before_step(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor
    ) -> None:
        """Let single samples settle how the step is read, if that is due or they first differ in size."""
        self._unread = None
        self._n_steps += 1
        size, is_routine, differ = indices.numel(), False, False
        if self._n_steps == self._next_look:
            self._next_look = 2 * self._next_look + (1 if self._next_look % 2 == 0 else -2)
            is_routine = not self._capture.will_probe(size)
            self._capture.look_again()
        if not self.witness.is_able:
            return
        if self._sizes is not None:
            differ = self._sizes.differ_anew(self._batches.batch_in(args, kwargs), size)
            if differ:
                self._capture.probe_next()
            if self._sizes.all_differ:
                self._sizes = None
        if not self._capture.will_probe(size):
            return
        waiting, self._put_off = self._put_off, None
        if waiting is not None:
            self._hear(*waiting)
        if waiting is None or differ:
            self._hear(step, args, kwargs, indices, is_routine=is_routine and not differ)
        if self._batches.part is not None:
            self.look_at_loaders(self._batches.part, args, kwargs)

    def take_up_doubts(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor
    ) -> None:
        """Have single samples checked before the next step, if this one shows something new.

        Not at once, because code that watches the module's calls should find those of the step as the last ones.
        """
        if not self.witness.is_able:
            return
        batch = step, args, kwargs, indices, self._capture.doubts.counts
        if self._capture.has_doubts():
            self._put_off = batch
            self._capture.probe_next()
        elif self._capture.doubts.found:
            self._unread = batch

    # ---- at the end of an epoch ----------------------------------------------------------------------------------

    def settle_doubts(self) -> None:
        """Settle the doubts about the last step at once with single samples, since no other step may follow."""
        batch, self._unread = self._put_off or self._unread, None
        is_due = self._put_off is not None or (batch is not None and self._capture.has_doubts(wait=True))
        if batch is None or not is_due or self.witness.must_wait:
            return
        self._put_off = None
        with self._module.trainer.precision_plugin.train_step_context():
            self._hear(*batch)
        self._capture.settle()

    @property
    def wait_for_ranks(self) -> bool:
        """True if single samples should be checked again as soon as all ranks do so (see `agree`)."""
        return self.witness.is_due or (self.witness.must_wait and self._put_off is not None)

    def agree(self) -> None:
        """Check single samples in the next step; to be called on all ranks."""
        self.witness.agree()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _hear(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        indices: Tensor,
        counts: Sequence[int] | None = None,
        *,
        is_routine: bool = False,
    ) -> None:
        if self.witness.must_wait:
            self._put_off = self._put_off or (step, args, kwargs, indices, counts)
            return
        of_loader = self._batches.part
        on_part = self._batches.on_part(step, args, kwargs, indices)

        def part(positions: Sequence[int]) -> Callable[[], Any]:
            smaller = on_part(positions)
            if of_loader is not None:
                self.look_at_loaders(of_loader, smaller.args, smaller.keywords)
            return smaller

        batch = self._batches.batch_in(args, kwargs)
        self.witness.hear(part, indices.numel(), batch, counts, is_routine=is_routine and of_loader is None)
