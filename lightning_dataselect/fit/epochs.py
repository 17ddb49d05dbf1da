"""The epochs of a fit under way: the loader they read, what each trains on, how long it is, in time with what."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.data.loader import SelectedLoader, prepare
from lightning_dataselect.fit.lr_schedulers import StretchedSchedulers
from lightning_dataselect.fit.rescoring import score_samples
from lightning_dataselect.fit.unpruned_fit import UnprunedFit
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.selection import Selection, check_selection, select_by_class
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.trainer import (
    EpochLengths,
    Restore,
    epoch_lengths,
    epochs_processed,
    limited_batches,
    optimizer_steps_now,
    planned_accumulation,
    planned_epochs,
    resumes_after_last_batch,
    sampler_ranks,
    set_counted_length,
    shorten_val_check_interval,
    stops_early,
)

if TYPE_CHECKING:
    from lightning_dataselect.callbacks.selector import DataSelector

_FEW_CHOICES = 4


class Epochs:
    """Leads a fit from epoch to epoch; made in ``setup`` and dropped with the fit.

    Args:
        trainer: the Trainer of the fit.
        selector: what decides; its store and its state are written here, and outlive the fit.
        step: the module's own ``training_step``.
        reader: reads what the samples lost in it.
    """

    def __init__(
        self, trainer: pl.Trainer, selector: DataSelector, step: Callable[..., Any], reader: StepReader
    ) -> None:
        self._trainer = trainer
        self._selector = selector
        self._step = step
        self._reader = reader
        self._schedulers: StretchedSchedulers | None = None  # None: schedules are left alone
        self._lengths: EpochLengths | None = None
        self._length_is_due = self._warned_of_losses = False
        self._trained_before = False  # whether the present epoch was trained by an earlier fit, without the selector
        self._restore_interval: Restore = _nothing
        self.loader: SelectedLoader | None = None
        """The train loader under a plan, None until the Trainer has asked for one."""
        self.n_batches = 0
        """Batches of the present epoch."""

    @property
    def _selected(self) -> SelectedLoader:
        assert self.loader is not None
        return self.loader

    def take(self, loader: object) -> object:
        """Take what the Trainer would train on; give back what it is to train on."""
        selector, trainer = self._selector, self._trainer
        world_size, rank = sampler_ranks(trainer)
        selected = prepare(
            loader, seed=selector.seed, world_size=world_size, rank=rank, needs_losses=selector.needs_losses
        )
        first, self.loader = self.loader is None, selected
        selector.remember(selected.loader.dataset)
        selector.max_epochs = planned_epochs(trainer)
        plan = functools.partial(next_plan, selector)
        state = selector.open_state(selected.n, trainer.world_size, trainer.current_epoch, plan)
        if first:
            self._warn_if_idle()
        state.plan = selected.follow(state.plan, state.batches_done)
        # configure_optimizers may ask for the loader to build schedules on: they count full epochs
        selected.sampler.announce_full = first
        if not first:
            self.start_epoch()
            n_batches = limited_batches(trainer, len(selected.batches))
            self._restore_interval = shorten_val_check_interval(trainer, n_batches)
        return selector.wrap_dataloader(selected.loader)

    def start(self) -> None:
        """Settle which epoch it is and how long, and take over schedules."""
        selector, trainer, state = self._selector, self._trainer, self._selector.state
        epoch, ended, batches_done = epochs_processed(trainer), state.plan.epoch, state.batches_done
        begins = not selector.history and batches_done == 0
        self._trained_before = begins and resumes_after_last_batch(trainer)
        if begins and (self._trained_before or ended != epoch):
            self._join(epoch)
        self._measure_length()
        self._note_batch_size(goes_on=batches_done > 0 and ended == epoch)
        if self._trained_before:
            state.batches_done = self.n_batches
        self._take_over_schedulers()
        resumed_after_last_batch = ended == epoch - 1 and batches_done > 0
        if resumed_after_last_batch:
            # Lightning takes that epoch for done and will not announce its end any more
            self._close()
        replans = ended != epoch and epoch != selector.max_epochs and not self._trained_before
        if replans:
            self._rescore(epoch)
            self._begin(epoch)
        self._lengths = epoch_lengths(trainer)
        self._lengths.begin(self.n_batches, replans or self._trained_before)
        self.start_epoch()
        if resumed_after_last_batch:
            # the loop's counters still are those of the ended epoch, and are reset by its length
            set_counted_length(trainer, batches_done)
            self._length_is_due = True

    def start_epoch(self) -> None:
        """Let go of what held while Lightning took a loader."""
        self._restore_interval()
        self._restore_interval = _nothing

    def take_batch(self, batch_idx: int) -> tuple[Tensor, Tensor | None]:
        """Begin a batch.

        Returns:
            Its dataset indices, int64 (B,), N for samples repeated to make ranks even; and the weight of each in the
            loss, float32 (B,), or None.
        """
        if self._length_is_due:  # it had to wait for the loop's counters
            set_counted_length(self._trainer, self.n_batches)
            self._length_is_due = False
        taken, plan = self._selected.batches.take(batch_idx), self._selector.state.plan
        indices = torch.frombuffer(array("q", taken.indices), dtype=torch.int64)
        weights = None if plan.weights is None else plan.weights[torch.searchsorted(plan.indices, indices)]
        if taken.n_unpadded < len(taken.indices):
            indices[taken.n_unpadded :] = self._selected.n
        return indices, weights

    def end_batch(self) -> None:
        """Keep schedules in time."""
        if self._schedulers is not None and optimizer_steps_now(self._trainer):
            self._schedulers.catch_up(self._trainer, self._selector.state, self.n_batches)

    def advance(self) -> None:
        """Close the epoch and, if another one follows, choose its samples and set its length."""
        selector, trainer = self._selector, self._trainer
        following = selector.state.plan.epoch + 1
        if self._trained_before:
            self._trained_before = False
            self._join(following)
        else:
            self._close()
        if not stops_early(trainer, following) and following != selector.max_epochs:
            self._rescore(following)
            self._begin(following)
            assert self._lengths is not None
            self._lengths.follow(self.n_batches)

    def give_back(self) -> None:
        """Let the Trainer step its schedulers itself, and count by itself."""
        self.start_epoch()
        if self._lengths is not None:
            self._lengths.give_back()
        if self._schedulers is not None:
            self._schedulers.give_back()

    def _join(self, epoch: int) -> None:
        """Let ``epoch`` be the first one of the selector."""
        everything = EpochPlan(epoch, torch.arange(self._selected.n))
        self._selector.state.begin(self._selected.follow(everything))

    def _begin(self, epoch: int) -> None:
        selector = self._selector
        plan = next_plan(selector, epoch, selector.state.plan)
        selector.state.begin(self._selected.follow(plan))
        self._measure_length()

    def _close(self) -> None:
        store, state = self._selector.store, self._selector.state
        store.end_epoch(state.plan.indices)
        state.sum_over_ranks(store)
        if not self._warned_of_losses and (bad := self._count_non_finite()):
            self._warned_of_losses = True
            rank_zero_warn(
                f"The losses of {bad} samples of epoch {state.plan.epoch} were NaN or infinite. Training goes on as it"
                f" would without {type(self._selector).__name__}; such samples count as never measured and are kept."
            )
        store["loss"].masked_fill_(store["loss"].isinf(), torch.nan)
        state.close(store.n)

    def _rescore(self, epoch: int) -> None:
        selector, store, state = self._selector, self._selector.store, self._selector.state
        due = bool(selector.history) and selector.rescores and selector.selects_anew(epoch)
        stale = selector.samples_to_rescore(epoch) if due else None
        if stale is None or stale.numel() == 0:
            return
        selector.rescoring = True
        passes = score_samples(self._trainer, self._selected, stale, self._step, self._reader, store["loss"])
        for indices, reading in passes:
            selector.count_samples(forward=indices.numel(), backward=0)
            selector.write(selector.observation(indices, reading))
        selector.rescoring = False
        store.merge()
        state.sum_over_ranks(store)
        selector.history[-1]["n_forward"] += state.n_forward
        state.n_forward = state.n_measured = 0

    def _measure_length(self) -> None:
        self._selected.sampler.announce_full = False
        self.n_batches = limited_batches(self._trainer, len(self._selected.batches))

    def _full_length(self) -> int:
        self._selected.sampler.announce_full = True
        n_batches = limited_batches(self._trainer, len(self._selected.batches))
        self._selected.sampler.announce_full = False
        return n_batches

    def _take_over_schedulers(self) -> None:
        """Keep step-wise schedules in time from here on; an endless fit has no end that they could reach."""
        selector, trainer = self._selector, self._trainer
        stretches = selector.lr_schedule == "stretch" and trainer.lightning_module.automatic_optimization
        if not stretches or selector.max_epochs is None or not trainer.lr_scheduler_configs:
            return
        accumulate = planned_accumulation(trainer)
        unpruned = UnprunedFit(self._full_length(), selector.max_epochs, accumulate, trainer.max_steps)
        self._schedulers = StretchedSchedulers(trainer, unpruned)
        self._schedulers.start(trainer, selector.state, self.n_batches)

    def _note_batch_size(self, *, goes_on: bool) -> None:
        """Say so where an epoch goes on in batches of another size: Lightning counts those that are done."""
        state, selected = self._selector.state, self._selected
        now, before = (selected.batches.batch_size or 0) * selected.sampler.num_replicas, state.batch_size
        if goes_on and now != before and before:
            rank_zero_warn(
                f"The checkpoint was written after {state.batches_done} batches of epoch {state.plan.epoch}, of"
                f" {before} samples on all ranks, and now a batch has {now}: Lightning goes on with batch"
                f" {state.batches_done}, so that some samples of this epoch are trained on"
                f" {'not at all' if now > before else 'twice'}. The epochs to come are whole. Resume with the batch"
                " size of the checkpoint, or from the end of an epoch, if that matters."
            )
        state.batch_size = now

    def _count_non_finite(self) -> int:
        """How many samples of the epoch were measured and have no finite loss; fewer, if it was cut short."""
        if self._reader.blind:
            return 0
        state = self._selector.state
        drawn = state.plan.indices if state.plan.order is None else state.plan.order.unique()
        left_out = max(drawn.numel() - state.n_measured, 0)
        return max(int((~self._selector.store.column("loss")[drawn].isfinite()).sum()) - left_out, 0)

    def _warn_if_idle(self) -> None:
        """Say so where the arguments leave a fit of this length nothing to prune, or hardly a choice."""
        selector, name, n_epochs = self._selector, type(self._selector).__name__, self._selector.max_epochs
        if selector.prune_ratio == 0 or not n_epochs:
            return
        pruned = [epoch for epoch in range(selector.first_epoch, n_epochs) if not selector.trains_on_everything(epoch)]
        n_choices = sum(map(selector.selects_anew, pruned))
        if not pruned:
            rank_zero_warn(
                f"{name} will drop nothing: warmup_epochs={selector.warmup_epochs} and anneal={selector.anneal} leave"
                f" none of the {n_epochs} epochs to prune. Lower them, or train for more epochs."
            )
        elif selector.every_n_epochs > 1 and n_choices < min(_FEW_CHOICES, len(pruned)):
            rank_zero_warn(
                f"{name} will choose {n_choices} times in {n_epochs} epochs, as every_n_epochs="
                f"{selector.every_n_epochs}: what it drops is dropped for long, which costs accuracy. Lower"
                " every_n_epochs, or train for more epochs."
            )


def _nothing() -> None:
    pass


def next_plan(selector: DataSelector, epoch: int, before: EpochPlan | None = None) -> EpochPlan:
    """What ``epoch`` trains on: everything, what the epoch before selected, or what the method selects anew."""
    n = selector.store.n
    if selector.trains_on_everything(epoch):
        return EpochPlan(epoch, torch.arange(n))
    if before is not None and not (selector.selects_anew(epoch) or selector.trains_on_everything(before.epoch)):
        return EpochPlan(epoch, before.indices, before.weights)
    generator = epoch_generator(selector.seed, epoch, "select")
    if selector.balance:
        among = functools.partial(_select_among, selector, epoch)
        chosen = select_by_class(among, selector.store.column("class"), generator)
    else:
        chosen = selector.select(epoch, selector.store.column("score"), generator)
    chosen = check_selection(chosen, n, type(selector).__name__)
    return EpochPlan(epoch, chosen.indices, chosen.weights)


def _select_among(selector: DataSelector, epoch: int, members: Tensor, generator: torch.Generator) -> Selection:
    with selector.among(members):
        return selector.select(epoch, selector.column("score"), generator)
