"""A sampler of the user's own: drawn once an epoch, on each rank or for all, and kept to what is selected."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DistributedSampler, Sampler

from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import InvalidLoaderError

# Draws at random miss their share by some per cent; a fold of the data set misses by far more.
_FEWEST_DRAWN = 0.75
_T = TypeVar("_T")


def own_order(sampler: Sampler[int], plan: EpochPlan, selection: SelectionSampler, n: int, ranks_draw: bool) -> Tensor:
    """The order in which all ranks together go through the samples of ``plan``, int64 (m,).

    It is no longer than the selected share of what ``sampler`` draws with nothing pruned.

    Args:
        sampler: the user's.
        plan: what is selected.
        selection: deals the order out to the ranks.
        n: number of samples of the data set.
        ranks_draw: whether ``sampler`` draws for its rank alone, and not for all of them alike.

    Raises:
        ValueError: if ``sampler`` has drawn none of the selected samples.
    """
    order = _selected_draws(sampler, plan, n)
    if selection.num_replicas > 1:
        order = _in_turns(from_all_ranks(order)) if ranks_draw else _from_first_rank(order)
    if order.numel() == 0:
        raise InvalidLoaderError(
            f"The sampler {type(sampler).__name__} drew none of the {plan.indices.numel()} selected samples in epoch"
            f" {plan.epoch}. Lower `prune_ratio`, or let the sampler draw more samples an epoch."
        )
    share = round(selection.full_size * plan.indices.numel() / n)
    if order.numel() < _FEWEST_DRAWN * share:
        rank_zero_warn(
            f"The sampler {type(sampler).__name__} draws far fewer of the selected samples than their share of the data"
            " set, so more is dropped than you asked for. If it draws from a part of the data set, wrap the data set in"
            " torch.utils.data.Subset and let it draw from all of that."
        )
    return order[: max(share, 1)]


def _selected_draws(sampler: Sampler[int], plan: EpochPlan, n: int) -> Tensor:
    """One pass of the user's sampler, without what is not selected."""
    if callable(set_epoch := getattr(sampler, "set_epoch", None)):
        set_epoch(plan.epoch)
    drawn = torch.tensor(list(sampler), dtype=torch.int64)
    kept = torch.zeros(n, dtype=torch.bool)
    kept[plan.indices] = True
    return drawn[kept[drawn]]


def draws_for_its_rank(sampler: Sampler[int], world_size: int) -> bool:
    """Whether each of several ranks is to train on what its own sampler draws, as Lightning would have it."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    return isinstance(sampler, DistributedSampler) or world_size == 1  # 1: use_distributed_sampler=False


def from_all_ranks(mine: _T) -> list[_T]:
    """What each rank has handed in, by rank."""
    everyones = [mine] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return everyones


def _in_turns(orders: list[Tensor]) -> Tensor:
    """One sample of each rank's order after another: dealt out in turns, each rank has its own; the longer lend."""
    dealt = pad_sequence(orders, padding_value=-1).flatten()
    return dealt[dealt >= 0]


def _from_first_rank(order: Tensor) -> Tensor:
    # a sampler that draws from the global random state draws differently on each rank
    shared = [order]
    dist.broadcast_object_list(shared)
    return shared[0]
