"""Find the train loader that samples are selected from, and put it back under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

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


def select_loader(
    trainer: pl.Trainer, policy: SelectionPolicy, given: object, source: BatchSource
) -> tuple[ChosenLoader, SelectedLoader]:
    """Find the loader that samples are selected from, and make a copy of it that follows a plan.

    Args:
        trainer: The Trainer of the fit.
        policy: Names the loader, and says what it must be able to do.
        given: The loader, or loaders, that the Trainer would train on.
        source: Is told where the batches come from.
    """
    chosen = choose_loader(given, policy.loader, type(policy).__name__)
    world_size, rank = sampler_ranks(trainer)
    selected = prepare(
        chosen.loader,
        seed=policy.seed,
        world_size=world_size,
        rank=rank,
        needs_losses=policy.needs_losses,
        memory=placement_in(policy.scratch_dir),
    )
    source.loader, source.part = selected.loader, chosen.part
    source.collate = partial(_batch_of, trainer, selected) if chosen.part is None else None
    return chosen, selected


def combine(
    trainer: pl.Trainer, policy: SelectionPolicy, given: object, chosen: ChosenLoader, selected: SelectedLoader
) -> tuple[object, Combination | None]:
    """Put the loader under a plan back in its place among the others.

    Args:
        trainer: The Trainer of the fit.
        policy: May wrap the loader.
        given: The loader, or loaders, that the Trainer would train on.
        chosen: Its place among them.
        selected: The loader.

    Returns:
        What the Trainer is to train on, and how the loader is combined with others; None if it is the only one.
    """
    looped, mode = policy.wrap_dataloader(selected.loader), combination_mode(given)
    combined = show_apart(trainer, chosen.replaced(looped), chosen.replaced(selected.shown), mode)
    if chosen.part is None:
        return combined, None
    combination = Combination(mode, partial(lengths_of_others, trainer, combined, chosen.position()))
    selected.batches.lasts = combination.n_batches if combination.repeats else None
    return combined, combination


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
