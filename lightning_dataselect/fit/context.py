"""The protected API of the current fit, which `on_fit_setup` receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.epochs import Epochs
from lightning_dataselect.fit.misread import forget_misread
from lightning_dataselect.fit.pace import Pace
from lightning_dataselect.fit.streamed_epochs import StreamedEpochs
from lightning_dataselect.state.recording import count_step
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.reader import StepReader, Summarize
from lightning_dataselect.step.shared_reading import SharedReading
from lightning_dataselect.step.submodule_outputs import SubmoduleOutputs
from lightning_dataselect.trainer import Restore


@dataclass(eq=False)
class FitContext:
    """The parts of a fit that a method may use, from its setup to its end.

    Attributes:
        module: The LightningModule.
        training_step: The module's own ``training_step``, which captures nothing.
        rank: Of this process, 0-based.
        world_size: Number of processes.
        reader: Runs training steps and reads the losses of their samples.
        run: The state that outlives the fit.
        pace: Takes it from epoch to epoch.
        epochs_of: Given a train loader, returns what drives the fit, or follows it, from epoch to epoch.
        budget: Ends the fit when a share of its compute is spent; None if nothing does.
        shared: Prepares the steps, if there are selectors for other train loaders as well; None if there are not.
        team: The contexts of all selectors of the fit, in the order of their setup.
    """

    module: pl.LightningModule
    training_step: Callable[..., Any]
    rank: int
    world_size: int
    reader: StepReader
    run: RunState
    pace: Pace = field(repr=False)
    epochs_of: Callable[[object], Epochs | StreamedEpochs] = field(repr=False)
    budget: FitBudget | None = field(default=None, repr=False)
    shared: SharedReading | None = field(default=None, repr=False)
    team: list[FitContext] = field(default_factory=list, repr=False)
    _epochs: Epochs | StreamedEpochs | None = field(default=None, repr=False)
    _cleanups: list[Restore] = field(default_factory=list, repr=False)
    _counted: tuple[int, int] | None = field(default=None, repr=False)  # the batch whose samples were counted last

    @property
    def epochs(self) -> Epochs | StreamedEpochs:
        """The driver of the fit, epoch by epoch; available once the Trainer has asked for its train loader."""
        assert self._epochs is not None, "the Trainer has not asked for a train loader yet"
        return self._epochs

    def prepare_loader(self, given: object) -> object:
        """Take the loader that the Trainer would train on; return the one that it is to use instead."""
        for each in reversed(self.team):  # the last one that was set up is the first that the hooks reach
            each.follow(given)
        return self.epochs.prepare_loader(given)

    def follow(self, given: object) -> None:
        """Make what drives the fit from epoch to epoch, unless that is done.

        Args:
            given: The loader, or loaders, that the Trainer would train on.
        """
        if self._epochs is None:
            self._epochs = self.epochs_of(given)
            self.add_cleanup(self._epochs.give_back)

    def announce_end(self) -> None:
        """Announce the end that a budget gives the fit, before its first epoch is known, to those who plan by it."""
        if self.budget is not None:
            self.budget.announce()

    @property
    def store(self) -> SampleHistoryStore:
        """The per-sample columns; available once the Trainer has its train loader."""
        return self.run.store

    @property
    def loader(self) -> SelectedLoader:
        """The train loader under a plan; available once the Trainer has it."""
        return self.epochs.loader

    @property
    def n_batches(self) -> int | None:
        """Batches of the current epoch; None for a stream of unknown length."""
        return self.epochs.n_batches

    @property
    def epoch(self) -> int:
        """The 0-based epoch of the current plan."""
        return self.run.fit.plan.epoch

    def add_cleanup(self, restore: Restore) -> None:
        """Call ``restore`` once the fit ends, however it ends; the last one added is called first."""
        self._cleanups.append(restore)

    def watch_outputs(self, summarize: Summarize, wanted: Callable[[int, bool], bool]) -> None:
        """Fill ``Observation.outputs`` from the outputs that are passed to loss functions.

        Args:
            summarize: Given a batch's outputs, returns what to keep of them, float32 (B, D), or None.
            wanted: Called with the epoch and whether a pass rescores; says whether outputs are kept.
        """
        self.reader.watch_outputs(summarize, wanted)

    def watch_submodule(self, name: str) -> SubmoduleOutputs:
        """Watch what a submodule returns, until the fit ends.

        Args:
            name: Of the submodule, such as ``"net.head"``.

        Raises:
            ValueError: If there is no such submodule.
        """
        watched = SubmoduleOutputs(self.module, name)
        self.add_cleanup(watched.remove)
        return watched

    def stop_reading(self) -> None:
        """Run all following steps of this fit as they are, without reading losses."""
        self.reader.blind = True
        self.run.train_loss.read()  # the mean of a few batches would be mistaken for that of the epoch

    def end_early(self, epoch: int, further: float) -> None:
        """Let a fit with a budget end before it is spent, with every schedule at its end by then.

        To be called where the samples of ``epoch`` are selected, on every rank alike. It has no effect if the budget
        ends the fit sooner.

        Args:
            epoch: 0-based epoch to come.
            further: Samples to be trained on from then on.
        """
        assert self.budget is not None, "nothing but the Trainer ends the fit"
        self.budget.end_early(epoch, further)

    def train_step(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        samples: BatchSamples,
        *,
        is_full_batch: bool = True,
        is_gathered: bool = False,
    ) -> tuple[Any, Observation | None]:
        """Run a step that trains, and count its samples, once for each batch.

        Args:
            step: The module's own ``training_step``.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            samples: The samples that it trains on.
            is_full_batch: False if they are a part of the current batch.
            is_gathered: True if they were chosen in several batches, and already counted as trained on.

        Returns:
            What the step returned, with the samples' weights in its loss, and the observation; None if nothing could be
            captured and the method works without it.
        """
        run, fit = self.run, self.run.fit
        store, epoch = run.store, fit.plan.epoch
        done = self.reader.run(step, args, kwargs, samples, store, epoch, is_full_batch=is_full_batch)
        forget_misread(run, self.reader, ends_epoch=False)
        if done[0] is None and self.module.automatic_optimization:
            return done  # Lightning skips the batch
        place = (epoch, fit.batches_done)  # checked inline: a short step would notice a call
        if place == self._counted:
            return done
        self._counted = place
        if done[1] is not None:
            run.train_loss.add(done[1].losses)
        if is_gathered:
            n = samples.indices.numel()
            fit.count_samples(forward=n, backward=n)
        else:
            count_step(run, samples.indices)
        return done

    def count_batch(self, indices: Tensor) -> None:
        """Count the samples of the current batch as trained on, int64 (B,), unless that is done."""
        if not self.is_repeated:
            count_step(self.run, indices)
            self._counted = (self.epoch, self.run.fit.batches_done)

    @property
    def is_repeated(self) -> bool:
        """True once the samples of the current batch are counted: optimizers such as LBFGS run its step again."""
        return self._counted == (self.epoch, self.run.fit.batches_done)

    def score_step(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor
    ) -> Observation:
        """Run a step for the losses of its samples, and count them; to be called within a `SideEffectGuard`.

        Args:
            step: The module's own ``training_step``.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            indices: int64 (B,), the samples of the batch.
        """
        self.run.fit.count_samples(forward=indices.numel(), backward=0)
        seen = self.reader.score(step, args, kwargs, indices, self.store, self.epoch)
        forget_misread(self.run, self.reader, ends_epoch=False)
        return seen

    def score_samples(
        self, indices: Tensor, store: ScoreStore, loader: SelectedLoader | None = None
    ) -> Iterator[Observation]:
        """Measure samples by a pass in eval mode, without gradients and without side effects.

        Args:
            indices: int64 (m,), dataset indices, sorted.
            store: Knows the last loss of every sample.
            loader: Reads them; None for the train loader.

        Yields:
            The observation of each batch; index N marks samples that are repeated to make ranks even.
        """
        return self.epochs.score_samples(indices, store, loader)

    def close(self) -> None:
        """Restore everything to what it was."""
        while self._cleanups:
            self._cleanups.pop()()
