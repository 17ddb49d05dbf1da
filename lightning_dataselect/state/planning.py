"""Plan the next epoch: everything, the selection of the previous epoch, or a new selection by the method."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import mask_of, positions, spread, taken
from lightning_dataselect.numerics.sampling import top_among
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.numerics.sizes import whole_size
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import Selection, check_selection, select_by_class


def plan_epoch(
    policy: SelectionPolicy,
    run: RunState,
    epoch: int,
    before: EpochPlan | None = None,
) -> EpochPlan:
    """Plan what ``epoch`` trains on.

    Args:
        policy: Makes the decisions.
        run: Holds the scores.
        epoch: The 0-based epoch to come.
        before: The plan of the previous epoch; None at the start of a fit.

    Raises:
        TypeError: If the method's ``select`` returned no `Selection` of int64 indices.
        ValueError: If what it returned is empty, repeats a sample or leaves the data set.
    """
    n = run.store.n
    if policy.trains_on_everything(epoch):
        return EpochPlan.everything(epoch, n, run.store.memory)
    if before is not None and not (policy.selects_anew(epoch) or policy.trains_on_everything(before.epoch)):
        return EpochPlan(epoch, before.indices, before.weights)
    policy.prune_ratio = policy.ratio_at(epoch)
    generator = epoch_generator(policy.draw_seed, epoch, "select")

    def select_among(subset: Tensor, generator: torch.Generator) -> Selection:
        with run.restricted_to(subset):
            return policy.select(epoch, run.column("score"), generator)

    with run.store.memory.active():
        if policy.balance:
            chosen = select_by_class(select_among, run.store.column("class"), generator)
        else:
            chosen = policy.select(epoch, run.store.column("score"), generator)
        chosen = check_selection(chosen, n, type(policy).__name__)
        n_chosen = chosen.indices.numel()
        # with a few large batches, rounding up could select everything: use one batch less then
        size = whole_size(n_chosen, n - 1, policy.batch_unit) if n_chosen < n else n
        if size != n_chosen:
            generator = epoch_generator(policy.draw_seed, epoch, "whole batches")
            chosen = resize(chosen, size, policy.line_up(run.store.column("score")), generator)
    return EpochPlan(epoch, chosen.indices, chosen.weights)


def resize(chosen: Selection, size: int, line: Tensor, generator: torch.Generator) -> Selection:
    """Return a selection of ``size`` samples: add those that were next in line, or remove those that were last.

    Args:
        chosen: Sorted by index.
        size: At least 1, and no more than there are samples.
        line: float32 (N,), the values that rank samples for filling up, the highest first; NaN = never measured comes
            before all.
        generator: Breaks ties.

    Returns:
        The selection, sorted by index; added samples have the weight 1.

    Example:
        >>> chosen = Selection(torch.tensor([1, 2]), torch.tensor([2.0, 3.0]))
        >>> line = torch.tensor([0.1, 0.9, 0.5, float("nan")])
        >>> resize(chosen, 3, line, torch.Generator())
        Selection(indices=tensor([1, 2, 3]), weights=tensor([2., 3., 1.]))
        >>> resize(chosen, 1, line, torch.Generator())
        Selection(indices=tensor([1]), weights=tensor([2.]))
    """
    missing = size - chosen.indices.numel()
    if missing == 0:
        return chosen
    are_chosen = mask_of(line.numel(), chosen.indices)
    if missing < 0:
        stay = taken(top_among(line, are_chosen, size, generator), are_chosen)
        del are_chosen
        weights = None if chosen.weights is None else taken(chosen.weights, stay)
        return Selection(taken(chosen.indices, stay), weights)
    resized = top_among(line, ~are_chosen, missing, generator).logical_or_(are_chosen)
    weights = None if chosen.weights is None else spread(chosen.weights, taken(are_chosen, resized), otherwise=1)
    del are_chosen
    return Selection(positions(resized), weights)
