import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from lightning_dataselect.data.batches import RecordingBatchSampler
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.numerics.placement import IN_MEMORY, OnDisk
from lightning_dataselect.state.plan import EpochPlan


def shards(n, kept, ranks, *, shuffle=True, epoch=1, seed=0):
    plan = EpochPlan(epoch, torch.arange(n)[:: max(n // kept, 1)][:kept])
    samplers = [SelectionSampler(n, shuffle=shuffle, seed=seed, num_replicas=ranks, rank=r) for r in range(ranks)]
    for sampler in samplers:
        sampler.plan = plan
    return plan, samplers


@settings(max_examples=60)
@given(kept=st.integers(1, 40), ranks=st.integers(1, 5), shuffle=st.booleans())
def test_ranks_share_the_selection_evenly_and_repeat_only_to_pad(kept, ranks, shuffle):
    plan, samplers = shards(40, kept, ranks, shuffle=shuffle)
    drawn = [list(sampler) for sampler in samplers]
    assert {len(d) for d in drawn} == {-(-kept // ranks)} == {len(s) for s in samplers}
    own = [i for d, s in zip(drawn, samplers, strict=True) for i in d[: s.n_unpadded]]
    assert sorted(own) == plan.indices.tolist()
    assert set(sum(drawn, [])) == set(own)
    assert sum(map(len, drawn)) - kept < ranks


def test_iterating_is_pure_and_epochs_differ():
    _, (sampler,) = shards(60, 30, 1)
    first = list(sampler)
    assert list(sampler) == first != sorted(first)
    sampler.set_epoch(7)
    assert list(sampler) == first
    sampler.plan = EpochPlan(2, sampler.plan.indices)
    assert sorted(list(sampler)) == sorted(first)
    assert list(sampler) != first


def test_a_rank_on_its_way_keeps_its_own_part_of_the_order_alone(monkeypatch):
    orders = []

    def random_order(n, generator):
        order = torch.randperm(n, generator=generator)
        orders.append(weakref.ref(order))
        return order

    monkeypatch.setattr("lightning_dataselect.data.sampler.random_order", random_order)
    on_its_way = iter(SelectionSampler(100, shuffle=True, num_replicas=4))
    assert 0 <= next(on_its_way) < 100
    assert [order() for order in orders] == [None]


def test_the_seed_decides_the_order_and_no_shuffle_means_ascending():
    assert list(shards(60, 30, 1, seed=1)[1][0]) != list(shards(60, 30, 1, seed=2)[1][0])
    assert list(shards(60, 30, 1, shuffle=False)[1][0]) == list(range(0, 60, 2))


def test_a_drawn_order_is_kept_with_its_repeats():
    _, (even, odd) = shards(10, 5, 2)
    for sampler in (even, odd):
        sampler.plan = EpochPlan(1, torch.tensor([2, 4, 6]), order=torch.tensor([6, 2, 6, 4]))
    assert (list(even), list(odd), len(odd)) == ([6, 6], [2, 4], 2)


def test_announces_the_full_size_to_schedules_only_while_asked():
    _, (sampler,) = shards(100, 20, 1)
    assert len(sampler) == 20
    sampler.announce_full = True
    assert len(sampler) == 100
    assert len(list(sampler)) == 20


def recorder(kept=11, ranks=1, rank=0, batch_size=3, drop_last=False):
    _, samplers = shards(22, kept, ranks, shuffle=False)
    return RecordingBatchSampler(samplers[rank], batch_size, drop_last=drop_last)


def test_records_each_batch_however_far_the_loader_reads_ahead():
    batches = recorder()
    yielded = list(batches)
    taken = [batches.take(i) for i in range(4)]
    assert [t.indices.tolist() for t in taken] == yielded
    assert [t.n_unpadded for t in taken] == [3, 3, 3, 2]


def test_padding_is_told_from_samples():
    batches = recorder(kept=11, ranks=2, rank=1)
    assert [len(b) for b in batches] == [3, 3]
    assert [batches.take(i).n_unpadded for i in range(2)] == [3, 2]


def test_goes_on_in_the_middle_without_changing_its_length():
    whole = list(recorder())
    batches = recorder()
    batches.start_batch = 2
    assert list(batches) == whole[2:]
    assert len(batches) == 4
    assert batches.take(2).indices.tolist() == whole[2]


@settings(max_examples=100)
@given(n=st.integers(5, 40), kept=st.integers(2, 40), batch_size=st.integers(3, 7), ranks=st.integers(1, 3))
def test_pruning_makes_no_batch_of_one(n, kept, batch_size, ranks):
    _, samplers = shards(n, min(kept, n), ranks, shuffle=False)
    for sampler in samplers:
        plain = list(BatchSampler(sampler, batch_size, drop_last=False))
        batches = RecordingBatchSampler(sampler, batch_size)
        made = list(batches)
        assert sum(made, []) == sum(plain, []) and len(made) == len(plain) == len(batches)
        assert sum(batches.take(i).n_unpadded for i in range(len(made))) == sampler.n_unpadded
        full = -(-n // ranks)
        if full % batch_size == 1 or kept == n:
            assert made == plain
        elif len(made) > 1:
            assert min(map(len, made)) > 1


def test_iterating_anew_forgets_what_was_read_ahead():
    batches = recorder()
    list(batches)
    fresh = iter(batches)
    next(fresh)
    assert batches.take(0).indices.tolist() == [0, 2, 4]
    with pytest.raises(RuntimeError, match="Batch 1 reached the training step.*Put the selector first"):
        batches.take(1)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("num_replicas", [1, 3])
def test_the_order_on_the_disk_is_the_one_in_memory(num_replicas, turn, shuffle, tmp_path):
    for rank in range(num_replicas):
        in_memory, on_disk = (
            SelectionSampler(10, shuffle=shuffle, num_replicas=num_replicas, rank=rank, memory=memory)
            for memory in (IN_MEMORY, OnDisk(tmp_path))
        )
        expected, found = ([part.tolist() for part in each.go_through(turn, 3)] for each in (in_memory, on_disk))
        assert found == expected and sum(map(len, found)) == len(on_disk)
