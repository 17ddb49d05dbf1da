"""The base callback: hooks of the Trainer on one side, one decision of a method on the other."""

from __future__ import annotations

import functools
import math
import time
from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_dataselect import bridge
from lightning_dataselect.fit_state import FitState
from lightning_dataselect.loader import SelectedLoader, prepare
from lightning_dataselect.lr_stretch import StretchedSchedulers
from lightning_dataselect.method import Method
from lightning_dataselect.rescoring import score_samples
from lightning_dataselect.results import Results
from lightning_dataselect.sample_loss import SampleLoss
from lightning_dataselect.sampler import EpochPlan
from lightning_dataselect.schedule import UnprunedFit
from lightning_dataselect.scores import ScoreStore
from lightning_dataselect.seeding import epoch_generator
from lightning_dataselect.selection import Observation, Selection, check_selection, class_targets, select_by_class
from lightning_dataselect.step_reader import Reading, StepReader
from lightning_dataselect.validation import check_choice, check_count, check_share

if TYPE_CHECKING:
    pass

_STATE_PREFIX = "lightning_dataselect."
_MAX_QUANTILE_SAMPLES = 1_000_000


class DataSelector(Method, Results, pl.Callback):
    """Trains on the samples that are worth it; derive from it to write a method of one's own.

    A method is one decision, :meth:`select`, and what it needs to be scored by, :meth:`observe`. Capture of per-sample
    losses, sampling, epochs of changing length, learning-rate schedules, several ranks, resuming and logging come with
    the class. The LightningModule, the datamodule and the loaders are not changed, and are as before after the fit.

    Args:
        prune_ratio: share of the samples that is dropped, in [0, 1).
        warmup_epochs: epochs at the start that train on everything.
        anneal: share of the epochs at the end that train on everything, in [0, 1].
        every_n_epochs: epochs between two selections; in between the last one is kept.
        seed: seed of the order and of the selection; the global random state is never touched.
        lr_schedule: ``"stretch"`` keeps step-wise schedules in time with the share of the training that is done, so
            that they end where they would have ended; ``"steps"`` leaves them alone.
        sample_loss: where per-sample losses come from: ``"auto"``, a key of the step's output dict, a callable on that
            output, or ``"batch"``; see :data:`~lightning_dataselect.sample_loss.SampleLoss`.
        balance: ``"class"`` selects within each class, so that every class keeps its share; it needs a classification
            loss with class targets, so that they can be seen.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of its range.

    Example:
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
        if not (isinstance(sample_loss, str) or callable(sample_loss)):
            raise TypeError(
                f"sample_loss={sample_loss!r} must be 'auto', 'batch', a key of the step's output, or a callable."
            )
        self.sample_loss = sample_loss
        self.balance = None if balance is None else check_choice("balance", balance, ("class",))
        self.max_epochs: int | None = None
        """Epochs of the fit under way, or None if only steps or time end it."""
        self._store: ScoreStore | None = None
        self._state: FitState | None = None
        self._restored: Mapping[str, Any] | None = None
        self._drop_live_parts()

    def _drop_live_parts(self) -> None:
        """Forget what belongs to a fit under way and must be neither pickled nor kept."""
        self._undo: list[bridge.Undo] = []
        self._loader: SelectedLoader | None = None
        self._reader: StepReader | None = None
        self._step: Callable[..., Any] | None = None
        self._batch: tuple[Tensor, Tensor | None] | None = None
        self._seen: Observation | None = None
        self._n_batches = 0
        self._schedulers: StretchedSchedulers | None = None  # None: schedules are left alone
        self._length_is_due = self._warned_of_losses = False
        self._members: Tensor | None = None  # the samples that select() is choosing among; None: all
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
        output, self._seen = self.measure(lambda: step(*args, **kwargs), indices, weights)
        self.count_samples(forward=indices.numel(), backward=indices.numel())
        return output

    def measure(
        self, step: Callable[[], Any], indices: Tensor, weights: Tensor | None
    ) -> tuple[Any, Observation | None]:
        """Run ``step`` once and read what the samples ``indices`` lost.

        Args:
            step: runs the module on the batch.
            indices: int64 (B,), dataset indices of the batch, N for padding.
            weights: float32 (B,), loss weights, or None.

        Returns:
            What ``step`` returned, with the weights in its loss, and what was seen; None if nothing
            could be captured and the method can do without.
        """
        assert self._reader is not None
        output, reading = self._reader.read(step, indices, self.store["loss"], weights)
        return output, None if reading is None else self._observation(indices, reading)

    def write(self, seen: Observation) -> None:
        """Write down what was seen, in the base's columns and in the method's own."""
        self.store["loss"].index_copy_(0, seen.indices, seen.losses)
        if self.balance:
            self.store["class"][seen.indices] = class_targets(seen).float()
        if not self.ranks_by_loss:
            self.observe(seen, self.store)
        self.store.touch(seen.indices)
        self.state.n_measured += seen.indices.numel()

    def count_samples(self, *, forward: int, backward: int) -> None:
        """Count samples that were forwarded and back-propagated on this rank."""
        self.state.n_forward += forward
        self.state.n_backward += backward

    # ---- hooks of the Trainer ------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Where the state lies in a checkpoint."""
        return _STATE_PREFIX + type(self).__qualname__

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take hold of the training step and of the train loader, before either is used."""
        if stage != "fit":
            return
        self._release()
        self._restored = None
        self._refuse_second_selector(trainer)
        if bridge.overfits(trainer):
            rank_zero_info(f"{type(self).__name__} is off: overfit_batches fixes which batches are trained on.")
            return
        if self.rescores and not pl_module.automatic_optimization:
            raise TypeError(
                f"{type(self).__name__} measures samples by passes through training_step without training, but with"
                " manual optimization the step trains while it runs. Use automatic optimization, or a method without"
                " such passes, such as InfoBatch."
            )
        if trainer.current_epoch == 0:
            self._store = self._state = None
        self._reader = StepReader(
            pl_module,
            self.sample_loss,
            required=self.needs_losses,
            method=type(self).__name__,
        )
        take, step = functools.partial(self._take_loader, trainer), pl_module.training_step
        self._step, self._rank = step, trainer.global_rank
        self._undo.append(bridge.intercept_train_loader(trainer, take))
        self._undo.append(bridge.shadow(pl_module, "training_step", self._wrapped_step(step)))
        if not pl_module.automatic_optimization:
            backward = self._wrapped_backward(pl_module.manual_backward)
            self._undo.append(bridge.shadow(pl_module, "manual_backward", backward))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Settle which epoch it is and how long."""
        if self._loader is None:
            return
        self._started = time.perf_counter()
        if bridge.takes_dataloader_iter(trainer):
            raise TypeError(
                "training_step(dataloader_iter) fetches its own batches, so"
                f" {type(self).__name__} cannot tell which samples they hold. Let training_step"
                " take `batch`, or remove the callback."
            )
        if bridge.resumes_within_epoch(trainer) and not (self.state.batches_done or self.history):
            raise ValueError(
                "The checkpoint was written in the middle of an epoch by a fit without a selector, so"
                f" {type(self).__name__} cannot know which samples that epoch has left. Resume from a checkpoint at the"
                " end of an epoch, or load the weights alone into a new fit."
            )
        self.store.to(pl_module.device)
        self._measure_length(trainer)
        self._take_over_schedulers(trainer)
        epoch, ended, batches_done = (
            bridge.epochs_processed(trainer),
            self.state.plan.epoch,
            self.state.batches_done,
        )
        resumed_after_last_batch = ended == epoch - 1 and batches_done > 0
        if resumed_after_last_batch:
            # Lightning takes that epoch for done and will not announce its end any more
            self._close_epoch(trainer)
        if ended != epoch and epoch != self.max_epochs:
            if self.history:
                self._rescore(trainer, epoch)
            self._begin(self._next_plan(epoch))
            bridge.renew_iterator(trainer)
            self._measure_length(trainer)
        bridge.set_epoch_length(trainer, self._n_batches)
        for optimizer in trainer.optimizers if type(self).lr_factor is not Method.lr_factor else ():
            self._undo.append(bridge.scale_learning_rate(optimizer, lambda: self.lr_factor(self.state.plan.epoch)))
        if resumed_after_last_batch:
            # the loop's counters still are those of the ended epoch, and are reset by its length
            bridge.set_counted_length(trainer, batches_done)
            self._length_is_due = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

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
        if self._loader is None:
            return
        if self._length_is_due:
            bridge.set_epoch_length(trainer, self._n_batches)
            self._length_is_due = False
        taken, plan = self._loader.batches.take(batch_idx), self.state.plan
        indices = torch.frombuffer(array("q", taken.indices), dtype=torch.int64)
        weights = None
        if plan.weights is not None:
            weights = plan.weights[torch.searchsorted(plan.indices, indices)]
            weights = weights.to(pl_module.device, non_blocking=True)
        if taken.n_unpadded < len(taken.indices):
            indices[taken.n_unpadded :] = self.store.n
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
        if self._loader is None:
            return
        if self._seen is not None:
            self.write(self._seen)
        self._batch = self._seen = None
        self.state.batches_done = batch_idx + 1
        if self._schedulers is not None and bridge.optimizer_steps_now(trainer):
            self._schedulers.catch_up(trainer, self.state, self._n_batches)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch, choose the samples of the next one, and change its length."""
        if self._loader is None or self.state.plan.epoch != trainer.current_epoch:
            return
        begun = time.perf_counter()
        self.state.seconds += begun - self._started
        following = self.state.plan.epoch + 1
        self._close_epoch(trainer)
        if not trainer.should_stop and following != self.max_epochs:
            self._rescore(trainer, following)
            self._begin(self._next_plan(following))
            self._measure_length(trainer)
            bridge.set_epoch_length(trainer, self._n_batches)
        self.history[-1]["select_seconds"] = time.perf_counter() - begun
        self._log(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give everything back as it was."""
        self._release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give everything back as it was, after an error or Ctrl-C too."""
        self._release()

    # ---- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed fit needs to be the same fit."""
        if self._store is None or self._state is None:
            return {}
        return {
            "n": self._store.n,
            "columns": self._store.state_dict(),
            "fit": self._state.state_dict(self._store.n),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the loader, and with it the number of samples, is known."""
        self._restored = state_dict or None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what all ranks have seen: only the first rank's state is written."""
        if self._store is not None and self._store.world_size > 1:
            self._store.merge()
            self._sum_counts()
            checkpoint["callbacks"][self.state_key] = self.state_dict()
            self._leave_counts_to_first_rank()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse the checkpoint of another method."""
        found = [key for key in checkpoint.get("callbacks", {}) if str(key).startswith(_STATE_PREFIX)]
        if found and self.state_key not in found:
            other = ", ".join(key.removeprefix(_STATE_PREFIX) for key in found)
            raise ValueError(
                f"The checkpoint was written by {other}, but this Trainer has {type(self).__name__}: the selection"
                f" cannot go on. Resume with {other}, or load the weights alone into a new fit."
            )

    def __getstate__(self) -> dict[str, Any]:
        """The state without what belongs to a fit under way: Lightning's bound ``log`` would drag the module along."""
        bare = object.__new__(type(self))
        bare.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("log", "log_dict")})
        bare._drop_live_parts()
        return bare.__dict__

    # ---- inside --------------------------------------------------------------------------------------------------

    @property
    def ranks_by_loss(self) -> bool:
        """Whether the score is the last loss, as it is by default: one column then does for both."""
        return type(self).observe is Method.observe

    def _refuse_second_selector(self, trainer: pl.Trainer) -> None:
        names = [type(c).__name__ for c in trainer.callbacks if isinstance(c, DataSelector)]  # type: ignore[attr-defined]
        if len(names) > 1:
            raise ValueError(
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

    def _take_loader(self, trainer: pl.Trainer, loader: object) -> object:
        world_size, rank = bridge.sampler_ranks(trainer)
        prepared = prepare(loader, seed=self.seed, world_size=world_size, rank=rank)
        first, self._loader = self._loader is None, prepared
        self.max_epochs = bridge.planned_epochs(trainer)
        self._open_store(prepared.n, trainer.world_size)
        if self._restored is not None:
            self.store.load_state_dict(self._restored["columns"])
            self._state = FitState.from_state_dict(self._restored["fit"], prepared.n)
            self._leave_counts_to_first_rank()
            self._restored = None
        if self._state is None:
            self._state = FitState(self._next_plan(trainer.current_epoch))
        if first:
            self._warn_if_idle()
        self._state.plan = prepared.follow(self._state.plan, self._state.batches_done)
        # configure_optimizers may ask for the loader to build schedules on: they count full epochs
        prepared.sampler.announce_full = first
        return self.feed(prepared.loader)

    def _warn_if_idle(self) -> None:
        epochs = range(self.max_epochs or 0)
        if self.prune_ratio > 0 and epochs and all(self.trains_on_everything(epoch) for epoch in epochs):
            rank_zero_warn(
                f"{type(self).__name__} will drop nothing: warmup_epochs={self.warmup_epochs} and anneal={self.anneal}"
                f" leave none of the {self.max_epochs} epochs to prune. Lower them, or train for more epochs."
            )

    def _open_store(self, n: int, world_size: int) -> None:
        known = {
            "checkpoint was written with": self._restored and self._restored["n"],
            "fit began with": self._store and self._store.n,
        }
        for origin, before in known.items():
            if before is not None and before != n:
                raise ValueError(
                    f"The {origin} a data set of {before} samples, but the train loader's has {n}:"
                    " the scores belong to other samples. Use the same data set, or load the"
                    " weights alone into a new fit."
                )
        if round((1 - self.prune_ratio) * n) < 1:
            raise ValueError(
                f"prune_ratio={self.prune_ratio} leaves 0 of {n} samples: nothing is left to train"
                f" on. Give at most {(n - 1) / n:.3g}."
            )
        if self._store is None:
            columns = self.columns() | ({"class": math.nan} if self.balance else {})
            self._store = ScoreStore(n, columns, world_size, score_is_loss=self.ranks_by_loss)

    def _next_plan(self, epoch: int) -> EpochPlan:
        if self.trains_on_everything(epoch):
            return EpochPlan(epoch, torch.arange(self.store.n))
        if not self.selects_anew(epoch) and self._state is not None:
            before = self._state.plan
            if not self.trains_on_everything(before.epoch):
                return EpochPlan(epoch, before.indices, before.weights)
        generator = epoch_generator(self.seed, epoch, "select")
        if self.balance:
            among = functools.partial(self._select_among, epoch)
            chosen = select_by_class(among, self.store.column("class"), generator)
        else:
            chosen = self.select(epoch, self.store.column("score"), generator)
        chosen = check_selection(chosen, self.store.n, type(self).__name__)
        return EpochPlan(epoch, chosen.indices, chosen.weights)

    def _select_among(self, epoch: int, members: Tensor, generator: torch.Generator) -> Selection:
        self._members = members
        chosen = self.select(epoch, self.column("score"), generator)
        self._members = None
        return chosen

    def _rescore(self, trainer: pl.Trainer, epoch: int) -> None:
        stale = self.samples_to_rescore(epoch) if self.rescores and self.selects_anew(epoch) else None
        if stale is None or stale.numel() == 0:
            return
        self.rescoring = True
        assert self._loader is not None and self._reader is not None and self._step is not None
        for indices, reading in score_samples(
            trainer, self._loader, stale, self._step, self._reader, self.store["loss"]
        ):
            self.count_samples(forward=indices.numel(), backward=0)
            self.write(self._observation(indices, reading))
        self.rescoring = False
        self.store.merge()
        self._sum_counts()
        record = self.history[-1]
        record["n_forward"] += self.state.n_forward
        self.state.n_forward = self.state.n_measured = 0

    def _observation(self, indices: Tensor, reading: Reading) -> Observation:
        losses, epoch = reading.losses, self.state.plan.epoch
        if not self.ranks_by_loss:
            # not finite becomes NaN without a look at it: infinity would stay in moving averages for good
            losses = losses + losses * 0
        return Observation(indices, losses, reading.logits, reading.targets, epoch, reading.outputs)

    def _begin(self, plan: EpochPlan) -> None:
        assert self._loader is not None
        self.state.begin(self._loader.follow(plan))

    def _measure_length(self, trainer: pl.Trainer) -> None:
        assert self._loader is not None
        self._loader.sampler.announce_full = False
        self._n_batches = bridge.limited_batches(trainer, len(self._loader.batches))

    def _take_over_schedulers(self, trainer: pl.Trainer) -> None:
        """Keep step-wise schedules in time from here on; an endless fit has no end that they could reach."""
        assert self._loader is not None
        automatic = trainer.lightning_module.automatic_optimization
        if self.lr_schedule == "steps" or self.max_epochs is None or not automatic or not trainer.lr_scheduler_configs:
            return
        self._loader.sampler.announce_full = True
        full_batches = bridge.limited_batches(trainer, len(self._loader.batches))
        self._loader.sampler.announce_full = False
        unpruned = UnprunedFit(full_batches, self.max_epochs, trainer.accumulate_grad_batches, trainer.max_steps)
        self._schedulers = StretchedSchedulers(trainer, unpruned)
        self._undo.append(self._schedulers.give_back)
        self._schedulers.start(trainer, self.state, self._n_batches)

    def _close_epoch(self, trainer: pl.Trainer) -> None:
        self.store.merge()
        self._sum_counts()
        if not self._warned_of_losses and (bad := self._count_non_finite()):
            self._warned_of_losses = True
            rank_zero_warn(
                f"The losses of {bad} samples of epoch {self.state.plan.epoch} were NaN or infinite. Training goes on"
                f" as it would without {type(self).__name__}; such samples count as never measured and are kept."
            )
        self.store["loss"].masked_fill_(self.store["loss"].isinf(), torch.nan)
        self.state.close(self.store.n)

    def _sum_counts(self) -> None:
        """Give every rank the counts of all."""
        if self.store.world_size > 1:
            state = self.state
            counts = [state.n_forward, state.n_backward, state.n_measured]
            summed = torch.tensor(counts, device=self.store["loss"].device)
            dist.all_reduce(summed)
            state.n_forward, state.n_backward, state.n_measured = summed.tolist()

    def _leave_counts_to_first_rank(self) -> None:
        """Go on counting from what all ranks have, without counting it once a rank."""
        if self._rank > 0:
            self.state.n_forward = self.state.n_backward = self.state.n_measured = 0

    def _count_non_finite(self) -> int:
        """How many samples of the epoch were measured and have no finite loss; fewer, if it was cut short."""
        if self._reader is None or self._reader.blind:
            return 0
        plan = self.state.plan
        drawn = plan.indices if plan.order is None else plan.order.unique()
        left_out = max(drawn.numel() - self.state.n_measured, 0)
        return max(int((~self.store.column("loss")[drawn].isfinite()).sum()) - left_out, 0)

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.barebones:
            return
        record = self.history[-1]
        saved = sum(r["n_total"] - r["n_backward"] for r in self.history)
        pl_module.log("dataselect/kept_share", record["n_selected"] / record["n_total"], prog_bar=True)
        values = {"samples_saved": float(saved), "select_seconds": record["select_seconds"]}
        scores = self.scores[:: max(1, self.store.n // _MAX_QUANTILE_SAMPLES)]
        if (known := scores[~scores.isnan()]).numel():
            quantiles = known.quantile(torch.tensor([0.1, 0.5, 0.9]))
            values |= {f"score_q{q}": float(v) for q, v in zip((10, 50, 90), quantiles, strict=True)}
        pl_module.log_dict({f"dataselect/{name}": value for name, value in values.items()})

    def _release(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._drop_live_parts()
