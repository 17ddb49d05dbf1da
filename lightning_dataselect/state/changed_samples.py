"""Continue a run with other samples than before: with more of them, or with the same ones in other places."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState


def grow(run: RunState, policy: SelectionPolicy, n: int) -> None:
    """Add the new samples of a data set that now has ``n``, as never measured, also to the current plan."""
    fit, before = run.fit, run.store
    plan, new = fit.plan, torch.arange(before.n, n)
    weights = None if plan.weights is None else torch.cat([plan.weights, plan.weights.new_ones(len(new))])
    fit.plan = EpochPlan(plan.epoch, torch.cat([plan.indices, new]), weights)
    run.make_store(policy, n, before.world_size)
    run.store.load_state_dict(before.state_dict())
    run.to(before.device)


def rearrange(run: RunState, policy: SelectionPolicy, rows: Tensor) -> None:
    """Continue with samples that have changed places, without those that are gone, and with new ones.

    Args:
        run: The columns and the position of the fit.
        policy: Defines the columns.
        rows: int64 (n,), the earlier position of each sample; -1 for a new one, which counts as never measured and is
            added to the current plan.
    """
    fit, before, plan = run.fit, run.store, run.fit.plan
    in_plan = torch.zeros(before.n + 1, dtype=torch.bool)
    in_plan[plan.indices] = in_plan[-1] = True
    indices = in_plan[rows].nonzero().squeeze(1)
    if indices.numel() == 0:
        fit.plan = EpochPlan.everything(plan.epoch, len(rows), before.memory)
    else:
        weights = None if plan.weights is None else plan.weights_of(rows[indices])
        fit.plan = EpochPlan(plan.epoch, indices, weights)
    run.make_store(policy, len(rows), before.world_size)
    run.store.load_state_dict(before.state_of(rows))
    run.to(before.device)
