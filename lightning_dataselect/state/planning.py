"""The plan of the next epoch: everything, what the epoch before selected, or what the method selects anew."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import Selection, check_selection, select_by_class


def plan_epoch(policy: SelectionPolicy, run: RunState, epoch: int, before: EpochPlan | None = None) -> EpochPlan:
    """Plan what ``epoch`` trains on.

    Args:
        policy: Decides.
        run: Holds the scores.
        epoch: The 0-based epoch to come.
        before: The plan of the epoch before; None at the start of a fit.

    Raises:
        TypeError: If the method's ``select`` returned no `Selection` of int64 indices.
        ValueError: If what it returned is empty, repeats a sample or leaves the data set.
    """
    n = run.store.n
    if policy.trains_on_everything(epoch):
        return EpochPlan(epoch, torch.arange(n))
    if before is not None and not (policy.selects_anew(epoch) or policy.trains_on_everything(before.epoch)):
        return EpochPlan(epoch, before.indices, before.weights)
    generator = epoch_generator(policy.seed, epoch, "select")

    def select_among(subset: Tensor, generator: torch.Generator) -> Selection:
        with run.restricted_to(subset):
            return policy.select(epoch, run.column("score"), generator)

    if policy.balance:
        chosen = select_by_class(select_among, run.store.column("class"), generator)
    else:
        chosen = policy.select(epoch, run.store.column("score"), generator)
    chosen = check_selection(chosen, n, type(policy).__name__)
    return EpochPlan(epoch, chosen.indices, chosen.weights)
