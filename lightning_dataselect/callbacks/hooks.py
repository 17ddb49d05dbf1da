"""The Trainer hooks that carry out a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from lightning_dataselect.callbacks.base import Callback
from lightning_dataselect.callbacks.checkpointing import Checkpointer
from lightning_dataselect.callbacks.fit_local import FitLocal, drop_fit_locals
from lightning_dataselect.callbacks.state_key import StateKey, forget_state_key, keep_state_key
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.fit.interception import announce_fit, begin_fit, open_fit, refuse_fit_within_fit, take_hold
from lightning_dataselect.fit.logging import log_epoch
from lightning_dataselect.fit.stopwatch import Stopwatch
from lightning_dataselect.fit.summary import fit_summary
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.recording import record
from lightning_dataselect.state.results import Results
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.step.sample_loss import SampleLoss
from lightning_dataselect.trainer import come_first, pass_over_empty_hooks


class SelectionHooks(SelectionPolicy, Results, Callback):
    """Carry out a policy: each Trainer hook delegates to the current fit, and decides nothing itself.

    Attributes:
        sample_loss: Where per-sample losses come from.
        logs: True to log what each epoch kept, and to say what a fit has dropped.
        run_state: The per-sample columns and the position of the fit.
    """

    sample_loss: SampleLoss
    logs: bool

    context = FitLocal[FitContext | None](None)
    """The current fit; None if nothing is selected."""
    batch = FitLocal[BatchSamples | None](None)
    """The samples of the current batch."""
    seen = FitLocal[Observation | None](None)
    """The observation of the current training step, recorded at the end of the batch."""

    _trainer = FitLocal[pl.Trainer | None](None)

    def __init__(self) -> None:
        self.run_state = RunState(type(self).__name__)
        self._checkpointer = Checkpointer(self, self.run_state)
        self._stopwatch = Stopwatch()

    @property
    def first_epoch(self) -> int:
        """The 0-based epoch that the selector began with; 0 before a fit."""
        return self.run_state.first_epoch

    def progress(self, epoch: int) -> float | None:
        """Return the share of the fit, or of its budget, that is done when ``epoch`` begins; None if unknown."""
        run = self.run_state
        return super().progress(epoch) if run.compute is None else run.progress(run.spent_before(epoch))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Patch the training step and the train loader before either of them is used."""
        keep_state_key(self, self._checkpointer.state_key)
        if stage != "fit":
            return
        refuse_fit_within_fit(self, self._trainer, trainer)
        self._end_fit()
        self._trainer = trainer
        others = [each for each in _selectors(trainer) if each is not self]
        beside = [each.context for each in others if each.context is not None and each._trainer is trainer]
        self.context = open_fit(trainer, pl_module, self, self.run_state, self.sample_loss, beside)
        if self.context is not None:
            # others may save a checkpoint in any hook, in which the batch just done must be counted
            come_first(trainer, self)
            self.context.add_cleanup(pass_over_empty_hooks(self))
            if not beside:
                take_hold(trainer, self.context, [self, *others])
            self.on_fit_setup(self.context)

    def on_fit_setup(self, context: FitContext) -> None:
        """Prepare for a fit, using what :attr:`context` offers until the fit ends; nothing by default."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Announce where a budget ends the fit, now that schedules have been built for the full length."""
        if self.context is not None:
            announce_fit(trainer, self.context)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Determine which epoch the fit begins with, and its length."""
        self._stopwatch.restart()
        if self.context is not None:
            begin_fit(trainer, self.context, self)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Undo every patch, unless it is another Trainer's fit that has ended."""
        if trainer is self._trainer:
            self._end_fit()
            forget_state_key(self)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Undo every patch, after an error or Ctrl-C as well."""
        if trainer is self._trainer:
            self._end_fit()
            forget_state_key(self)

    def _end_fit(self) -> None:
        if self.context is not None:
            self.context.close()
        drop_fit_locals(self)

    # ---- a batch -------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look up which samples the batch holds."""
        if (context := self.context) is not None:
            self.batch = context.epochs.begin_batch(batch_idx, batch, pl_module.device)

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the user's training step on the current batch and keep the observation.

        Args:
            step: The module's own ``training_step``.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            What the step returned, with the method's weights in its loss.
        """
        context, batch = self.context, self.batch
        assert context is not None and batch is not None
        output, seen = context.train_step(step, args, kwargs, batch)
        if self.seen is None:  # else an optimizer has asked for the batch again, under other weights
            self.seen = seen
        return output

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the results of the batch, and keep schedules in step."""
        if (context := self.context) is None:
            return
        if (seen := self.seen) is not None:
            record(self.run_state, seen, self)
        self.batch = self.seen = None
        context.epochs.end_batch(batch_idx)

    # ---- an epoch, the fit's end, and checkpoints ----------------------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._stopwatch.restart()
        if self.context is not None:
            self.context.epochs.start_epoch()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock: validation does not count as training time."""
        self._stopwatch.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock again."""
        self._stopwatch.resume()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch, choose the samples of the next one, and set its length."""
        if self.context is None:
            return
        epoch = trainer.current_epoch
        if self.state.plan.epoch == epoch:
            self.context.epochs.end_epoch(seconds=self._stopwatch.read())
        # by now the selector of another loader may have turned to the next epoch for all of them
        if self.history and self.history[-1]["epoch"] == epoch and self.logs and not trainer.barebones:
            named = self.loader if self.has_company else None
            scores, train_loss = self.store.column("score"), self.run_state.train_loss.read()
            log_epoch(pl_module, self.history, scores, train_loss, named)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report what the fit has dropped."""
        if self.context is not None and self.history and self.logs and not trainer.barebones:
            name = type(self).__name__ + (f"(loader={self.loader!r})" if self.has_company else "")
            said = fit_summary(name, self.history, self.run_state.share_spent)
            rank_zero_info(said + self.remark())

    @StateKey
    def state_key(self) -> str:
        """The key of the state in a checkpoint."""
        return self._checkpointer.state_key

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a fit needs to be resumed exactly."""
        return self._checkpointer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the loader, and with it the number of samples, is known."""
        self._checkpointer.load_state_dict(state_dict)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the state of all ranks."""
        self._checkpointer.save_all_ranks(checkpoint)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another method; put each rank's loaders back to where they were."""
        self._checkpointer.refuse_others(checkpoint, {each.state_key for each in _selectors(trainer)})
        self._checkpointer.place_loaders(checkpoint, trainer.global_rank, trainer.world_size)


def _selectors(trainer: pl.Trainer) -> list[SelectionHooks]:
    return [callback for callback in trainer.callbacks if isinstance(callback, SelectionHooks)]  # type: ignore[attr-defined]
