"""The epochs of a fit on a stream, which is read as the user's loader yields it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_dataselect.data.chosen_loader import BatchPart, choose_loader
from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.data.passed_on import has_state, pass_first_through
from lightning_dataselect.data.read_ahead import ReadAhead
from lightning_dataselect.data.stream import StreamSource
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.empty_epochs import EmptyEpochs
from lightning_dataselect.fit.misread import forget_misread
from lightning_dataselect.fit.notices import (
    warn_of_losses,
    warn_of_other_loaders,
    warn_of_other_ranks,
    warn_of_resumed_stream,
)
from lightning_dataselect.fit.start import start_stream_from_file
from lightning_dataselect.fit.stream_budget import StreamBudget
from lightning_dataselect.fit.stream_passes import StreamPasses
from lightning_dataselect.fit.stream_refusals import check_stream, refuse_reading_ahead
from lightning_dataselect.fit.stream_schedules import StreamSchedules, stream_length
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.state.stream_store import BatchStore, KeyedStore
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.trainer import (
    EpochEnd,
    begin_ended_epoch,
    combination_mode,
    epochs_processed,
    planned_epochs,
    reads_ahead,
    resumes_after_last_batch,
    resumes_within_epoch,
    show_apart,
)
from lightning_dataselect.utils.errors import UnsupportedLoaderError


class StreamedEpochs:
    """Follow a fit from epoch to epoch, where `Epochs` would decide what each of them reads.

    Args:
        trainer: The Trainer of the fit.
        policy: Decides; is told the number of epochs, ``max_epochs``.
        run: The columns and the position of the fit, which outlive it.
        reader: Reads the losses of the samples.
        budget: Ends the fit; None if only the Trainer does.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        policy: SelectionPolicy,
        run: RunState,
        reader: StepReader,
        budget: FitBudget | None = None,
    ) -> None:
        self._trainer = trainer
        self._policy = policy
        self._run = run
        self._reader = reader
        self._budget = None if budget is None else StreamBudget(trainer, policy, run, budget.limits)
        self._passes = StreamPasses(trainer, policy, run) if policy.chooses_epochs else None
        self._ahead: list[ReadAhead] = []  # of loaders whose batches wait for the training, passes having their own
        self._source: StreamSource | None = None
        self._part: BatchPart | None = None  # of the batches of several loaders
        self._others: list[Any] = []  # the loaders but the chosen one
        self._arrived: dict[int, Tensor] = {}  # slots of batches that were looked at ahead of the training
        self._has_state = self._warned_of_losses = False
        self._empty = EmptyEpochs(trainer)
        self._schedules = StreamSchedules(trainer, policy, run, self._budget)
        self._end = EpochEnd(trainer) if self._passes is not None or self._budget is not None else None

    @property
    def loader(self) -> SelectedLoader:
        """Nothing: no loader is under a plan.

        Raises:
            UnsupportedLoaderError: Always.
        """
        raise UnsupportedLoaderError(
            f"{type(self._policy).__name__} asks for the samples of a stream by index, which they do not have."
        )

    @property
    def first_batch(self) -> int:
        """The Trainer's index of the batch that the loader yields first: after a resume within an epoch it is not 0."""
        return self._run.fit.batches_done

    @property
    def batch_size(self) -> int | None:
        """Samples of a whole batch on this rank, if that is known."""
        return None if self._source is None else self._source.batch_size

    @property
    def n_batches(self) -> int | None:
        """Batches of an epoch, if the stream has a length."""
        return stream_length(self._trainer)

    # ---- the fit begins ------------------------------------------------------------------------------------------

    def prepare_loader(self, given: object) -> object:
        """Take the loader that the Trainer would train on; return it, or what the method makes of it.

        Raises:
            UnsupportedLoaderError: If the method must choose samples before they are read, or reads ahead of other
                loaders, or if a reloaded loader is no longer a stream.
            InvalidArgumentError: If state is to lie on the disk.
        """
        policy, run, trainer = self._policy, self._run, self._trainer
        chosen = choose_loader(given, policy.loader, type(policy).__name__)
        loader = chosen.loader
        check_stream(loader, policy)
        policy.max_epochs = planned_epochs(trainer) if self._budget is None else self._budget.max_epochs
        begins = run.open_stream(policy, trainer.world_size, trainer.current_epoch)
        if begins and policy.start_from is not None:
            start_stream_from_file(run, policy)
        assert isinstance(run.store, BatchStore | KeyedStore)
        self._source = StreamSource(loader, run.store, policy.sample_id, is_cut=policy.chooses_within_batches)
        self._part = self._reader.batches.part = chosen.part
        self._others = chosen.others()
        self._arrived.clear()
        looped = policy.wrap_dataloader(loader)
        if self._passes is not None:
            looped = self._passes.wrap_loader(looped)
        if looped is not loader and chosen.part is not None:
            raise refuse_reading_ahead(policy)
        self._has_state = has_state(looped)
        self._ahead = []
        members = chosen.replaced(looped)
        if self._passes is None and (looped is not loader or reads_ahead(trainer, members)):
            members = tree_map(self._followed, members)
        if looped is loader and not self._ahead:
            return given
        return members if chosen.part is None else show_apart(trainer, members, members, combination_mode(given))

    def _followed(self, loader: Any) -> Any:
        if not has_state(loader):
            return loader
        ahead = ReadAhead(lambda: self._run.fit.batches_done)
        self._ahead.append(ahead)
        followed = pass_first_through(loader, ahead.read)
        ahead.follow(followed)
        return followed

    def start(self) -> None:
        """Determine the current epoch, and take over schedules that would not be in time otherwise."""
        run, budget, n_batches = self._run, self._budget, self.n_batches
        run.to(self._trainer.lightning_module.device)
        if run.fit.history or run.fit.batches_done:
            self._reader.capture.resume()
        if resumes_within_epoch(self._trainer):
            warn_of_other_loaders(self._others, run.fit.batches_done)
            if not self._has_state:
                warn_of_resumed_stream(run.fit.batches_done)
            elif run.saved_by is not None:
                warn_of_other_ranks(run.fit.batches_done, run.saved_by, run.world_size)
        begin_ended_epoch(self._trainer)
        epoch = epochs_processed(self._trainer)
        if budget is not None:
            budget.learn_length(n_batches)
        if self._end is not None and run.fit.batches_done > 0 and resumes_after_last_batch(self._trainer):
            self._end.end_with_batch(run.fit.batches_done)  # Lightning knew only from us that it was the last
        if run.fit.batches_done > 0 and run.fit.plan.epoch == epoch - 1:
            # saved after an epoch's last batch: Lightning takes it for done, and will not announce its end again
            self._close(has_ended=True)
            if self._passes is not None:
                assert self._end is not None
                self._passes.choose(epoch)
                self._end.read_anew()
        self._turn_to(epoch)
        for ahead in self._ahead:
            ahead.count_anew()
        if budget is not None:
            budget.settle_end(epoch)
        self._schedules.start()

    def start_epoch(self) -> None:
        """Probe compiled steps again."""
        self._reader.capture.start_epoch()
        if self._end is not None:
            self._end.let_go()
        self._turn_to(self._trainer.current_epoch)

    def _turn_to(self, epoch: int) -> None:
        if self._run.fit.plan.epoch != epoch:
            self._run.fit.begin(EpochPlan(epoch, torch.empty(0, dtype=torch.int64)))

    # ---- a batch -------------------------------------------------------------------------------------------------

    def arrive(self, batch_idx: int, batch: Any) -> int:
        """Look at a batch ahead of its training; return how many samples it holds."""
        assert self._source is not None
        self._arrived[batch_idx] = slots = self._source.slots_of(batch)
        return slots.numel()

    def begin_batch(self, batch_idx: int, batch: Any, device: torch.device) -> BatchSamples | None:
        """Begin a batch; return its samples, on ``device``; None where only other loaders have some left."""
        assert self._source is not None
        # if Lightning restarts an epoch, so does the state
        self._run.fit.batches_done = batch_idx
        for ahead in self._ahead:
            ahead.forget(before=batch_idx)
        is_last = self._passes is not None and self._passes.begin_batch(batch_idx)
        is_shorter = is_last and self._passes is not None and self._passes.n_left_out > 0
        is_last |= self._budget is not None and self._budget.begin_batch(batch_idx)
        if is_shorter or (is_last and not self._trainer.is_last_batch):
            assert self._end is not None
            self._end.end_with_batch(batch_idx + 1)
        self._schedules.begin_batch(batch_idx)
        if self._part is not None:
            batch = self._part.of(batch)
        if batch is None:
            return None
        arrived = self._arrived.pop(batch_idx, None)
        slots = self._source.slots_of(batch) if arrived is None else arrived
        self._reader.batches.doubt = self._source.doubt
        return BatchSamples(slots.to(device, non_blocking=True))

    def end_batch(self, batch_idx: int) -> None:
        """Count a batch as done, and keep schedules in time."""
        state, budget = self._run.fit, self._budget
        state.batches_done = batch_idx + 1
        if budget is not None and self._ends_by_itself() and not state.stream_batches:
            budget.learn_length(state.batches_done)
            self._schedules.learn_length(state.stream_batches)
        self._schedules.end_batch(batch_idx)

    def _ends_by_itself(self) -> bool:
        """Return whether the current batch is the stream's last one."""
        return self._trainer.is_last_batch and (self._budget is None or not self._budget.is_over)

    # ---- from epoch to epoch -------------------------------------------------------------------------------------

    def end_epoch(self, seconds: float) -> None:
        """Close the epoch, and choose what the next pass leaves out, if it leaves anything out.

        Args:
            seconds: For how long it has trained.
        """
        following = self._run.fit.plan.epoch + 1
        self._run.fit.seconds += seconds
        if self._budget is None and self._run.fit.batches_done == 0:
            self._empty.follow(following)
        self._close(has_ended=self._ends_by_itself())
        self._turn_to(following)
        for ahead in self._ahead:
            ahead.forget()
        if self._budget is not None:
            self._budget.settle_end(following)
        if self._passes is not None and not (self._budget is not None and self._budget.is_over):
            self._passes.choose(following)

    def _close(self, *, has_ended: bool) -> None:
        run = self._run
        store, state = run.store, run.fit
        forget_misread(run, self._reader, ends_epoch=True)
        store.end_epoch(state.plan.indices)
        state.sum_over_ranks(run.world_size, store.device)
        if self._budget is not None:
            self._budget.close_epoch()
        if not self._warned_of_losses and not self._reader.blind:
            self._warned_of_losses = warn_of_losses(run, type(self._policy).__name__)
        store.forget_infinite()
        offered = state.n_trained + state.n_left_out
        length, passed_over = self.n_batches or state.stream_batches, 0
        done = min(state.batches_done / length, 1.0) if length else 1.0
        if self._passes is not None and self._passes.n_left_out:
            passed_over, done = self._passes.extent(offered, has_ended=has_ended)
        state.close(offered + passed_over, n_full=offered + passed_over, done=done, n_selected=offered)

    def give_back(self) -> None:
        """Let the Trainer step its schedulers itself, and validate as before."""
        if self._end is not None:
            self._end.let_go()
        self._schedules.give_back()
        self._empty.give_back()

    def score_samples(
        self, indices: Tensor, store: ScoreStore, loader: SelectedLoader | None = None
    ) -> Iterator[Observation]:
        """Refuse: samples of a stream cannot be read again."""
        raise UnsupportedLoaderError(
            f"{type(self._policy).__name__} measures samples between two epochs, and those of a stream cannot be read"
            " again at will. Use a map-style data set."
        )
