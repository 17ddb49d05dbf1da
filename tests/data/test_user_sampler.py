"""Batches of the user's own making, of several ranks."""

import os

import torch
from ranks import on_ranks

from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.data.user_sampler import OwnDraws
from lightning_dataselect.state.plan import EpochPlan

N = 12
OF_RANKS = [[[0, 1], [2], [3, 4, 5]], [[6]], [[7, 8, 9], [10, 11]]]


def drawn(strategy, devices):
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=devices)
    selection = SelectionSampler(N, shuffle=False, num_replicas=devices, rank=rank)
    selection.plan = EpochPlan(1, torch.tensor([index for index in range(N) if index not in (3, 10, 11)]))
    plan = OwnDraws(N, None, OF_RANKS[rank]).draw(selection, lambda size, most: size)
    return [batch.tolist() for batch in plan.order.split(plan.batch_sizes.tolist())]


def test_one_batch_of_each_rank_follows_after_another_without_what_is_not_selected(tmp_path):
    in_turns = [[0, 1], [6], [7, 8, 9], [2], [4, 5]]
    assert on_ranks(drawn, 3, tmp_path / "ranks") == [in_turns] * 3
