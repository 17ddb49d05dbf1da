"""Batches pulled from a loader ahead of the training, in the main thread, and cut as they leave the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data._utils.pin_memory import pin_memory

from lightning_dataselect.data.subset_batch import subset_batch
from lightning_dataselect.methods.autoassist.queue import BatchQueue, PendingBatch

_PULLED_AT_ONCE = 2


def look_ahead(
    batches: Iterator[Any],
    first: int,
    end: int | None,
    admit: Callable[[int, Any], PendingBatch],
    queue_of_fit: Callable[[], BatchQueue],
) -> Iterator[PendingBatch]:
    """Yield the batches of an epoch in their order, each after it has waited in a queue.

    Two are pulled for each one that leaves until the queue is full, so that an epoch starts after two batches and not
    after a full queue.

    Args:
        batches: The loader's batches.
        first: Index of the first one.
        end: Index after the last one that the epoch trains on, no more are pulled; None where that is unknown.
        admit: Makes a batch ready to wait.
        queue_of_fit: Returns the queue in which they wait; called once the first batch is admitted.
    """
    coming = islice(enumerate(batches, first), None if end is None else max(end - first, 0))
    queue: BatchQueue | None = None
    complete = False
    while True:
        for _ in range(_PULLED_AT_ONCE):
            if complete or (queue is not None and len(queue) > queue.capacity):
                break
            if (arrived := next(coming, None)) is None:
                complete = True
                break
            waiting = admit(*arrived)
            if queue is None:
                queue = queue_of_fit()
                queue.open_epoch()
            queue.offer(waiting)
        if queue is None or len(queue) == 0:
            return
        if complete:
            queue.close_epoch()
        yield queue.take()


def released(waiting: PendingBatch, pinned: bool) -> Any:
    """Return the batch to train on: cut to the accepted samples, or whole where no verdict came in time.

    Args:
        waiting: A batch that has left the queue.
        pinned: Whether its tensors lie in pinned memory, which the cut ones then do, too.
    """
    verdict = waiting.verdict
    if verdict is None or verdict.positions.numel() == waiting.size:
        return waiting.batch
    smaller = subset_batch(waiting.batch, verdict.positions, waiting.size)
    return pin_memory(smaller) if pinned and torch.cuda.is_available() else smaller
