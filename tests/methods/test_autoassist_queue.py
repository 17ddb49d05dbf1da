"""The queues between the training and the Assistant's thread: bounded, never in the way, gone at the end."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_dataselect import AutoAssist
from lightning_dataselect.methods.autoassist.assistant import Assistant, Record, Verdict
from lightning_dataselect.methods.autoassist.inputs import SampleInputs
from lightning_dataselect.methods.autoassist.networks import CONVENTIONS
from lightning_dataselect.methods.autoassist.prefetch import look_ahead, released
from lightning_dataselect.methods.autoassist.prefetch_filter import PrefetchFilter
from lightning_dataselect.methods.autoassist.queue import InlineQueue, PendingBatch, ThreadedQueue

INPUTS = SampleInputs(torch.ones(2, 3), None)


class Gate(nn.Module):
    """A network that computes when it is let, and notes what it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.open, self.calls, self.busy = threading.Event(), [], threading.Event()

    def forward(self, x):
        if threading.current_thread() is not threading.main_thread():
            self.calls.append("learn" if self.training else "judge")
            self.busy.set()
            self.open.wait(100)
            if self.open.is_set() and x[0, 0] < 0:
                raise ZeroDivisionError("of its own")
        return x @ self.weight


def waiting(index, inputs=INPUTS):
    return PendingBatch(index, object(), 2, inputs, torch.zeros(2), 0.3)


def record(loss=1.0):
    return Record(INPUTS, None, torch.tensor([loss, 0.0]), None, 0)


def until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def until_asleep(queue):
    """Wait until the thread has looked at the queue as it is, and found nothing to do."""
    until(lambda: queue.is_idle)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def queue(gate):
    made = ThreadedQueue(Assistant(gate, CONVENTIONS["tabular"], 0.75), capacity=3, learn_at=2)
    yield made
    gate.open.set()
    made.stop()
    assert not [t for t in threading.enumerate() if t.name == "AutoAssist"]


def test_training_does_not_wait_for_a_busy_assistant(queue, gate):
    queue.offer(waiting(0))
    assert gate.busy.wait(100)
    taken = queue.take()
    for index in range(1, 200):
        queue.offer(waiting(index))
        queue.report(record())
        assert queue.take().verdict is None
    assert taken.verdict is None and taken.batch_idx == 0
    gate.open.set()
    queue.stop()  # after the verdict has come at last
    assert gate.calls[0] == "judge" and taken.verdict is None, "the training already goes by the whole batch"


def test_full_record_queue_drops_its_oldest(queue):
    for loss in range(10):
        queue.report(record(float(loss)))
    assert [float(kept.losses[0]) for kept in queue.records] == [7.0, 8.0, 9.0]


def test_assistant_judges_in_order_and_learns_only_when_enough_is_judged(queue, gate):
    gate.open.set()
    queue.report(record())
    queue.offer(waiting(0))
    until(lambda: queue.waiting[0].verdict is not None)
    until_asleep(queue)
    assert gate.calls == ["judge"], "one judged batch is less than learn_at=2"
    queue.offer(waiting(1))
    until(lambda: queue.assistant.steps == 1)
    assert gate.calls == ["judge", "judge", "learn"]
    assert queue.take().verdict.positions.tolist() == [0, 1]


def test_training_does_not_wait_while_the_assistant_learns(queue, gate):
    gate.open.set()
    for index in range(2):
        queue.offer(waiting(index))
    until(lambda: all(left.verdict is not None for left in queue.waiting))
    gate.open.clear()
    gate.busy.clear()
    queue.report(record())
    assert gate.busy.wait(100) and gate.calls[-1] == "learn"
    queue.offer(waiting(2))
    queue.report(record())
    queue.take()
    assert queue.assistant.steps == 0, "it had to come to an end first"


def test_batch_is_judged_by_its_own_base_prob(queue, gate):
    gate.open.set()
    inputs = SampleInputs(torch.ones(3, 3), None)
    for kind in (queue, InlineQueue(queue.assistant)):
        queue.assistant.accuracy = 1.0
        for base_prob in (0.3, 0.9):  # with q = 1/2 P is 0.65 and 0.95
            kind.offer(PendingBatch(0, object(), 3, inputs, torch.tensor([0.1, 0.2, 0.9]), base_prob))
        until(lambda kind=kind: all(left.verdict is not None for left in kind.waiting))
        assert [kind.take().verdict.positions.tolist() for _ in range(2)] == [[0, 1], [0, 1, 2]]


