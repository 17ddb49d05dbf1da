"""The epochs of a fit: the loader they read, what each one trains on, and what happens at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.awaited_metrics import AwaitedMetrics
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.closing import EpochClosing
from lightning_dataselect.fit.identity import meet_samples, open_samples
from lightning_dataselect.fit.lengths import FitLengths
from lightning_dataselect.fit.norms_pass import NormsPass
from lightning_dataselect.fit.notices import warn_if_idle, warn_if_longer_loaders, warn_of_other_loaders
from lightning_dataselect.fit.rescoring import measure_stale, score_samples
from lightning_dataselect.fit.schedules_in_time import SchedulesInTime
from lightning_dataselect.fit.scratch import check_scratch
from lightning_dataselect.fit.train_loader import combine, select_loader, take_over_batch_size
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.planning import plan_epoch
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.trainer import (
    begin_ended_epoch,
    epochs_processed,
    go_on_within_epoch,
    resumes_after_last_batch,
    resumes_within_epoch,
    steps_reached,
    stops_early,
    training_epochs,
)


class Epochs:
    """Drive a fit from epoch to epoch; made for its train loader and dropped with it.

    Args:
        trainer: The Trainer of the fit.
        policy: Makes the decisions; is told the number of epochs, ``max_epochs``.
        run: The columns and the position of the fit, which outlive it.
        step: The module's own ``training_step``.
        reader: Reads the losses in it.
        budget: Ends the fit; None if only the Trainer does.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        policy: SelectionPolicy,
        run: RunState,
        step: Callable[..., Any],
        reader: StepReader,
        budget: FitBudget | None = None,
    ) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._step = step
        self._reader = reader
        self._budget = budget
        self._loader: SelectedLoader | None = None
        self._lengths = FitLengths(trainer, budget)
        self._schedules = SchedulesInTime(trainer, policy, budget)
        self._metrics = AwaitedMetrics(trainer, type(policy).__name__)
        self._closing = EpochClosing(trainer, policy, run, reader, budget, self._lengths)
        self._others: list[Any] = []  # loaders that the selected one is combined with
        self._norms = NormsPass(trainer, run, self._lengths)
        self._trained_before = False  # whether an earlier fit, without the selector, has trained the current epoch

    @property
    def n_batches(self) -> int:
        """Batches of the current epoch."""
        return self._lengths.n_batches

    @property
    def loader(self) -> SelectedLoader:
        """The train loader under a plan, once the Trainer has asked for one."""
        assert self._loader is not None, "the Trainer has not asked for a train loader yet"
        return self._loader

    @property
    def batch_size(self) -> int | None:
        """Samples of a full batch on this rank; None if the user's own batch sampler makes the batches."""
        return self.loader.batches.batch_size

    @property
    def first_batch(self) -> int:
        """The first batch of the epoch that the loader yields; above 0 if the epoch is resumed."""
        return self.loader.batches.start_batch

    # ---- the fit begins ------------------------------------------------------------------------------------------

    def prepare_loader(self, given: object) -> object:
        """Take the loader that the Trainer would train on; return the one that it is to use instead."""
        policy, run, trainer = self._policy, self._run, self._trainer
        chosen, selected = select_loader(trainer, policy, given, self._reader.batches)
        first, self._loader = self._loader is None, selected
        run.training_set.refer_to(selected.loader.dataset)
        selected.batches.fills_up, selected.batches.always_fills_up = policy.whole_batches, self._budget is not None
        self._others = chosen.others()
        combined, self._lengths.combination = combine(trainer, policy, given, chosen, selected)
        if self._budget is None:
            policy.max_epochs, run.compute = training_epochs(trainer), None
        else:
            policy.max_epochs = self._budget.max_epochs
            self._lengths.open_budget(selected)
        dataset = selected.loader.dataset
        if open_samples(trainer, run, policy, dataset):
            run.fit.plan = self._plan(run.fit.plan.epoch)
        if first:
            warn_if_idle(policy)
        selected.apply_plan(run.fit.plan, run.fit.batches_done)
        selected.batches.on_drawn = self._take_drawn
        # configure_optimizers may ask for the loader to build schedules from: they count full epochs
        selected.sampler.announce_full = first
        if not first:
            self._lengths.hold_interval(selected)
        return combined

    def start(self) -> None:
        """Determine the current epoch and its length, and take over schedules."""
        trainer, run = self._trainer, self._run
        check_scratch(self._policy, trainer.lightning_module.device)
        run.to(trainer.lightning_module.device)
        if run.fit.history or run.fit.batches_done:
            self._reader.capture.resume()
        if run.fit.is_cut:
            self._take_up_cut_epoch()
        if (combination := self._lengths.combination) is not None:  # by now its loaders are sharded over the ranks
            warn_if_longer_loaders(combination, self._policy, self.loader.batches.n_of_plan)
        if self._others and resumes_within_epoch(trainer):
            warn_of_other_loaders(self._others, run.fit.batches_done)
        begin_ended_epoch(trainer)
        self._metrics.start()
        epoch, ended, batches_done = epochs_processed(trainer), run.fit.plan.epoch, run.fit.batches_done
        begins = not run.fit.history and batches_done == 0
        self._trained_before = begins and resumes_after_last_batch(trainer)
        if begins and (self._trained_before or ended != epoch):
            self._join(epoch)
        self._lengths.measure(self.loader, trained_before=self._trained_before)
        take_over_batch_size(run.fit, self.loader, goes_on=batches_done > 0 and ended == epoch)
        if self._trained_before:
            run.fit.batches_done = self.n_batches
        self._schedules.start(run.fit, self._lengths.full(self.loader), self.n_batches)
        resumed_after_last_batch = ended == epoch - 1 and batches_done > 0
        if resumed_after_last_batch:
            # Lightning considers that epoch done and will not announce its end again
            self._closing.close(self.loader)
        replans = ended != epoch and not self._ends_before(epoch) and not self._trained_before
        if replans:
            self._measure_stale(epoch)
            self._begin(epoch)
        if self._budget is not None:
            self._budget.settle_end(epoch)
        measures_norms = self._ends_before(epoch) and self._norms.begin(epoch, self.loader)
        self._lengths.start(replanned=replans or measures_norms or self._trained_before)
        if resumed_after_last_batch:
            # the loop's counters are still those of the ended epoch
            self._lengths.finish_counting(batches_done)

    def start_epoch(self) -> None:
        """Probe compiled steps again, and release what was held while Lightning took a loader."""
        self._reader.capture.start_epoch()
        self._lengths.start_epoch()

    # ---- a batch -------------------------------------------------------------------------------------------------

    def arrive(self, batch_idx: int, batch: Any) -> int:
        """Return how many samples a batch holds that is read ahead of its training."""
        return self.loader.batches.size_of(batch_idx)

    def begin_batch(self, batch_idx: int, batch: Any, device: torch.device) -> BatchSamples | None:
        """Begin a batch; return its samples, on ``device``, or None if none are left to train on in this loader."""
        lengths, run = self._lengths, self._run
        if lengths.is_due:
            lengths.begin_batch()
        if self._norms.has_begun:
            return None
        self._schedules.begin_batch(lengths.n_batches)
        taken = self.loader.batches.take(batch_idx)
        if taken is None:
            return None
        plan, slots, weights = run.fit.plan, taken.slots(run.store.n), None
        if plan.weights is not None:
            weights = plan.weights_of(taken.indices).to(device, non_blocking=True)
        if slots.device != device:  # checked inline: a short step would notice a call
            slots = slots.to(device, non_blocking=True)
        return BatchSamples(slots, weights)

    def end_batch(self, batch_idx: int) -> None:
        """Count a batch as done, and keep schedules in step."""
        if self._norms.has_begun:
            return
        state = self._run.fit
        state.batches_done = batch_idx + 1
        self._schedules.end_batch(state, self._lengths.n_batches)

    # ---- from epoch to epoch -------------------------------------------------------------------------------------

    def end_epoch(self, seconds: float) -> None:
        """Close the epoch and, if another one follows, choose its samples and set its length.

        Args:
            seconds: How long the epoch has trained.
        """
        begun = time.perf_counter()
        self._run.fit.seconds += seconds
        self._metrics.end_epoch(self.n_batches, self._lengths.full(self.loader))
        self._turn_to_next()
        if history := self._run.fit.history:
            history[-1]["select_seconds"] = time.perf_counter() - begun

    def give_back(self) -> None:
        """Let the Trainer step its schedulers and count its batches itself again."""
        self._lengths.give_back()
        self._schedules.give_back()
        self._metrics.give_back()

    def score_samples(
        self, indices: Tensor, store: ScoreStore, loader: SelectedLoader | None = None
    ) -> Iterator[Observation]:
        """Measure samples by a pass without gradients and side effects; see :func:`~.rescoring.score_samples`.

        Args:
            indices: int64 (m,), dataset indices, sorted.
            store: Knows the last loss of every sample.
            loader: Reads them; None for the train loader.
        """
        loader = self.loader if loader is None else loader
        epoch = self._run.fit.plan.epoch
        return score_samples(self._trainer, loader, indices, self._step, self._reader, store, epoch)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _turn_to_next(self) -> None:
        following = self._run.fit.plan.epoch + 1
        ends_now = steps_reached(self._trainer) or stops_early(self._trainer, following)
        if self._trained_before:
            self._trained_before = False
            self._join(following)
        elif ends_now and self._run.fit.batches_done < self.n_batches:
            self._closing.cut(self.loader)
            return
        else:
            self._closing.close(self.loader)
        if not ends_now and not self._ends_before(following):
            meet_samples(self._run, self._policy, self.loader.loader.dataset, following)
            self.loader.meet_samples()
            self._measure_stale(following)
            self._begin(following)
            self._lengths.set_next()
        if self._budget is not None:
            self._budget.settle_end(following)
        if not ends_now and self._ends_before(following) and self._norms.begin(following, self.loader):
            self._lengths.set_next()

    def _ends_before(self, epoch: int) -> bool:
        """Return whether ``epoch``, the next one, is beyond the end of the fit."""
        return epoch == self._policy.max_epochs if self._budget is None else self._budget.is_spent(epoch)

    def _join(self, epoch: int) -> None:
        """Make ``epoch`` the selector's first one."""
        everything = EpochPlan.everything(epoch, self.loader.n, self._run.store.memory)
        self.loader.apply_plan(everything)
        self._run.fit.begin(everything)

    def _plan(self, epoch: int, before: EpochPlan | None = None) -> EpochPlan:
        self._policy.batch_unit = self.loader.batches.unit
        return plan_epoch(self._policy, self._run, epoch, before)

    def _begin(self, epoch: int) -> None:
        run = self._run
        plan = self._plan(epoch, run.fit.plan)
        self.loader.apply_plan(plan)
        run.fit.begin(plan)
        self._lengths.measure(self.loader, trained_before=self._trained_before)

    def _take_drawn(self, plan: EpochPlan) -> None:
        """Adopt what the user's own sampler has drawn: until now, its number of batches was an estimate."""
        self._run.fit.plan = plan
        if self._lengths.has_started:
            self._lengths.measure(self.loader, trained_before=self._trained_before)
            self._lengths.set_next()

    def _take_up_cut_epoch(self) -> None:
        state = self._run.fit
        state.reopen()
        if state.batches_done > 0:
            go_on_within_epoch(self._trainer, state.plan.epoch)
        else:  # the same Trainer fits again, and Lightning begins with the next epoch
            self._closing.close(self.loader)

    def _measure_stale(self, epoch: int) -> None:
        measure_stale(self._policy, self._run, epoch, self.score_samples, self._budget)
