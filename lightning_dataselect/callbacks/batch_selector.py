"""The base of methods that choose within a batch: score it without a graph, then train on a part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.fit.batch_scoring import BatchScorer
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.fit.cutting import BatchCutter
from lightning_dataselect.fit.gathering import Gathering, check_gathers
from lightning_dataselect.numerics.placement import placement
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.recording import count_dropped, count_trained, record
from lightning_dataselect.state.selection import BatchSamples, Observation, Selection, take_chosen
from lightning_dataselect.trainer import logging_for
from lightning_dataselect.utils.errors import MethodDefinitionError
from lightning_dataselect.utils.left_open import left_open
from lightning_dataselect.utils.validation import (
    NEVER_WEIGHTED,
    SET_LEVEL,
    check_choice,
    check_count,
    check_flag,
    check_share,
)


class BatchSelector(DataSelector):
    """Train on a part of each batch. Subclass it and define :meth:`choose`.

    Each batch is scored in eval mode, without a graph and without side effects, then cut down to the chosen samples,
    and only these go through the user's training step. If a scoring pass costs 1/3 of a training step, a step costs
    ``1/3 + batch_ratio`` of a full one, or ``1 / (3 n) + batch_ratio`` if only every n-th batch is scored.

    Args:
        batch_ratio: Share of each batch that is trained on, in (0, 1]; the loader's batch is the meta-batch.
        prune_ratio: Share of the data set that is dropped before each epoch; 0 (default) for none. A class that does
            not define :meth:`select` has no use for it, nor for ``every_n_epochs``, ``balance`` and ``whole_batches``.
        score_dtype: ``"bfloat16"`` or ``"float16"`` to score under autocast, None for the Trainer's own precision.
        score_every_n_batches: Score only every n-th batch of an epoch, beginning with the first. In the other batches
            samples are chosen by the scores that they already have, and only those trained on get new ones. Default 1:
            every batch is scored, as in the papers. More is our own variant, and cheaper: with shuffled batches a
            sample's score is about n epochs old.
        score_scale: Factor on the height and width of the images in the scoring pass, in (0, 1]: with 0.5 the pass
            costs a quarter. Images are float tensors of four dimensions; the model must accept them at any size, and
            the targets must not have their size. Default 1: unchanged. Composer has this option too. On images of 28
            pixels a factor of 0.5 cost three points of accuracy.
        whole_every_n_batches: Train on every n-th batch of an epoch as a whole, without scoring, like composer's
            ``interrupt``; 0 (default) for none. Composer's window of epochs corresponds to ``warmup_epochs`` and
            ``anneal``.
        constant_batch_size: True to gather chosen samples over several of the loader's batches, and to train on them
            once they fill a whole one, as the authors of Selective-Backprop do: the model never sees a smaller batch,
            and takes ``batch_ratio`` times as many optimizer steps. Default False: each part is trained on at once.
            Costs: inputs of up to two further batches stay on the device, and are saved in checkpoints; a sample is
            trained on up to ``1 / batch_ratio`` batches after it was scored. Samples left over at the end of an epoch
            wait for the next one (the authors train on a smaller batch); those of the last epoch, fewer than a batch,
            are never trained on. With several ranks, each batch waits for the device, so that all ranks train
            together; one that has gathered two batches more than it can train on discards its oldest samples. To
            hooks, a batch that only gathers looks like one that accumulates gradients, with empty ``outputs``. With
            ``accumulate_grad_batches`` whole batches are accumulated, and the last step of an epoch takes what waits.
        **common: See :class:`~lightning_dataselect.callbacks.selector.DataSelector`.

    Raises:
        TypeError: If an argument is of the wrong type, or can have no effect.
        ValueError: If an argument is out of its range.
    """

    chooses_within_batches: ClassVar[bool] = True
    chosen_by: ClassVar[str] = "batch_ratio"

    _scorer = FitLocal[BatchScorer | None](None)
    _cutter = FitLocal[BatchCutter | None](None)
    _fewest = FitLocal[int](1)
    _gathering = FitLocal[Gathering | None](None)
    _choice = FitLocal[tuple[BatchSamples, Tensor, BatchSamples] | None](None)  # a batch, and what was chosen of it

    def __init_subclass__(cls, **given: Any) -> None:
        """Refuse a class that lists this base before the one that refuses arguments without effect."""
        super().__init_subclass__(**given)
        order = cls.__mro__
        if WithinBatches in order and order.index(BatchSelector) < order.index(WithinBatches):
            raise MethodDefinitionError(
                f"class {cls.__name__}: name WithinBatches before BatchSelector among the bases, so that it can refuse"
                " the arguments that have no meaning."
            )

    def __init__(
        self,
        *,
        batch_ratio: float = 0.25,
        prune_ratio: PruneRatio = 0.0,
        score_dtype: str | None = None,
        score_every_n_batches: int = 1,
        score_scale: float = 1.0,
        whole_every_n_batches: int = 0,
        constant_batch_size: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, **common)
        self.batch_ratio = check_share(
            "batch_ratio", batch_ratio, "the share of each batch to train on, say 0.25", above_zero=True
        )
        self.score_dtype = score_dtype
        if score_dtype is not None:
            check_choice("score_dtype", score_dtype, ("bfloat16", "float16"))
        self.score_every_n_batches = check_count("score_every_n_batches", score_every_n_batches, minimum=1)
        self.score_scale = check_share(
            "score_scale", score_scale, "the factor on the sides of an image, say 0.5", above_zero=True
        )
        self.whole_every_n_batches = check_count("whole_every_n_batches", whole_every_n_batches)
        self.constant_batch_size = check_flag("constant_batch_size", constant_batch_size)
        if constant_batch_size:
            check_gathers(type(self).__name__, self.score_every_n_batches, self.loader)

    @classmethod
    def without_effect(cls) -> dict[str, str]:
        """Return the arguments without effect: what is dropped before an epoch, if the class does not select."""
        if cls.select is not BatchSelector.select:
            return super().without_effect()
        why = (
            "it defines no `select`, so it takes every sample in every epoch and only chooses within batches, by"
            f" `{cls.chosen_by}`. Leave it out, or define select(self, epoch, scores, generator) to drop samples before"
            " an epoch as well."
        )
        return super().without_effect() | dict.fromkeys(SET_LEVEL, why) | {"logged_loss": NEVER_WEIGHTED}

    @left_open
    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Choose the samples of a batch to train on; nothing here may wait for the device.

        Args:
            seen: The results of scoring the batch, which the store's columns already contain; or, if the batch is not
                scored, the last known losses, NaN for none, without logits and targets.
            k: ``batch_ratio`` of the batch, rounded, at least 1. At least 2 if the module has a BatchNorm layer, which
                cannot train on one sample; in a smaller last batch too, if full batches give as many.
            generator: On the device of ``seen``, seeded for this batch.

        Returns:
            int64 (b,), positions within the batch, in any order.
        """
        raise NotImplementedError(f"{type(self).__name__} must define choose(seen, k, generator) -> positions.")

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Select all samples: samples are only dropped within batches."""
        return Selection(placement().arange(scores.numel()))

    def trains_on_whole_batches(self, epoch: int) -> bool:
        """Return whether ``epoch`` trains on whole batches, which still update the scores."""
        return self.batch_ratio == 1 or self.in_warmup(epoch) or self.in_annealing(epoch)

    def sample_cost(self, epoch: int) -> float:
        """Return the cost of a sample in the batches of ``epoch``: scoring it, plus the share that is trained on."""
        if self.trains_on_whole_batches(epoch):
            return 1.0
        size = None if self.context is None else self.context.epochs.batch_size
        share = self.batch_ratio if size is None else self._share(size) / size
        return 1 / (3 * self.score_every_n_batches) + share

    def fewest(self, k: int) -> int:
        """Return the fewest samples that a method which does not go by ``k`` must choose: 2 if ``k`` is at least 2.

        If samples are gathered into whole batches, a batch may have none.
        """
        return 0 if self.constant_batch_size else min(2, k)

    @property
    def chooses_epochs(self) -> bool:
        """True if samples are also dropped before an epoch."""
        return self.ratio_schedule is not None or self.prune_ratio > 0

    @property
    def needs_extra_forward(self) -> bool:
        """True: batches are scored before the step that trains."""
        return True

    def on_fit_setup(self, context: FitContext) -> None:
        """Prepare to score and to gather."""
        self._scorer = BatchScorer(context, self.score_scale, self.score_dtype)
        batches = context.reader.batches
        self._cutter = BatchCutter(batches, type(self).__name__, collates_anew=not self.constant_batch_size)
        has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in context.module.modules())
        self._fewest = 2 if has_batch_norm and not self.constant_batch_size else 1
        if self.constant_batch_size:
            waiting = context.run.waiting
            context.run.waiting = self._gathering = waiting if isinstance(waiting, Gathering) else Gathering()
            give_back = self._gathering.open(
                context.module.trainer,
                batches.layout,
                gathers=lambda: self.batch is not None and not self.trains_on_whole_batches(context.epoch),
                is_whole=lambda: self._is_whole(self.state.batches_done),
                nobody=lambda: self.store.n,
            )
            context.add_cleanup(give_back)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Determine the current epoch and its length."""
        super().on_train_start(trainer, pl_module)
        if self._gathering is not None:
            self._gathering.to(pl_module.device)

    def look_at_batch(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: BatchSamples) -> None:
        """Look at a batch before samples are chosen from it; nothing by default.

        Args:
            args: Positional arguments of the training step.
            kwargs: Its keyword arguments.
            batch: The samples of the batch.
        """

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Score the batch, cut it, and train on the chosen samples: at once, or once a batch of them is gathered."""
        context, batch = self.context, self.batch
        assert context is not None and batch is not None and self._cutter is not None
        if self._gathering is not None and (gathered := self._gathering.taken) is not None:
            return context.train_step(step, args, kwargs, gathered, is_full_batch=False, is_gathered=True)[0]
        if not self._cutter.is_ready:
            self._cutter.get_ready(args, kwargs, batch, self._share(len(batch)))
        if self.trains_on_whole_batches(context.epoch):
            return super().run_step(step, args, kwargs)
        self.look_at_batch(args, kwargs, batch)
        if self._is_whole(self.state.batches_done):
            return super().run_step(step, args, kwargs)
        is_scored = self.state.batches_done % self.score_every_n_batches == 0
        if self._choice is None or self._choice[0] is not batch:  # else an optimizer asks for the batch again
            scored = self._score(step, args, kwargs, batch) if is_scored else self._remembered(batch)
            positions = self.choose(scored, self._share(len(batch)), self.batch_generator(batch.indices.device))
            chosen = take_chosen(batch, positions, type(self).__name__, fewest=self.fewest(1))
            count_dropped(context.run, batch.indices, chosen.indices)
            self._choice = batch, positions, chosen
        _, positions, chosen = self._choice
        args, kwargs = self._cutter.cut(args, kwargs, positions, batch)
        if self._gathering is not None:
            self._gather(self._gathering, args, kwargs, chosen)
            return None
        smaller = context.reader.batches.batch_in(args, kwargs)
        with (
            self._cutter.explaining(len(chosen), len(batch), is_scored=is_scored),
            logging_for(context.module, smaller),
        ):
            output, trained = context.train_step(step, args, kwargs, chosen, is_full_batch=False)
        if self.seen is None and not is_scored:
            self.seen = trained
        return output

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the results of the batch, and keep schedules in step."""
        if self._gathering is not None:
            self._gathering.end_batch()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _gather(self, into: Gathering, args: tuple[Any, ...], kwargs: dict[str, Any], chosen: BatchSamples) -> None:
        assert self.context is not None and self.batch is not None
        batches = self.context.reader.batches
        # counted here, because a stream forgets the samples' identity before they are trained on
        count_trained(self.context.run, chosen.indices)
        whole = self.context.epochs.batch_size
        given_up = into.add(batches.batch_in(args, kwargs), chosen, len(self.batch), whole, batches.layout)
        self.state.n_trained -= given_up
        self.state.n_left_out += given_up

    def batch_generator(self, device: torch.device) -> torch.Generator:
        """Return this rank's generator for the current batch."""
        purpose = f"batch {self.state.batches_done} of rank {self.run_state.rank}"
        seed = epoch_generator(self.seed, self.state.plan.epoch, purpose).initial_seed()
        return torch.Generator(device).manual_seed(seed)

    def _score(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], batch: BatchSamples
    ) -> Observation:
        """Measure the batch, and update its scores."""
        assert self._scorer is not None
        seen = self._scorer.score(step, args, kwargs, batch)
        record(self.run_state, seen, self)
        return seen

    def _remembered(self, batch: BatchSamples) -> Observation:
        """Return the last known losses of a batch's samples."""
        return Observation(batch.indices, self.store["loss"][batch.indices], None, None, self.state.plan.epoch)

    def _is_whole(self, batches_done: int) -> bool:
        n = self.whole_every_n_batches
        return n > 0 and batches_done % n == n - 1

    def _share(self, size: int) -> int:
        """Return how many samples of a batch to train on: 1 only if full batches give no more, with BatchNorm never."""
        assert self.context is not None
        whole = max(self._fewest, round(self.batch_ratio * (self.context.epochs.batch_size or size)))
        fewest = 1 if self.constant_batch_size else min(2, size, whole)
        return max(fewest, round(self.batch_ratio * size))
