"""Where batches wait for the Assistant's verdict: judged at once, or by a thread of its own."""

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
    """A batch ahead of the training.

    Attributes:
        batch_idx: which batch of the epoch.
        batch: what the loader yielded.
        size: number of its samples.
        inputs: what the Assistant sees of them.
        draws: float32 (B,), uniform in [0, 1), what acceptance is decided by.
        base_prob: the probability of a sample taken for easy.
        verdict: the Assistant's, once it is there.
    """

    batch_idx: int
    batch: Any
    size: int
    inputs: SampleInputs
    draws: Tensor
    base_prob: float
    verdict: Verdict | None = None


class BatchQueue:
    """What the training loop hands batches and records to, and takes batches from; see the two kinds below."""

    capacity = 0
    """How many batches may wait behind the one that is trained on."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self._waiting: deque[PendingBatch] = deque()

    def __len__(self) -> int:
        """Number of batches that wait."""
        return len(self._waiting)

    def open_epoch(self) -> None:
        """Forget batches of an epoch that was left."""
        self._waiting.clear()

    def close_epoch(self) -> None:
        """No further batches come in this epoch."""

    def offer(self, waiting: PendingBatch) -> None:
        """Put a batch at the end of the queue."""
        raise NotImplementedError

    def take(self) -> PendingBatch:
        """The first batch of the queue, judged or not."""
        raise NotImplementedError

    def report(self, record: Record) -> None:
        """Hand in what a trained batch has shown."""
        raise NotImplementedError

    def stop(self) -> None:
        """End whatever goes on."""


class InlineQueue(BatchQueue):
    """Judges each batch when it is asked for and learns from it as soon as it is trained, in the same thread."""

    def offer(self, waiting: PendingBatch) -> None:
        """Judge a batch."""
        waiting.verdict = self._assistant.judge(waiting.inputs, waiting.draws, waiting.base_prob)
        self._waiting.append(waiting)

    def take(self) -> PendingBatch:
        """The batch that was just judged."""
        return self._waiting.popleft()

    def report(self, record: Record) -> None:
        """Learn from a batch."""
        self._assistant.learn(record)


class ThreadedQueue(BatchQueue):
    """Judges and learns in a thread, for which the training loop never waits.

    Judging comes first. The thread learns from the oldest record only while ``learn_at`` judged batches wait, or no
    more are to be judged in this epoch. Where more records come than it can learn from, the oldest are dropped.

    Args:
        assistant: used by the thread alone from now on.
        capacity: how many batches may wait, and how many records.
        learn_at: judged batches that must wait before it learns.
    """

    def __init__(self, assistant: Assistant, capacity: int, learn_at: int) -> None:
        super().__init__(assistant)
        self.capacity = capacity
        self._learn_at = learn_at
        self._records: deque[Record] = deque(maxlen=capacity)
        self._complete = self._stopping = False
        self._error: BaseException | None = None
        # held for a look at the queues, never while the Assistant computes
        self._change = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._run, name="AutoAssist", daemon=True)
        self._thread.start()

    def open_epoch(self) -> None:
        """Forget batches of an epoch that was left."""
        with self._change:
            self._complete = False
            self._waiting.clear()

    def close_epoch(self) -> None:
        """Let the Assistant learn as it likes: no further batches come in this epoch."""
        with self._change:
            self._complete = True
            self._change.notify()

    def offer(self, waiting: PendingBatch) -> None:
        """Put a batch at the end of the queue."""
        with self._change:
            self._waiting.append(waiting)
            self._change.notify()

    def take(self) -> PendingBatch:
        """The first batch of the queue, judged or not.

        Raises:
            RuntimeError: if the Assistant has failed.
        """
        if self._error is not None:
            raise AssistantError(
                f"The Assistant has failed: {type(self._error).__name__}: {self._error} Check the module given as"
                " `assistant` with one batch on the CPU, or leave assistant=None."
            ) from self._error
        with self._change:
            # a copy, on which no verdict can appear any more once the training goes by what is there
            return replace(self._waiting.popleft())

    def report(self, record: Record) -> None:
        """Put a record at the end of the queue; a full queue drops its oldest."""
        with self._change:
            self._records.append(record)
            self._change.notify()

    def stop(self) -> None:
        """End the thread after what it is just doing."""
        with self._change:
            self._stopping = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._change:
                    task = self._next()
                    while task is None and not self._stopping:
                        self._change.wait()
                        task = self._next()
                    if self._stopping:
                        return
                if isinstance(task, Record):
                    self._assistant.learn(task)
                elif task is not None:
                    task.verdict = self._assistant.judge(task.inputs, task.draws, task.base_prob)
        except BaseException as error:  # raised again in the training loop
            self._error = error

    def _next(self) -> PendingBatch | Record | None:
        unjudged = next((waiting for waiting in self._waiting if waiting.verdict is None), None)
        if unjudged is not None:
            return unjudged
        enough = self._complete or len(self._waiting) >= self._learn_at
        return self._records.popleft() if enough and self._records else None
