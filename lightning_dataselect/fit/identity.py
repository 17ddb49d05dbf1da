"""A check that the samples of a fit are those that its scores belong to: data sets grow, and are exchanged."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.data.fingerprint import fingerprint, has_changed
from lightning_dataselect.data.sample_keys import keys_of_dataset
from lightning_dataselect.data.user_sampler import from_all_ranks
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState


def number_to_open(run: RunState, dataset: Any) -> int:
    """Return of how many samples a fit goes on: of as many as before where there are only more of them now."""
    n, known = len(dataset), run.known_n
    if known is None or run.known_samples is run.training_set.fingerprint:
        return n if known is None else known
    return known if n > known and not has_changed(run.known_samples, dataset) else n


def meet_samples(run: RunState, policy: SelectionPolicy, dataset: Any, epoch: int) -> bool:
    """Look at the data set that ``epoch`` trains on, and make its samples those of the run; all ranks call it together.

    New ones at its end are taken in as never measured. Where others have taken the places of those known, their
    scores are dropped with a warning, and the method begins anew.

    Args:
        run: Knows what the samples looked like.
        policy: Says which columns there are.
        dataset: That of the train loader.
        epoch: The 0-based epoch to come.

    Returns:
        True if scores were dropped, so that the epoch is to be planned anew.
    """
    n, before, known = len(dataset), run.store.n, run.training_set
    changed = n < before or has_changed(known.fingerprint, dataset)
    if run.store.world_size > 1:
        changed = any(from_all_ranks(changed))
    if changed:
        rank_zero_warn(
            f"The train loader's data set no longer holds the {before} samples that were scored: it has {n}, and others"
            f" stand in their places. Their scores are dropped, and {type(policy).__name__} begins anew with epoch"
            f" {epoch}. To go on with scores, keep each sample at its index, and add new ones at the end."
        )
        run.start_anew(policy, n, epoch)
    elif n > before:
        run.grow(policy, n)
    if changed or n > before or not known.fingerprint:
        known.fingerprint = fingerprint(dataset)
    if policy.sample_id is not None and (changed or known.keys is None or len(known.keys) != n):
        known.keys = keys_of_dataset(dataset, policy.sample_id)
    return changed
