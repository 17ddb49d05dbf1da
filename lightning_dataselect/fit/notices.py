"""Warnings at the start of a fit and at the end of its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.fit.combination import Combination
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState

_FEW_CHOICES = 4


def warn_if_idle(policy: SelectionPolicy) -> None:
    """Warn if the arguments leave a fit of this length nothing to prune, or hardly any selection."""
    name, n_epochs = type(policy).__name__, policy.max_epochs
    if policy.largest_ratio == 0 or not n_epochs:
        return
    if policy.budget is None:
        pruned = [epoch for epoch in range(policy.first_epoch, n_epochs) if not policy.trains_on_everything(epoch)]
        n_pruned, n_choices = len(pruned), sum(map(policy.selects_anew, pruned))
    else:
        n_pruned, n_epochs = _epochs_in_budget(policy, policy.budget * n_epochs)
        n_choices = math.ceil(n_pruned / policy.every_n_epochs)
    if not n_pruned:
        rank_zero_warn(
            f"{name} will drop nothing: warmup_epochs={policy.warmup_epochs} and anneal={policy.anneal} leave"
            f" none of the {n_epochs} epochs{' in its budget' if policy.budget else ''} to prune. Lower them, or train"
            " for more epochs."
        )
    elif policy.every_n_epochs > 1 and n_choices < min(_FEW_CHOICES, n_pruned):
        times = "once" if n_choices == 1 else f"{n_choices} times"
        rank_zero_warn(
            f"{name} will choose {times} in {n_epochs} epochs, as every_n_epochs="
            f"{policy.every_n_epochs}: what it drops stays dropped for long, which costs accuracy. Lower"
            " every_n_epochs, or train for more epochs."
        )


def _epochs_in_budget(policy: SelectionPolicy, total: float) -> tuple[int, int]:
    """Count the pruned epochs, and all epochs, if the budget is worth ``total`` epochs on the whole set.

    Each epoch is assumed to drop as much as it may, since how much it will drop is not known beforehand.
    """
    at_the_end = round(policy.anneal * total, 9)
    n_warmup = min(policy.warmup_epochs, math.ceil(total))
    left = max(total - at_the_end - n_warmup, 0)
    n_pruned = math.ceil(round(left / (1 - policy.largest_ratio), 9))
    return n_pruned, n_warmup + n_pruned + math.ceil(at_the_end)


def warn_if_longer_loaders(combination: Combination, policy: SelectionPolicy, n_batches: int) -> None:
    """Warn if epochs stay as long as another loader, however many of the chosen one's ``n_batches`` are dropped."""
    if policy.chooses_epochs and combination.is_shorter_than_others(n_batches):
        again = ", repeating the samples that are kept" if combination.repeats else ""
        rank_zero_warn(
            f"Dropping samples of loader={policy.loader!r} makes no epoch shorter: another train loader has as many"
            f" batches or more, and the epoch lasts until it ends{again}. CombinedLoader(..., mode='min_size') ends"
            " the epoch with the shortest loader."
        )


def warn_of_other_loaders(loaders: Sequence[object], batches_done: int) -> None:
    """Warn if a fit is resumed within an epoch, which loaders other than the chosen one start from the beginning."""
    if any(not hasattr(loader, "state_dict") for loader in loaders):
        rank_zero_warn(
            f"The fit goes on after batch {batches_done - 1} of an epoch, but the other train loaders start from their"
            " beginning, as they do without a selector: only loaders that save their position continue. Use"
            " torchdata's StatefulDataLoader for them, or resume from the end of an epoch."
        )


def warn_of_ended_loader(batches_done: int) -> None:
    """Warn if a fit is resumed within an epoch in which one of several loaders had already ended."""
    rank_zero_warn(
        f"The fit goes on after batch {batches_done - 1} of an epoch in which one of its train loaders had already"
        " ended (mode='max_size'). That loader starts again, as it does without a selector, unless its data set itself"
        " saves that it was at its end, so its batches may come twice in this epoch. Resume from the end of an epoch if"
        " that matters."
    )


def warn_of_batch_size(state: FitState, now: int) -> None:
    """Warn if an epoch is resumed with batches of ``now`` samples, not as many as before: Lightning counts batches."""
    before = state.batch_size
    if now != before and before:
        rank_zero_warn(
            f"The checkpoint was written after {state.batches_done} batches of epoch {state.plan.epoch}, of"
            f" {before} samples on all ranks, and now a batch has {now}: Lightning goes on with batch"
            f" {state.batches_done}, so that some samples of this epoch are trained on"
            f" {'not at all' if now > before else 'twice'}. Later epochs are not affected. Resume with the batch"
            " size of the checkpoint, or from the end of an epoch, if that matters."
        )


def warn_of_manual_schedules(method: str) -> None:
    """Warn if a budget ends a fit whose module steps its own schedulers, in epochs of unknown length."""
    rank_zero_warn(
        f"{method} ends the fit with its budget, but under manual optimization learning-rate schedules can be kept in"
        " step only if the length of an epoch is known: here they will not reach their end. Give the Trainer"
        " limit_train_batches as a number of batches, or the data set a __len__."
    )


def warn_of_resumed_stream(batches_done: int) -> None:
    """Warn if a fit is resumed within an epoch of a stream whose loader starts from its beginning."""
    rank_zero_warn(
        f"The fit goes on after batch {batches_done - 1} of an epoch, but the train loader does not save its"
        " position in the stream, which starts from its beginning. Use torchdata's StatefulDataLoader or"
        " litdata's StreamingDataLoader, or resume from the end of an epoch."
    )


def warn_of_other_ranks(batches_done: int, before: int, now: int) -> None:
    """Warn if a fit resumed within an epoch of a stream has another number of ranks than the one that saved it."""
    if before != now:
        rank_zero_warn(
            f"The fit goes on after batch {batches_done - 1} of an epoch that {before} rank{'s' * (before > 1)} began,"
            f" with {now} rank{'s' * (now > 1)}: the loaders of all of them start where that of the first one was, so"
            f" that other samples are read than are left of the epoch. Resume with {before}, or from the end of an"
            " epoch."
        )


def warn_of_empty_epoch(epoch: int, ends: str | None) -> None:
    """Warn where a stream has yielded nothing in a whole epoch.

    Args:
        epoch: 0-based.
        ends: Before what the fit ends for that reason; None where it goes on.
    """
    rank_zero_warn(
        f"The stream has yielded no batch in epoch {epoch}{f', so the fit ends {ends}' if ends else ''}. A generator,"
        " which can be read only once, cannot serve several epochs: give a loader that can be iterated again."
    )


def warn_of_losses(run: RunState, method: str) -> bool:
    """Warn of samples whose losses were not finite; return whether there were any. All ranks must call it together."""
    bad = run.bad_losses.count(run.world_size)
    if bad:
        rank_zero_warn(
            f"The losses of {bad} samples of epoch {run.fit.plan.epoch} were NaN or infinite, or training_step returned"
            f" None for them. Training goes on as it would without {method}; such samples count as never measured and"
            " are kept."
        )
    return bad > 0
