"""The writes of ranks are brought together, against the definition in NumPy."""

import os

import numpy as np
import pytest
import torch
from ranks import on_ranks

from lightning_dataselect.state import merging
from lightning_dataselect.state.store import ScoreStore

N, ROUNDS = 301, 3


def writes(rank, turn, where):
    """The samples that a rank writes in a turn, with what, and those it only counts."""
    rng = np.random.default_rng(100 * turn + rank)
    if where == "anywhere":
        written = rng.choice(N, 60, replace=False)
        counted = rng.choice(N, 40, replace=False)
    else:  # its own part of the data set, and one sample of everyone's
        written = np.append(np.arange(80) + 100 * rank, N - 1)
        counted = written if turn else np.empty(0, int)
    return written, rng.normal(size=len(written)).astype(np.float32), counted, rng.integers(1, 5, len(counted))


def stores(strategy, devices, where):
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=devices)
    merging.CHUNK = 64
    store = ScoreStore(N, world_size=devices, score_is_loss=True)
    store.add_column("times", 0, torch.int32, "sum")
    store.add_column("never", 0, torch.int32, "sum")
    store.add_column("first", 99, torch.int32, "min")
    store.add_column("wide", -1, torch.int64)
    store.add_column("total", 0.0, torch.float32, "sum")
    store.add_vectors("outputs", 3, torch.float16)
    for turn in range(ROUNDS):
        written, losses, counted, counts = (torch.from_numpy(part) for part in writes(rank, turn, where))
        store["loss"][written] = losses
        store["wide"][written] = 2**40 + written
        store["outputs"][written] = losses[:, None].half().expand(-1, 3)
        store.mark_dirty(written)
        store["times"][counted] += counts.int()
        store["total"][counted] += 0.1 * counts
        store["first"][counted] = torch.minimum(store["first"][counted], counts.int() + 10 * turn)
        store.mark_counted(counted)
        store.merge()
    return store.state_dict()


@pytest.mark.parametrize("where", ["anywhere", "own part"])
@pytest.mark.parametrize("world", [2, 3])
def test_all_ranks_come_to_what_the_definition_says(world, where, tmp_path):
    found = on_ranks(stores, world, tmp_path / "ranks", where=where)
    loss, wide = np.full(N, np.nan, np.float32), np.full(N, -1)
    times, first, total = np.zeros(N, int), np.full(N, 99), np.zeros(N)
    for turn in range(ROUNDS):
        for rank in range(world):
            written, losses, counted, counts = writes(rank, turn, where)
            loss[written], wide[written] = losses, 2**40 + written
            times[counted] += counts
            total[counted] += 0.1 * counts
            first[counted] = np.minimum(first[counted], counts + 10 * turn)
    for of_rank in found:
        np.testing.assert_array_equal(of_rank["loss"], loss)
        np.testing.assert_array_equal(of_rank["score"], loss)
        np.testing.assert_array_equal(of_rank["wide"], wide)
        np.testing.assert_array_equal(of_rank["times"], times)
        np.testing.assert_array_equal(of_rank["never"], 0)
        np.testing.assert_array_equal(of_rank["first"], first)
        np.testing.assert_allclose(of_rank["total"], total, rtol=1e-5)
        np.testing.assert_array_equal(of_rank["outputs"][:, 2], loss.astype(np.float16))
        assert all(torch.equal(of_rank[name].nan_to_num(), found[0][name].nan_to_num()) for name in of_rank)


def test_a_count_does_not_pass_on_an_old_value(tmp_path):
    first, second = on_ranks(old_and_new, 2, tmp_path / "ranks")
    assert first["loss"].tolist() == second["loss"].tolist() == [5.0, 0.0]


def old_and_new(strategy, devices):
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=devices)
    store = ScoreStore(2, world_size=devices)
    store["loss"].zero_()
    store.add_column("times", 0, torch.int32, "sum")
    if rank == 0:
        store["loss"][0] = 5.0
        store.mark_dirty(torch.tensor([0]))
    else:  # has left the sample out of a batch, and not measured it
        store["times"][0] += 1
        store.mark_counted(torch.tensor([0]))
    store.merge()
    return store.state_dict()


def received(strategy, devices, where):
    """The bytes that a rank is handed in a merge, and in how many pieces, of chunks of 64 samples."""
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=devices)
    merging.CHUNK, pieces = 64, []

    def counting(collective):
        def called(given, *others):
            pieces.append(sum(each.nbytes for each in given) if isinstance(given, list) else given.nbytes)
            collective(given, *others)

        return called

    merging.dist.all_gather = counting(torch.distributed.all_gather)
    merging.dist.broadcast = counting(torch.distributed.broadcast)
    n = 64 * 64 * devices
    store = ScoreStore(n, world_size=devices, score_is_loss=True)
    store.mark_dirty(
        torch.arange(n).view(-1, devices).T[rank] if where == "anywhere" else torch.arange(n).chunk(devices)[rank]
    )
    store.merge()
    return {"bytes": sum(pieces), "pieces": len(pieces), "n": n}


@pytest.mark.parametrize("where", ["anywhere", "own part"])
def test_no_more_travels_than_was_written_wherever_that_lies(where, tmp_path):
    for found in on_ranks(received, 3, tmp_path / "ranks", where=where):
        least = 8 * found["n"] + 8 * 3 * (3 + 1) * merging.MOST_CHUNKS  # index and loss of each sample, and the facts
        assert least <= found["bytes"] <= 1.04 * least


def test_ranks_wait_for_each_other_no_more_often_for_more_samples(tmp_path):
    for found in on_ranks(received, 3, tmp_path / "ranks", where="anywhere"):
        assert found["n"] > merging.MOST_CHUNKS * 64 and found["pieces"] == 1 + merging.MOST_CHUNKS
