"""A fit's batches on their way past an Assistant, who is made for the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.autoassist.assistant import Record, Verdict
from lightning_dataselect.methods.autoassist.inputs import InputFinder, InputReader, Kind, SampleInputs
from lightning_dataselect.methods.autoassist.networks import CONVENTIONS, Conventions
from lightning_dataselect.methods.autoassist.prefetch import look_ahead, released
from lightning_dataselect.methods.autoassist.queue import BatchQueue, PendingBatch
from lightning_dataselect.numerics.seeding import epoch_generator


class PrefetchFilter:
    """Have the batches of each epoch judged ahead of the training, and hand back what they lost.

    Args:
        context: The fit, which says which batches there are.
        build_queue: Makes the queue that batches wait at, of the inputs of the first one, its random numbers and their
            kind.
        base_prob: Says, of an epoch, how probably a sample taken for easy is trained on.
        seed: Seed of the random numbers that acceptance is decided by.
        inputs: Finds the inputs of a batch; None looks for them.
        known: The verdicts, by index, on batches that had left the queue when the checkpoint was written, but were not
            trained on: by now the Assistant has learnt more.
    """

    def __init__(
        self,
        context: FitContext,
        build_queue: Callable[[SampleInputs, Tensor, Kind], BatchQueue],
        base_prob: Callable[[int, Conventions], float],
        *,
        seed: int,
        inputs: InputFinder | None,
        known: Mapping[int, Verdict],
    ) -> None:
        self._context = context
        self._build_queue = build_queue
        self._base_prob = base_prob
        self._seed = seed
        self._inputs = inputs
        self._known = dict(known)
        self._reader: InputReader | None = None
        self.queue: BatchQueue | None = None
        self._left: dict[int, PendingBatch] = {}

    def pass_on(self, batches: Iterator[Any], pinned: bool) -> Iterator[Any]:
        """Yield the batches of an epoch, cut to the samples that were accepted.

        Args:
            batches: The loader's batches.
            pinned: True if their tensors lie in pinned memory.
        """
        self._left.clear()
        first, end = self._context.epochs.first_batch, self._context.n_batches
        for left in look_ahead(batches, first, end, self.admit, self._queue_of_fit):
            batch = released(left, pinned)
            if batch is left.batch:
                # a step may write into the batch that it is given, while the Assistant still reads it
                left.inputs = left.inputs.clone()
            left.batch = None
            self._left[left.batch_idx] = left
            yield batch

    def admit(self, batch_idx: int, batch: Any) -> PendingBatch:
        """Make a batch ready to wait."""
        size, epoch = self._context.epochs.arrive(batch_idx, batch), self._context.epoch
        if self._reader is None:
            self._reader = InputReader(batch, size, self._inputs)
        generator = epoch_generator(self._seed, epoch, f"accept batch {batch_idx} of rank {self._context.rank}")
        draws = torch.rand(size, generator=generator, dtype=torch.float32)
        inputs, kind = self._reader.read(batch), self._reader.kind
        if self.queue is None:
            self.queue = self._build_queue(inputs, draws, kind)
        verdict = self._known.pop(batch_idx, None)
        return PendingBatch(batch_idx, batch, size, inputs, draws, self._base_prob(epoch, CONVENTIONS[kind]), verdict)

    def take(self, batch_idx: int) -> PendingBatch:
        """Return what became of the batch that is about to be trained on."""
        return self._left.pop(batch_idx)

    def verdicts(self) -> dict[int, Verdict]:
        """Return the verdicts on batches that have left the queue and are not trained on yet, by index."""
        return {i: left.verdict for i, left in self._left.items() if left.verdict is not None}

    def report(self, left: PendingBatch, losses: Tensor) -> None:
        """Hand the losses of what was trained on, float32 (b,), to the Assistant; nobody waits for the GPU here."""
        positions, ready = None if left.verdict is None else left.verdict.positions, None
        if losses.is_cuda:
            losses, ready = losses.to("cpu", non_blocking=True), torch.cuda.Event()
            ready.record()
        self._queue_of_fit().report(Record(left.inputs, positions, losses.cpu(), ready, self._context.epoch))

    def stop(self) -> None:
        """End all work of the Assistant."""
        if self.queue is not None:
            self.queue.stop()

    def _queue_of_fit(self) -> BatchQueue:
        assert self.queue is not None
        return self.queue