def test_batch_that_leaves_first_is_judged_first(queue, gate):
    for index in range(3):
        queue.offer(waiting(index))
    assert gate.busy.wait(100)
    assert queue.next_task().batch_idx == 0
    queue.take()
    assert queue.next_task().batch_idx == 1


def test_record_wakes_a_sleeping_assistant(queue, gate):
    gate.open.set()
    for index in range(2):
        queue.offer(waiting(index))
    until(lambda: all(left.verdict is not None for left in queue.waiting))
    until_asleep(queue)
    queue.report(record())
    until(lambda: queue.assistant.steps == 1)


def test_assistant_learns_from_the_oldest_record_first(queue, monkeypatch):
    learnt = []
    monkeypatch.setattr(queue.assistant, "learn", lambda record: learnt.append(float(record.losses[0])))
    for loss in range(3):
        queue.report(record(float(loss)))
    queue.close_epoch()
    until(lambda: len(learnt) == 3)
    assert learnt == [0, 1, 2]


def test_batches_of_an_interrupted_epoch_are_forgotten(queue):
    inline = InlineQueue(Assistant(nn.Linear(3, 1), CONVENTIONS["tabular"], 0.75))
    for kind in (queue, inline):
        kind.offer(waiting(0))
        kind.open_epoch()
        kind.offer(waiting(1))
        assert kind.take().batch_idx == 1 and len(kind) == 0


def test_assistant_learns_when_the_epoch_has_no_more_to_judge(queue, gate):
    gate.open.set()
    queue.report(record())
    until_asleep(queue)
    assert queue.assistant.steps == 0, "more may have to be judged"
    queue.close_epoch()
    until(lambda: queue.assistant.steps == 1)
    queue.open_epoch()
    queue.report(record())
    until_asleep(queue)
    assert queue.assistant.steps == 1


