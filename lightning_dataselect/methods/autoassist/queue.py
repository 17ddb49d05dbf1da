"""Queue of batches that wait for the Assistant's verdict: judged at once, or by a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lightning_dataselect.methods.autoassist.assistant import Assistant, Record, Verdict
from lightning_dataselect.methods.autoassist.inputs import SampleInputs
from lightning_dataselect.utils.errors import AssistantError


@dataclass(eq=False)
class PendingBatch:
    """A batch fetched ahead, which waits for its verdict.

    Attributes:
        batch_idx: Its index within the epoch.
        batch: The batch as the loader yielded it.
        size: Number of its samples.
        inputs: The part of it that the Assistant sees.
        draws: float32 (B,), uniform in [0, 1), what acceptance is decided by.
        base_prob: The probability of a sample taken for easy.
        verdict: The Assistant's, once it is there.
    """

    batch_idx: int
    batch: Any
    size: int
    inputs: SampleInputs
    draws: Tensor
    base_prob: float
    verdict: Verdict | None = None


class BatchQueue:
    """The queue between the training loop and the Assistant; the base of both kinds."""

    capacity = 0
    """The number of batches that may wait behind the one that is trained on."""

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant
        self.waiting: deque[PendingBatch] = deque()

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return len(self.waiting)

    def open_epoch(self) -> None:
        """Forget batches of an epoch that was left."""
        self.waiting.clear()

    def close_epoch(self) -> None:
        """Take note that no further batches come in this epoch."""

    def offer(self, waiting: PendingBatch) -> None:
        """Put a batch at the end of the queue."""
        raise NotImplementedError

    def take(self) -> PendingBatch:
        """Remove and return the first batch of the queue, judged or not."""
        raise NotImplementedError

    def report(self, record: Record) -> None:
        """Hand in what a trained batch has shown."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all work under way."""


class InlineQueue(BatchQueue):
    """Judge each batch when it is asked for and learn from it as soon as it is trained, in the same thread."""

    def offer(self, waiting: PendingBatch) -> None:
        """Judge a batch, unless its verdict is known."""
        if waiting.verdict is None:
            waiting.verdict = self.assistant.judge(waiting.inputs, waiting.draws, waiting.base_prob)
        self.waiting.append(waiting)

    def take(self) -> PendingBatch:
        """Remove and return the batch that was just judged."""
        return self.waiting.popleft()

    def report(self, record: Record) -> None:
        """Learn from a batch."""
        self.assistant.learn(record)


class ThreadedQueue(BatchQueue):
    """Judge and learn in a thread, for which the training loop never waits.

    Judging comes first. The thread learns from the oldest record only while ``learn_at`` judged batches wait, or no
    more are to be judged in this epoch. Where more records come than it can learn from, the oldest are dropped.

    Args:
        assistant: The Assistant, which the thread alone uses from now on.
        capacity: The most batches that may wait, and the most records.
        learn_at: Judged batches that must wait before it learns.

    Attributes:
        waiting: The batches that wait, oldest first.
        records: The records that it has not learnt from, oldest first.
        error: The failure that ended the thread, or None.
        changed: Held for a look at the queues, never while the Assistant computes.
        is_idle: True while the thread has found nothing to do in the queues as they are.
    """

    def __init__(self, assistant: Assistant, capacity: int, learn_at: int) -> None:
        super().__init__(assistant)
        self.capacity = capacity
        self.learn_at = learn_at
        self.records: deque[Record] = deque(maxlen=capacity)
        self._complete = self._stopping = self.is_idle = False
        self.error: BaseException | None = None
        self.changed = threading.Condition(threading.Lock())
        self.thread = threading.Thread(target=self._run, name="AutoAssist", daemon=True)
        self.thread.start()

    def open_epoch(self) -> None:
        """Forget batches of an epoch that was left."""
        with self.changed:
            self._complete = False
            self.waiting.clear()

    def close_epoch(self) -> None:
        """Let the Assistant learn as it likes: no further batches come in this epoch."""
        with self.changed:
            self._complete = True
            self._wake()

    def offer(self, waiting: PendingBatch) -> None:
        """Put a batch at the end of the queue."""
        with self.changed:
            self.waiting.append(waiting)
            self._wake()

    def take(self) -> PendingBatch:
        """Remove and return the first batch of the queue, judged or not.

        Raises:
            RuntimeError: If the Assistant has failed.
        """
        if self.error is not None:
            raise AssistantError(
                f"The Assistant has failed: {type(self.error).__name__}: {self.error} Check the module given as"
                " `assistant` with one batch on the CPU, or leave assistant=None."
            ) from self.error
        with self.changed:
            # a copy, on which no verdict can appear any more once the training goes by what is there
            return replace(self.waiting.popleft())

    def report(self, record: Record) -> None:
        """Put a record at the end of the queue; a full queue drops its oldest."""
        with self.changed:
            self.records.append(record)
            self._wake()

    def stop(self) -> None:
        """End the thread after its present task."""
        with self.changed:
            self._stopping = True
            self._wake()
        self.thread.join()

    def _wake(self) -> None:
        self.is_idle = False
        self.changed.notify()

    def _run(self) -> None:
        try:
            while True:
                with self.changed:
                    task = self.next_task()
                    while task is None and not self._stopping:
                        self.is_idle = True
                        self.changed.wait()
                        task = self.next_task()
                    if self._stopping:
                        return
                if isinstance(task, Record):
                    self.assistant.learn(task)
                elif task is not None:
                    task.verdict = self.assistant.judge(task.inputs, task.draws, task.base_prob)
        except BaseException as error:  # raised again in the training loop
            self.error = error

    def next_task(self) -> PendingBatch | Record | None:
        """Return the first batch without a verdict, else a record to learn from if it is time to, else None."""
        unjudged = next((waiting for waiting in self.waiting if waiting.verdict is None), None)
        if unjudged is not None:
            return unjudged
        enough = self._complete or len(self.waiting) >= self.learn_at
        return self.records.popleft() if enough and self.records else None
