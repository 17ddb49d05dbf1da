"""A fit's batches on their way past an Assistant, who is made for the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_dataselect.methods.autoassist.assistant import Record
from lightning_dataselect.methods.autoassist.inputs import InputReader
from lightning_dataselect.methods.autoassist.networks import CONVENTIONS
from lightning_dataselect.methods.autoassist.prefetch import look_ahead, released
from lightning_dataselect.methods.autoassist.queue import BatchQueue, InlineQueue, PendingBatch, ThreadedQueue
from lightning_dataselect.numerics.seeding import epoch_generator

if TYPE_CHECKING:
    from lightning_dataselect.fit.epochs import Epochs
    from lightning_dataselect.methods.autoassist.callback import AutoAssist


class PrefetchFilter:
    """Has the batches of each epoch judged ahead of the training, and hands back what they lost.

    Args:
        selector: whose arguments say how, and whose Assistant it is.
        epochs: which batches there are.
        rank: of this process.
    """

    def __init__(self, selector: AutoAssist, epochs: Epochs, rank: int) -> None:
        self._selector = selector
        self._epochs = epochs
        self._rank = rank
        self._reader: InputReader | None = None
        self._queue: BatchQueue | None = None
        self._left: dict[int, PendingBatch] = {}

    def pass_on(self, batches: Iterator[Any], pinned: bool) -> Iterator[Any]:
        """The batches of an epoch, cut to the samples that were accepted.

        Args:
            batches: the loader's.
            pinned: whether their tensors lie in pinned memory.
        """
        assert self._epochs.loader is not None
        self._left.clear()
        first, end = self._epochs.loader.batches.start_batch, self._epochs.n_batches
        for left in look_ahead(batches, first, end, self._admit, self._queue_of_fit):
            batch = released(left, pinned)
            if batch is left.batch:
                # a step may write into the batch that it is given, while the Assistant still reads it
                left.inputs = left.inputs.clone()
            left.batch = None
            self._left[left.batch_idx] = left
            yield batch

    def take(self, batch_idx: int) -> PendingBatch:
        """What became of the batch that is about to be trained on."""
        return self._left.pop(batch_idx)

    def report(self, left: PendingBatch, losses: Tensor) -> None:
        """Hand the losses of what was trained on, float32 (b,), to the Assistant; nobody waits for the GPU here."""
        positions, ready = None if left.verdict is None else left.verdict.positions, None
        if losses.is_cuda:
            losses, ready = losses.to("cpu", non_blocking=True), torch.cuda.Event()
            ready.record()
        epoch = self._selector.state.plan.epoch
        self._queue_of_fit().report(Record(left.inputs, positions, losses.cpu(), ready, epoch))

    def stop(self) -> None:
        """End whatever the Assistant does."""
        if self._queue is not None:
            self._queue.stop()

    def _admit(self, batch_idx: int, batch: Any) -> PendingBatch:
        assert self._epochs.loader is not None
        selector, size = self._selector, self._epochs.loader.batches.size_of(batch_idx)
        epoch = selector.state.plan.epoch
        if self._reader is None:
            self._reader = InputReader(batch, size, selector.inputs)
        generator = epoch_generator(selector.seed, epoch, f"accept batch {batch_idx} of rank {self._rank}")
        draws = torch.rand(size, generator=generator, dtype=torch.float32)
        inputs, known = self._reader.read(batch), CONVENTIONS[self._reader.kind]
        if self._queue is None:
            assistant = selector.build_assistant(inputs, self._reader.kind)
            assistant.judge(inputs, draws, 1.0)  # what does not fit fails here, in the user's own thread
            if selector.synchronous:
                self._queue = InlineQueue(assistant)
            else:
                capacity = selector.queue_size or known.queue_size
                # more than may wait would never be judged, and nothing learnt
                self._queue = ThreadedQueue(assistant, capacity, min(known.learn_at, capacity))
        return PendingBatch(batch_idx, batch, size, inputs, draws, selector.base_prob_of(epoch, known))

    def _queue_of_fit(self) -> BatchQueue:
        assert self._queue is not None
        return self._queue
