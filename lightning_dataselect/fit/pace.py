"""Take a fit from epoch to epoch: all train loaders that samples are selected from together, and the Trainer."""

from __future__ import annotations

import time

import lightning.pytorch as pl

from lightning_dataselect.fit.awaited_metrics import AwaitedMetrics
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.norms_pass import NormsPass
from lightning_dataselect.fit.planned_loader import PlannedLoader
from lightning_dataselect.fit.schedules_in_time import SchedulesInTime
from lightning_dataselect.fit.train_loader import combine
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.trainer import begin_ended_epoch, epochs_processed, steps_reached, stops_early


class Pace:
    """Decide for all selections of a fit when an epoch begins and ends, and tell the Trainer how long it is.

    The selections of an epoch are all closed before the first of the next one is made, since its length is that of all
    of them together. What concerns the Trainer is done once, when the first selector is asked for it, which is the last
    one that was set up.

    Args:
        trainer: The Trainer of the fit.
        budget: Ends the fit; None if only the Trainer does.
    """

    def __init__(self, trainer: pl.Trainer, budget: FitBudget | None = None) -> None:
        self._trainer = trainer
        self._budget = budget
        self._all: list[PlannedLoader] = []

    def add(self, planned: PlannedLoader) -> None:
        """Let another loader keep pace; the first one is the first that the Trainer's hooks reach."""
        if not self._all:
            self._lead, self._lengths = planned, planned.lengths
            self._schedules = SchedulesInTime(self._trainer, planned.policy, self._budget)
            self._metrics = AwaitedMetrics(self._trainer, type(planned.policy).__name__)
            self._norms = NormsPass(self._trainer, self._lengths)
        self._all.append(planned)

    @property
    def n_batches(self) -> int:
        """Batches of the current epoch."""
        return self._lengths.n_batches

    # ---- the fit begins ------------------------------------------------------------------------------------------

    def prepare_loader(self, given: object) -> object:
        """Take the loader, or loaders, that the Trainer would train on; return what it is to use instead."""
        first = not self._lead.has_loader
        picked = [planned.select_loader(given) for planned in self._all]
        combined, combinations = combine(self._trainer, given, picked)
        for planned, combination in zip(self._all, combinations, strict=True):
            planned.lengths.selected = [each.selected for each in picked]
            planned.lengths.combination = combination
        for planned, each in zip(self._all, picked, strict=True):
            planned.open(each.selected, is_first=first)
        if not first:
            self._lengths.hold_interval(self._lead.loader)
        return combined

    def start(self, planned: PlannedLoader) -> None:
        """Determine the current epoch and its length, and take over schedules."""
        if planned is not self._lead:
            return
        for each in self._all:
            each.settle()
        begin_ended_epoch(self._trainer)
        self._metrics.start()
        epoch = epochs_processed(self._trainer)
        for each in self._all:
            each.find_place(epoch)
        self.measure()
        for each in self._all:
            each.take_place(epoch, self.n_batches)
        state = self._lead.state
        self._schedules.start(state, self._lengths.full(self._lead.loader), self.n_batches)
        batches_done = state.batches_done
        resumed_after_last_batch = state.plan.epoch == epoch - 1 and batches_done > 0
        if resumed_after_last_batch:
            for each in self._all:  # Lightning considers that epoch done and will not announce its end again
                each.close()
        replanned = [] if self._ends_before(epoch) else [each for each in self._all if each.is_unplanned]
        for each in replanned:
            each.begin(epoch)
        if replanned:
            self.measure()
        if self._budget is not None:
            self._budget.settle_end(epoch)
        measures_norms = self._ends_before(epoch) and self._begin_norms(epoch)
        trained_before = any(each.was_trained_before for each in self._all)
        self._lengths.start(replanned=bool(replanned) or measures_norms or trained_before)
        if resumed_after_last_batch:
            # the loop's counters are still those of the ended epoch
            self._lengths.finish_counting(batches_done)

    # ---- an epoch ------------------------------------------------------------------------------------------------

    def start_epoch(self, planned: PlannedLoader) -> None:
        """Release what was held while Lightning took a loader."""
        if planned is self._lead:
            self._lengths.start_epoch()

    def begin_batch(self, planned: PlannedLoader) -> bool:
        """Begin a batch; return whether it is one that trains."""
        lengths = self._lengths
        if lengths.is_due:
            lengths.begin_batch()
        if self._norms.has_begun:
            return False
        if planned is self._lead:
            self._schedules.begin_batch(lengths.n_batches)
        return True

    def end_batch(self, planned: PlannedLoader, state: FitState, batch_idx: int) -> None:
        """Count a batch as done in the position of a loader's epochs, and keep schedules in step."""
        if self._norms.has_begun:
            return
        state.batches_done = batch_idx + 1
        if planned is self._lead:
            self._schedules.end_batch(state, self._lengths.n_batches)

    def end_epoch(self, planned: PlannedLoader, seconds: float) -> None:
        """Close the epoch and, if another one follows, choose its samples and set its length.

        Args:
            planned: The loader of the selector that says so.
            seconds: How long the epoch has trained.
        """
        if planned is not self._lead:
            return
        begun = time.perf_counter()
        for each in self._all:
            each.state.seconds += seconds
        self._metrics.end_epoch(self.n_batches, self._lengths.full(self._lead.loader))
        self._turn_to_next(self._lead.state.plan.epoch + 1)
        for each in self._all:
            if history := each.state.history:
                history[-1]["select_seconds"] = time.perf_counter() - begun

    def measure(self) -> None:
        """Count the batches of the current epoch."""
        self._lengths.measure(self._lead.loader, trained_before=self._lead.was_trained_before)

    def measure_drawn(self) -> None:
        """Count them again, now that the user's own sampler has drawn: until now, their number was an estimate."""
        if self._lengths.has_started:
            self.measure()
            self._lengths.set_next()

    def give_back(self, planned: PlannedLoader) -> None:
        """Let the Trainer step its schedulers and count its batches itself again."""
        if planned is self._lead:
            self._lengths.give_back()
            self._schedules.give_back()
            self._metrics.give_back()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _turn_to_next(self, following: int) -> None:
        ends_now = steps_reached(self._trainer) or stops_early(self._trainer, following)
        was_trained_before = self._lead.was_trained_before
        if ends_now and not was_trained_before and self._lead.state.batches_done < self.n_batches:
            for each in self._all:
                each.cut()
            return
        for each in self._all:
            each.end(following)
        if not ends_now and not self._ends_before(following):
            for each in self._all:
                each.begin(following, meets_samples=True)
            self.measure()
            self._lengths.set_next()
        if self._budget is not None:
            self._budget.settle_end(following)
        if not ends_now and self._ends_before(following) and self._begin_norms(following):
            self._lengths.set_next()

    def _ends_before(self, epoch: int) -> bool:
        """Return whether ``epoch``, the next one, is beyond the end of the fit."""
        return epoch == self._lead.policy.max_epochs if self._budget is None else self._budget.is_spent(epoch)

    def _begin_norms(self, epoch: int) -> bool:
        return self._norms.begin(epoch, [(each.loader, each.memory) for each in self._all])
