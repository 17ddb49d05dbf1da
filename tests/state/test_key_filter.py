"""The keys that a pass leaves out, beside a plain set; in copies that share its memory, and in those that do not."""

import pickle
import random

import pytest
import torch
import torch.multiprocessing as mp

from lightning_dataselect.state.key_filter import KeyFilter, hash_of, hashes_of


@pytest.mark.parametrize("make", [int, str, lambda i: f"k{i}".encode()], ids=["int", "str", "bytes"])
def test_it_is_a_set_of_keys(make):
    rng, keeps = random.Random(0), KeyFilter(500)
    for size in (300, 0, 500, 1):
        out = {make(i) for i in rng.sample(range(2000), size)}
        keeps.leave_out(hashes_of(out))
        assert [keeps(make(i)) for i in range(2000)] == [make(i) not in out for i in range(2000)]
        assert keeps.left_out().tolist() == sorted(map(hash_of, out)) and keeps.is_open == (size == 0)


def test_keys_of_several_kinds_are_told_apart():
    assert len({hash_of(key) for key in (7, "7", b"7", -7, "-7", 2**70)}) == 6


def test_the_first_are_left_out_where_there_is_no_room_for_all():
    keeps = KeyFilter(2)
    keeps.leave_out(hashes_of(["a", "b", "c"]))
    assert [keeps(key) for key in "abcd"] == [False, False, True, True]


def ask(keeps, questions, answers):
    for key in iter(questions.get, None):
        answers.put(keeps(key))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_knows_at_once(method):
    context, keeps = mp.get_context(method), KeyFilter(8)
    questions, answers = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=ask, args=(keeps, questions, answers))
    process.start()
    said = []
    for out in ([], ["a"], ["b"]):
        keeps.leave_out(hashes_of(out))
        questions.put("a")
        said.append(answers.get())
    questions.put(None)
    process.join(60)
    assert said == [True, False, True] and keeps.is_asked


def test_a_copy_has_what_was_left_out():
    keeps = KeyFilter(8)
    keeps.leave_out(hashes_of(["a"]))
    copied = pickle.loads(pickle.dumps(keeps))
    keeps.leave_out(torch.empty(0, dtype=torch.int64))
    assert not copied("a") and keeps("a") and not KeyFilter(1).is_asked
