"""The base callback: hooks of the Trainer on one side, one decision of a method on the other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_dataselect.callbacks.base import Callback
from lightning_dataselect.callbacks.checkpointing import Resumable
from lightning_dataselect.data.batch_layout import BatchLayout
from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.data.subset_batch import step_on_part
from lightning_dataselect.fit.epochs import Epochs
from lightning_dataselect.fit.logging import log_epoch
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.policy import Method
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import Observation, class_targets
from lightning_dataselect.step.reader import Reading, StepReader
from lightning_dataselect.step.sample_loss import SampleLoss, check_sample_loss
from lightning_dataselect.step.witness import Part
from lightning_dataselect.trainer import (
    Restore,
    come_first,
    forget_train_loader,
    intercept_train_loader,
    logging_parts,
    overfits,
    patch_attribute,
    resumes_within_epoch,
    scale_learning_rate,
    takes_dataloader_iter,
)
from lightning_dataselect.utils.errors import CheckpointMismatchError, TrainerSettingsError, UnsupportedStepError
from lightning_dataselect.utils.validation import check_choice, check_count, check_share


class DataSelector(Resumable, Callback):
    """Trains on the samples that are worth it; derive from it to write a method of one's own.

    A method is one decision, :meth:`select`, and what it needs to be scored by, :meth:`observe`. Capture of per-sample
    losses, sampling, epochs of changing length, learning-rate schedules, several ranks, resuming and logging come with
    the class. The LightningModule, the datamodule and the loaders are not changed, and are as before after the fit.

    Args:
        prune_ratio: share of the samples that is dropped, in [0, 1).
        warmup_epochs: epochs at the start that train on everything. In a fit that goes on from a checkpoint without a
            selector, they follow the checkpoint.
        anneal: share of the epochs at the end that train on everything, in [0, 1].
        every_n_epochs: epochs between two selections; in between the last one is kept.
        seed: seed of the order and of the selection; the global random state is never touched.
        lr_schedule: ``"stretch"`` keeps step-wise schedules in time with the share of the training that is done, so
            that they end where they would have ended; ``"steps"`` leaves them alone.
        sample_loss: where per-sample losses come from: ``"auto"``, a key of the step's output dict, a callable on that
            output or its import path, or ``"batch"``; see :data:`~lightning_dataselect.step.sample_loss.SampleLoss`.
        balance: ``"class"`` selects within each class, so that every class keeps its share; it needs a classification
            loss with class targets, so that they can be seen.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> from lightning_dataselect.state.selection import Selection
        >>> class HighestLoss(DataSelector):
        ...     def select(self, epoch, scores, generator):
        ...         kept = round((1 - self.prune_ratio) * scores.numel())
        ...         return Selection(scores.nan_to_num(torch.inf).topk(kept).indices)
        >>> HighestLoss(prune_ratio=0.25).select(1, torch.tensor([0.1, 3.0, float("nan"), 2.0]), None).indices
        tensor([2, 1, 3])
    """

    def __init__(
        self,
        *,
        prune_ratio: float = 0.5,
        warmup_epochs: int = 1,
        anneal: float = 0.0,
        every_n_epochs: int = 1,
        seed: int = 0,
        lr_schedule: Literal["stretch", "steps"] = "stretch",
        sample_loss: SampleLoss = "auto",
        balance: Literal["class"] | None = None,
    ) -> None:
        self.prune_ratio = check_share("prune_ratio", prune_ratio, below_one=True)
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs)
        self.anneal = check_share("anneal", anneal)
        self.every_n_epochs = check_count("every_n_epochs", every_n_epochs, minimum=1)
        self.seed = check_count("seed", seed)
        self.lr_schedule = check_choice("lr_schedule", lr_schedule, ("stretch", "steps"))
        self.sample_loss = check_sample_loss(sample_loss)
        self.balance = None if balance is None else check_choice("balance", balance, ("class",))
        self.max_epochs: int | None = None
        """Epochs of the fit under way, or None if only steps or time end it."""
        self._store: SampleHistoryStore | None = None
        self._state: FitState | None = None
        self._restored: Mapping[str, Any] | None = None
        self._drop_live_parts()

    def _drop_live_parts(self) -> None:
        """Forget what belongs to a fit under way and must be neither pickled nor kept."""
        self._undo: list[Restore] = []
        self._epochs: Epochs | None = None
        self._reader: StepReader | None = None
        self._step: Callable[..., Any] | None = None
        self._layout = BatchLayout()
        self._batch: tuple[Tensor, Tensor | None] | None = None
        self._seen: Observation | None = None
        self._members = None
        self._rank = 0
        self.rescoring = False
        """Whether a pass over :meth:`samples_to_rescore` is under way."""
        self._started = self._paused = 0.0

    # ---- a training step ------------------------------------------------------------------------------------------

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the user's training step on a batch and keep what it has shown.

        Args:
            step: the module's own ``training_step``.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What the step returned, with the method's weights in its loss.
        """
        assert self._batch is not None
        indices, weights = self._batch
        part = step_on_part(step, args, kwargs, indices, self._layout, self._loader and self._loader.loader)
        output, self._seen = self.measure(lambda: step(*args, **kwargs), indices, weights, part)
        self.store.count_trained(indices)
        self.count_samples(forward=indices.numel(), backward=indices.numel())
        return output

    def measure(
        self, step: Callable[[], Any], indices: Tensor, weights: Tensor | None, part: Part | None = None
    ) -> tuple[Any, Observation | None]:
        """Run ``step`` once and read what the samples ``indices`` lost.

        Args:
            step: runs the module on the batch.
            indices: int64 (B,), dataset indices of the batch, N for padding.
            weights: float32 (B,), loss weights, or None.
            part: makes the step on some of the samples.

        Returns:
            What ``step`` returned, with the weights in its loss, and what was seen; None if nothing
            could be captured and the method can do without.
        """
        assert self._reader is not None
        output, reading = self._reader.read(step, indices, self.store["loss"], weights, part)
        return output, None if reading is None else self.observation(indices, reading)

    def observation(self, indices: Tensor, reading: Reading) -> Observation:
        """What was read of the samples ``indices``, int64 (B,), as the method is told it."""
        losses, epoch = reading.losses, self.state.plan.epoch
        if not self.ranks_by_loss:
            # not finite becomes NaN without a look at it: infinity would stay in moving averages for good
            losses = losses + losses * 0
        return Observation(indices, losses, reading.logits, reading.targets, epoch, reading.outputs)

    def write(self, seen: Observation) -> None:
        """Write down what was seen, in the base's columns and in the method's own."""
        self.store["loss"].index_copy_(0, seen.indices, seen.losses)
        if self.balance:
            self.store["class"][seen.indices] = class_targets(seen).float()
        if not self.ranks_by_loss:
            self.observe(seen, self.store)
        self.store.see(seen)
        self.store.touch(seen.indices)
        self.state.n_measured += seen.indices.numel()

    def count_samples(self, *, forward: int, backward: int) -> None:
        """Count samples that were forwarded and back-propagated on this rank."""
        self.state.n_forward += forward
        self.state.n_backward += backward

    # ---- hooks of the Trainer ------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take hold of the training step and of the train loader, before either is used."""
        if stage != "fit":
            return
        self._release()
        self._restored = None
        self._refuse_second_selector(trainer)
        if overfits(trainer):
            rank_zero_info(f"{type(self).__name__} is off: overfit_batches fixes which batches are trained on.")
            return
        if takes_dataloader_iter(pl_module):
            raise UnsupportedStepError(
                "training_step(dataloader_iter) fetches its own batches, so"
                f" {type(self).__name__} cannot tell which samples they hold. Let training_step"
                " take `batch`, or remove the callback."
            )
        if self.needs_extra_forward and not pl_module.automatic_optimization:
            raise UnsupportedStepError(
                f"{type(self).__name__} measures samples by passes through training_step without training, but with"
                " manual optimization the step trains while it runs. Use automatic optimization, or a method without"
                " such passes, such as InfoBatch."
            )
        if trainer.current_epoch == 0:
            self.forget()
        elif self._state is not None:
            # after Ctrl-C, Lightning begins the epoch anew; a checkpoint, still to be loaded, may know better
            self._state.batches_done = 0
        # others may save a checkpoint in any hook, in which the batch just done must be counted
        come_first(trainer, self)
        forget_train_loader(trainer)
        self._reader = StepReader(
            pl_module,
            self.sample_loss,
            required=self.needs_losses,
            method=type(self).__name__,
        )
        self._step = step = pl_module.training_step
        self._rank = trainer.global_rank
        self._epochs = Epochs(trainer, self, step, self._reader)
        self._undo.append(intercept_train_loader(trainer, self._epochs.take))
        self._undo.append(self._epochs.give_back)
        self._undo.append(patch_attribute(pl_module, "training_step", self._wrapped_step(step)))
        for part in logging_parts(pl_module):
            self._undo.append(patch_attribute(part, "log", self._reader.capture.unwatched(part.log)))
        if not pl_module.automatic_optimization:
            backward = self._wrapped_backward(pl_module.manual_backward)
            self._undo.append(patch_attribute(pl_module, "manual_backward", backward))
        self.on_fit_setup(pl_module)

    def on_fit_setup(self, pl_module: pl.LightningModule) -> None:
        """Take hold of more of the module than its training step; ``self._undo`` gives it back after the fit."""

    def forget(self) -> None:
        """Let go of what an earlier fit has shown: a new one begins."""
        self._store = self._state = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Settle which epoch it is and how long."""
        if self._epochs is None:
            return
        self._started = time.perf_counter()
        if resumes_within_epoch(trainer) and not (self.state.batches_done or self.history):
            raise CheckpointMismatchError(
                "The checkpoint was written in the middle of an epoch by a fit without a selector, so"
                f" {type(self).__name__} cannot know which samples that epoch has left. Resume from a checkpoint at the"
                " end of an epoch, or load the weights alone into a new fit."
            )
        self.store.to(pl_module.device)
        if self._reader is not None and (self.history or self.state.batches_done):
            self._reader.capture.resume()
        self._epochs.start()
        for optimizer in trainer.optimizers if type(self).lr_factor is not Method.lr_factor else ():
            self._undo.append(scale_learning_rate(optimizer, lambda: self.lr_factor(self.state.plan.epoch)))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        if self._epochs is not None and self._reader is not None:
            self._reader.capture.start_epoch()
            self._epochs.start_epoch()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock: validation is no part of the training time."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the clock."""
        self._started += time.perf_counter() - self._paused

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look up which samples the batch holds."""
        if self._epochs is None:
            return
        indices, weights = self._epochs.take_batch(batch_idx)
        if weights is not None:
            weights = weights.to(pl_module.device, non_blocking=True)
        self._batch = indices.to(pl_module.device, non_blocking=True), weights

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write down what the batch has shown, and keep schedules in time."""
        if self._epochs is None:
            return
        if self._seen is not None:
            self.write(self._seen)
        self._batch = self._seen = None
        self.state.batches_done = batch_idx + 1
        self._epochs.end_batch()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch, choose the samples of the next one, and change its length."""
        if self._epochs is None or self.state.plan.epoch != trainer.current_epoch:
            return
        begun = time.perf_counter()
        self.state.seconds += begun - self._started
        self._epochs.advance()
        if not self.history:
            return
        self.history[-1]["select_seconds"] = time.perf_counter() - begun
        if not trainer.barebones:
            log_epoch(pl_module, self.history, self.scores)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give everything back as it was."""
        self._release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give everything back as it was, after an error or Ctrl-C too."""
        self._release()

    # ---- inside --------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """The state without what belongs to a fit under way: Lightning's bound ``log`` would drag the module along."""
        bare = object.__new__(type(self))
        bare.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("log", "log_dict")})
        bare._drop_live_parts()
        bare._data = None
        return bare.__dict__

    @property
    def _loader(self) -> SelectedLoader | None:
        """The train loader under a plan; None where nothing is selected."""
        return None if self._epochs is None else self._epochs.loader

    def _refuse_second_selector(self, trainer: pl.Trainer) -> None:
        names = [type(c).__name__ for c in trainer.callbacks if isinstance(c, DataSelector)]  # type: ignore[attr-defined]
        if len(names) > 1:
            raise TrainerSettingsError(
                f"The Trainer has {len(names)} selectors ({', '.join(names)}), but only one can decide which samples an"
                " epoch trains on. Keep one of them."
            )

    def _wrapped_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            return step(*args, **kwargs) if self._batch is None else self.run_step(step, args, kwargs)

        return training_step

    def _wrapped_backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(backward)
        def manual_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            if self._reader is not None and self._batch is not None:
                loss = self._reader.root(loss)
            backward(loss, *args, **kwargs)

        return manual_backward

    def _release(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._drop_live_parts()
