"""A train loader under a plan: the samples that each epoch of a fit takes from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.closing import EpochClosing
from lightning_dataselect.fit.identity import meet_samples, open_samples
from lightning_dataselect.fit.lengths import FitLengths
from lightning_dataselect.fit.notices import warn_if_idle, warn_if_longer_loaders, warn_of_other_loaders
from lightning_dataselect.fit.rescoring import measure_stale, score_samples
from lightning_dataselect.fit.scratch import check_scratch
from lightning_dataselect.fit.train_loader import PickedLoader, select_loader, take_over_batch_size
from lightning_dataselect.numerics.placement import InMemory
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.planning import plan_epoch
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.trainer import (
    changes_batches,
    go_on_within_epoch,
    resumes_after_last_batch,
    resumes_within_epoch,
    training_epochs,
)


class PlannedLoader:
    """Choose what each epoch of a fit takes from a train loader; made for the loader and dropped with it.

    `Pace` says when: it takes all train loaders that samples are selected from through the epochs together.

    Args:
        trainer: The Trainer of the fit.
        policy: Makes the decisions; is told the number of epochs, ``max_epochs``.
        run: The columns and the position of the fit, which outlive it.
        step: The module's own ``training_step``.
        reader: Reads the losses in it.
        budget: Ends the fit; None if only the Trainer does.
        on_drawn: Called when the user's own sampler has drawn an epoch, whose length was an estimate until then.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        policy: SelectionPolicy,
        run: RunState,
        step: Callable[..., Any],
        reader: StepReader,
        budget: FitBudget | None,
        on_drawn: Callable[[], None],
    ) -> None:
        self._trainer = trainer
        self.policy = policy
        self._run = run
        self._step = step
        self._reader = reader
        self._budget = budget
        self._on_drawn = on_drawn
        self._loader: SelectedLoader | None = None
        self.lengths = FitLengths(trainer, budget)
        self._closing = EpochClosing(trainer, policy, run, reader, budget, self.lengths)
        self._others: list[Any] = []  # loaders that the selected one is combined with
        self.was_trained_before = False
        """True while the current epoch is one that an earlier fit, without the selector, has trained."""
        self.is_unplanned = False
        """True if the fit begins with an epoch whose samples are not chosen yet."""

    @property
    def has_loader(self) -> bool:
        """True once the Trainer has asked for its train loader."""
        return self._loader is not None

    @property
    def loader(self) -> SelectedLoader:
        """The train loader under a plan, once the Trainer has asked for one."""
        assert self._loader is not None, "the Trainer has not asked for a train loader yet"
        return self._loader

    @property
    def state(self) -> FitState:
        """The position of the fit."""
        return self._run.fit

    @property
    def memory(self) -> InMemory:
        """The memory in which tensors with one number per sample are allocated."""
        return self._run.store.memory

    # ---- the fit begins ------------------------------------------------------------------------------------------

    def select_loader(self, given: object) -> PickedLoader:
        """Find the loader among those that the Trainer would train on, and copy it."""
        picked = select_loader(self._trainer, self.policy, given, self._reader.batches)
        batches = picked.selected.batches
        batches.fills_up, batches.always_fills_up = self.policy.whole_batches, self._budget is not None
        limit = self._trainer.limit_train_batches
        batches.most = limit if isinstance(limit, int) and limit > 0 else None
        if self.policy.needs_losses and picked.chosen.part is None:
            batches.watches_order = batches.is_delivered or changes_batches(self._trainer)
        self._others = picked.chosen.others()
        return picked

    def open(self, selected: SelectedLoader, *, is_first: bool) -> None:
        """Follow a plan from here on.

        Args:
            selected: The loader, in its place among the others.
            is_first: True if the Trainer asks for it for the first time.
        """
        policy, run, trainer = self.policy, self._run, self._trainer
        self._loader = selected
        dataset = selected.loader.dataset
        run.training_set.refer_to(dataset)
        if self._budget is None:
            policy.max_epochs, run.compute = training_epochs(trainer), None
        else:
            policy.max_epochs = self._budget.max_epochs
            self.lengths.open_budget(selected)
        if open_samples(trainer, run, policy, dataset):
            run.fit.plan = self._plan(run.fit.plan.epoch)
        if is_first:
            warn_if_idle(policy)
        selected.apply_plan(run.fit.plan, run.fit.batches_done)
        selected.batches.on_drawn = self._take_drawn
        # configure_optimizers may ask for the loader to build schedules from: they count full epochs
        selected.sampler.announce_full = is_first

    def settle(self) -> None:
        """Check what is known only now, and take up an epoch that the end of an earlier fit has cut short."""
        trainer, run = self._trainer, self._run
        check_scratch(self.policy, trainer.lightning_module.device)
        run.to(trainer.lightning_module.device)
        if run.fit.history or run.fit.batches_done:
            self._reader.capture.resume()
        if run.fit.is_cut:
            self._take_up_cut_epoch()
        if (combination := self.lengths.combination) is not None:  # by now its loaders are sharded over the ranks
            warn_if_longer_loaders(combination, self.policy, self.loader.batches.n_of_plan)
        if self._others and resumes_within_epoch(trainer):
            warn_of_other_loaders(self._others, run.fit.batches_done)

    def find_place(self, epoch: int) -> None:
        """Begin with ``epoch``, the current one, if the selector has done none before.

        Args:
            epoch: 0-based.
        """
        state = self._run.fit
        begins = not state.history and state.batches_done == 0
        self.was_trained_before = begins and resumes_after_last_batch(self._trainer)
        self.is_unplanned = state.plan.epoch != epoch and not self.was_trained_before
        if begins and (self.was_trained_before or state.plan.epoch != epoch):
            self._join(epoch)

    def take_place(self, epoch: int, n_batches: int) -> None:
        """Note the size of the batches, and how many of the epoch's are done if another fit has trained it.

        Args:
            epoch: 0-based, the current one.
            n_batches: Its length.
        """
        state = self._run.fit
        take_over_batch_size(state, self.loader, goes_on=state.batches_done > 0 and state.plan.epoch == epoch)
        if self.was_trained_before:
            state.batches_done = n_batches

    # ---- from epoch to epoch -------------------------------------------------------------------------------------

    def begin(self, epoch: int, *, meets_samples: bool = False) -> None:
        """Choose the samples of an epoch.

        Args:
            epoch: 0-based.
            meets_samples: True if the data set may have changed.
        """
        run = self._run
        if meets_samples:
            meet_samples(run, self.policy, self.loader.loader.dataset, epoch)
            self.loader.meet_samples()
        measure_stale(self.policy, run, epoch, self.score_samples, self._budget)
        plan = self._plan(epoch, run.fit.plan)
        self.loader.apply_plan(plan)
        run.fit.begin(plan)

    def close(self) -> None:
        """Record the epoch, which is complete."""
        self._closing.close(self.loader)

    def cut(self) -> None:
        """Record the epoch, which the end of the fit cuts short."""
        self._closing.cut(self.loader)

    def end(self, following: int) -> None:
        """Record the epoch, unless an earlier fit has trained it: then begin with the next one.

        Args:
            following: 0-based epoch.
        """
        if self.was_trained_before:
            self.was_trained_before = False
            self._join(following)
        else:
            self.close()

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

    def _join(self, epoch: int) -> None:
        """Make ``epoch`` the selector's first one."""
        everything = EpochPlan.everything(epoch, self.loader.n, self._run.store.memory)
        self.loader.apply_plan(everything)
        self._run.fit.begin(everything)

    def _plan(self, epoch: int, before: EpochPlan | None = None) -> EpochPlan:
        self.policy.batch_unit = self.loader.batches.unit
        return plan_epoch(self.policy, self._run, epoch, before)

    def _take_drawn(self, plan: EpochPlan) -> None:
        """Adopt what the user's own sampler has drawn."""
        self._run.fit.plan = plan
        self._on_drawn()

    def _take_up_cut_epoch(self) -> None:
        state = self._run.fit
        state.reopen()
        if state.batches_done > 0:
            go_on_within_epoch(self._trainer, state.plan.epoch)
        else:  # the same Trainer fits again, and Lightning begins with the next epoch
            self.close()
