"""Check that the scores of a fit belong to its samples: data sets grow, and are replaced."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.data.fingerprint import fingerprint, has_changed
from lightning_dataselect.data.sample_keys import keys_of_dataset
from lightning_dataselect.data.user_sampler import from_all_ranks
from lightning_dataselect.fit.start import start_from_file
from lightning_dataselect.state.changed_samples import grow, rearrange
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.trainer import resumes_within_epoch
from lightning_dataselect.utils.errors import CheckpointMismatchError


def open_samples(trainer: pl.Trainer, run: RunState, policy: SelectionPolicy, dataset: Any) -> bool:
    """Open the columns of a data set's samples, or match those that are known with them.

    Args:
        trainer: The Trainer of the fit.
        run: Holds the columns, if there are any yet.
        policy: Defines them.
        dataset: The train loader's data set.

    Returns:
        True if the current epoch must be planned, since the fit begins here or its scores were dropped.
    """
    begins = run.open(policy, number_to_open(run, policy, dataset), trainer.world_size, trainer.current_epoch)
    opened = run.store
    changed = meet_samples(run, policy, dataset, run.fit.plan.epoch)
    if policy.sample_id is not None and run.store is not opened:
        check_between_epochs(trainer, opened.n, run.store.n)
    if begins and policy.start_from is not None:
        start_from_file(run, policy, dataset)
    return changed or begins


def number_to_open(run: RunState, policy: SelectionPolicy, dataset: Any) -> int:
    """Return how many samples a fit resumes with: as many as before if there are only more, or all can be matched.

    `meet_samples` handles the ones that were added or removed.
    """
    n, known = len(dataset), run.known_n
    if known is not None and run.has_saved_keys and policy.sample_id is not None:
        return known
    if known is None or run.known_samples is run.training_set.fingerprint:
        return n if known is None else known
    return known if n > known and not has_changed(run.known_samples, dataset) else n


def meet_samples(run: RunState, policy: SelectionPolicy, dataset: Any, epoch: int) -> bool:
    """Match the run's samples with the data set that ``epoch`` trains on; all ranks must call it together.

    Samples with keys are matched wherever they are. Without keys, new samples at the end are added as never measured.
    If other samples have taken the places of known ones, or some are gone, the scores are dropped with a warning, and
    the method starts again.

    Args:
        run: Remembers what the samples looked like.
        policy: Defines the columns.
        dataset: The train loader's data set.
        epoch: The 0-based epoch to come.

    Returns:
        True if scores were dropped, so that the epoch must be planned again.
    """
    n, before, known = len(dataset), run.store.n, run.training_set
    moved = has_changed(known.fingerprint, dataset)
    if run.store.world_size > 1:
        moved = any(from_all_ranks(moved))
    earlier = known.key_hashes if moved or n != before else None
    if policy.sample_id is not None and (moved or known.keys is None or n != len(known.keys)):
        known.know_by(keys_of_dataset(dataset, policy.sample_id))
    dropped = False
    if moved or n != before:
        rows = None if earlier is None or known.key_hashes is None else _rows_before(earlier, known.key_hashes)
        if rows is not None and bool((rows >= 0).any()):
            rearrange(run, policy, rows)
        elif dropped := moved or n < before:
            _warn_of_dropped_scores(type(policy).__name__, before, n, epoch)
            run.start_anew(policy, n, epoch)
        else:
            grow(run, policy, n)
    if moved or n != before or not known.fingerprint:
        known.fingerprint = fingerprint(dataset)
    return dropped


def _rows_before(earlier: Tensor, now: Tensor) -> Tensor:
    """Return the earlier position of the sample with each key, int64 (n,); -1 for a new sample."""
    in_order = earlier.sort()
    places = torch.searchsorted(in_order.values, now).clamp_(max=len(earlier) - 1)
    return torch.where(in_order.values[places] == now, in_order.indices[places], -1)


def check_between_epochs(trainer: pl.Trainer, before: int, n: int) -> None:
    """Refuse other samples in the middle of an epoch: which of them are still to be trained on is unknown.

    Args:
        trainer: The Trainer of the fit.
        before: Earlier number of samples.
        n: Current number of samples.

    Raises:
        CheckpointMismatchError: If the fit is resumed within an epoch.
    """
    if resumes_within_epoch(trainer):
        raise CheckpointMismatchError(
            f"The checkpoint was written in the middle of an epoch on {before} samples. Since then samples were added,"
            f" removed or moved (now there are {n}), so the rest of that epoch cannot be told from them. Resume from a"
            " checkpoint at the end of an epoch, from which samples are found again by their keys."
        )


def _warn_of_dropped_scores(name: str, before: int, n: int, epoch: int) -> None:
    others = ", with others in their places" if n >= before else ""
    rank_zero_warn(
        f"The train loader's data set no longer holds the {before} samples that were scored: it has {n}{others}. Their"
        f" scores are dropped, and {name} starts again with epoch {epoch}. To keep the scores, give"
        f" {name}(sample_id=...) keys by which samples are found again, or leave each sample at its index and add new"
        " ones at the end."
    )