def test_error_of_the_assistant_is_raised_in_the_training_loop(queue, gate):
    gate.open.set()
    queue.offer(waiting(0, SampleInputs(torch.full((2, 3), -1.0), None)))
    until(lambda: queue.error is not None)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: of its own") as caught:
        queue.take()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("capacity", [0, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_looking_ahead_keeps_order_and_bounds(capacity, length):
    queue = InlineQueue(Assistant(nn.Linear(3, 1), CONVENTIONS["tabular"], 0.75))
    queue.capacity = capacity
    pulled, most = [], 0

    def admit(index, batch):
        pulled.append(index)
        return waiting(index)

    first, order = 4, []
    for left in look_ahead(iter(range(100)), first, first + length, admit, lambda: queue):
        order.append(left.batch_idx)
        most = max(most, len(queue))
        assert len(pulled) <= 2 * len(order), "an epoch starts after two batches"
    assert order == pulled == list(range(first, first + length))
    assert most == min(capacity, length // 2)


def test_queue_is_told_where_an_epoch_begins_and_ends():
    told = []

    class Told(InlineQueue):
        def open_epoch(self):
            told.append("open")

        def close_epoch(self):
            told.append("close")

        def take(self):
            told.append("take")
            return super().take()

    queue = Told(Assistant(nn.Linear(3, 1), CONVENTIONS["tabular"], 0.75))
    queue.capacity = 2
    for _ in range(2):
        list(look_ahead(iter(range(4)), 0, 4, lambda i, b: waiting(i), lambda: queue))
    # the third and fourth are pulled for the second that leaves; the end is seen at the third
    assert [x for x in told if x != "close"] == ["open", *["take"] * 4] * 2
    assert told.index("close") == 3 and told[-1] == "take"


def test_whole_batch_is_released_uncopied():
    judged = waiting(0)
    judged.batch = torch.arange(2)
    assert released(judged, pinned=False) is judged.batch
    judged.verdict = Verdict(torch.ones(2), torch.arange(2))
    assert released(judged, pinned=False) is judged.batch
    judged.verdict = Verdict(torch.ones(2), torch.tensor([1]))
    assert released(judged, pinned=False).tolist() == [1]


def test_look_ahead_ends_with_a_short_loader():
    queue = InlineQueue(Assistant(nn.Linear(3, 1), CONVENTIONS["tabular"], 0.75))
    assert len(list(look_ahead(iter(range(3)), 0, 8, lambda i, b: waiting(i), lambda: queue))) == 3


def screening(batch, epoch=0, rank=0, **options):
    """That of a rank in an epoch, with its first batch admitted, and the queue."""
    selector = AutoAssist(**options)
    epochs = SimpleNamespace(arrive=lambda batch_idx, batch: 4)
    context = SimpleNamespace(epochs=epochs, rank=rank, epoch=epoch)
    queues = []

    def build_queue(*first):
        queues.append(selector.build_queue(*first))
        return queues[0]

    made = PrefetchFilter(
        context, build_queue, selector.base_prob_of, seed=selector.seed, inputs=selector.inputs, known={}
    )
    return made, made.admit(0, batch), queues[0]


def test_each_seed_epoch_batch_and_rank_has_random_numbers_of_its_own():
    drawn = {}
    for seed, epoch, rank in itertools.product(range(2), repeat=3):
        made, first, _ = screening(torch.zeros(4, 3), epoch, rank, seed=seed, synchronous=True)
        _, same, _ = screening(torch.zeros(4, 3), epoch, rank, seed=seed, synchronous=True)
        assert torch.equal(first.draws, same.draws)
        for index, left in enumerate((first, made.admit(1, torch.zeros(4, 3)))):
            drawn[seed, epoch, rank, index] = tuple(left.draws.tolist())
    assert len(set(drawn.values())) == len(drawn) == 16
    assert all(0 <= u < 1 for draws in drawn.values() for u in draws)


@pytest.mark.parametrize(
    ("batch", "asked", "capacity", "learn_at", "base_probs"),
    [
        (torch.zeros(4, 3), None, 20, 5, [0.3, 0.3]),
        (torch.zeros(4, 3), 7, 7, 5, [0.3, 0.3]),
        (torch.zeros(4, 3, dtype=torch.int64), None, 50, 10, [1.0, 0.5]),
        # where fewer may wait than it waits for it would never learn
        (torch.zeros(4, 3), 2, 2, 2, [0.3, 0.3]),
        (torch.zeros(4, 3, dtype=torch.int64), 7, 7, 7, [1.0, 0.5]),
    ],
)
def test_fits_queues_are_as_long_as_asked_for(batch, asked, capacity, learn_at, base_probs):
    for epoch, base_prob in enumerate(base_probs):
        made, first, queue = screening(batch, epoch, queue_size=asked)
        try:
            assert (queue.capacity, queue.learn_at, queue.records.maxlen) == (capacity, learn_at, capacity)
            assert first.base_prob == base_prob
        finally:
            made.stop()


@pytest.mark.parametrize("epoch", [0, 3])
def test_record_says_what_was_trained_and_when(epoch, monkeypatch):
    made, left, queue = screening(torch.arange(12.0).view(4, 3), epoch, synchronous=True)
    records = []
    monkeypatch.setattr(queue, "report", records.append)
    made.report(left, torch.ones(4))
    left.verdict = Verdict(torch.ones(4), torch.tensor([0, 2]))
    made.report(left, torch.ones(2))
    assert [record.epoch for record in records] == [epoch, epoch]
    assert records[0].positions is None and records[1].positions.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.1)), "Dropout"),
        (nn.Sequential(nn.Linear(3, 1), nn.RReLU()), "RReLU"),
        (nn.Flatten(), "no parameters"),
    ],
)
def test_networks_that_cannot_be_assistants(network, message):
    with pytest.raises(ValueError, match=message):
        Assistant(network, CONVENTIONS["tabular"], 0.75)


def test_network_without_one_logit_a_sample():
    assistant = Assistant(nn.Linear(3, 2), CONVENTIONS["tabular"], 0.75)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for 2 samples"):
        assistant.judge(INPUTS, torch.zeros(2), 0.3)
