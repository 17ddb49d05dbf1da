"""Find the train loader that samples are selected from, and put it back under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import lightning.pytorch as pl

from lightning_dataselect.data.batch_source import BatchSource
from lightning_dataselect.data.chosen_loader import ChosenLoader, choose_loader
from lightning_dataselect.data.loader import SelectedLoader, prepare
from lightning_dataselect.data.recollate import collate_anew
from lightning_dataselect.fit.combination import Combination
from lightning_dataselect.fit.notices import warn_of_batch_size
from lightning_dataselect.numerics.placement import placement_in
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.trainer import batch_to_device, combination_mode, lengths_of_others, sampler_ranks, show_apart


class PickedLoader(NamedTuple):
    """A loader that samples are selected from, and its place among all.

    Attributes:
        chosen: Its place.
        selected: A copy that follows a plan.
        looped: What the Trainer iterates in its place, which the policy may have wrapped.
        most_dropped: The largest share of its samples that an epoch may drop.
    """

    chosen: ChosenLoader
    selected: SelectedLoader
    looped: object
    most_dropped: float


def select_loader(trainer: pl.Trainer, policy: SelectionPolicy, given: object, source: BatchSource) -> PickedLoader:
    """Find the loader that samples are selected from, and make a copy of it that follows a plan.

    Args:
        trainer: The Trainer of the fit.
        policy: Names the loader, says what it must be able to do, and may wrap it.
        given: The loader, or loaders, that the Trainer would train on.
        source: Is told where the batches come from.
    """
    chosen = choose_loader(given, policy.loader, type(policy).__name__)
    world_size, rank = sampler_ranks(trainer)
    selected = prepare(
        chosen.loader,
        seed=policy.draw_seed,
        world_size=world_size,
        rank=rank,
        needs_losses=policy.needs_losses,
        memory=placement_in(policy.scratch_dir),
    )
    source.loader, source.part = selected.loader, chosen.part
    source.collate = partial(_batch_of, trainer, selected) if chosen.part is None else None
    most_dropped = policy.largest_ratio if policy.chooses_epochs else 0.0
    return PickedLoader(chosen, selected, policy.wrap_dataloader(selected.loader), most_dropped)


def combine(
    trainer: pl.Trainer, given: object, picked: Sequence[PickedLoader]
) -> tuple[object, list[Combination | None]]:
    """Put the loaders under a plan back in their places among the others.

    Args:
        trainer: The Trainer of the fit.
        given: The loader, or loaders, that the Trainer would train on.
        picked: Those that samples are selected from.

    Returns:
        What the Trainer is to train on, and how each loader is combined with others; None if it is the only one.
    """
    mode = combination_mode(given)
    looped = shown = picked[0].chosen.members
    for each in picked:
        looped = replace(each.chosen, members=looped).replaced(each.looped)
        shown = replace(each.chosen, members=shown).replaced(each.selected.shown)
    combined = show_apart(trainer, looped, shown, mode, before=partial(_share, [each.selected for each in picked]))
    if picked[0].chosen.part is None:
        return combined, [None]
    combinations: list[Combination | None] = []
    for each in picked:
        others = [other for other in picked if other is not each]
        lengths = partial(_lengths_beside, trainer, combined, each.chosen.position(), others)
        combination = Combination(mode, lengths, partial(lengths, at_least=True) if others else None)
        each.selected.batches.lasts = combination.n_batches if combination.repeats else None
        combinations.append(combination)
    return combined, combinations


def _share(selected: Sequence[SelectedLoader]) -> None:
    for each in selected:
        each.shared.share()


def _lengths_beside(
    trainer: pl.Trainer, combined: Any, position: int, planned: Sequence[PickedLoader], *, at_least: bool = False
) -> dict[int, float]:
    """Return the number of batches of every loader but one: of those that follow plans, in one pass through theirs."""
    of_plans = {
        each.chosen.position(): each.selected.batches.n_of_plan * (1 - each.most_dropped if at_least else 1)
        for each in planned
    }
    return lengths_of_others(trainer, combined, {position, *of_plans}) | of_plans


def _batch_of(trainer: pl.Trainer, selected: SelectedLoader, indices: Sequence[int]) -> Any:
    """Make a batch of some samples, as the training loop would receive it."""
    last = selected.n - 1  # stands in for a sample that is repeated to make ranks even
    own = [min(index, last) for index in indices]
    return batch_to_device(trainer, collate_anew(selected.loader, own))


def take_over_batch_size(state: FitState, selected: SelectedLoader, *, goes_on: bool) -> None:
    """Note the number of samples in a batch of all ranks; warn if an epoch is resumed with another batch size."""
    now = (selected.batches.batch_size or 0) * selected.sampler.num_replicas
    if goes_on:
        warn_of_batch_size(state, now)
    state.batch_size = now
