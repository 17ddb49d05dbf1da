"""RHO-LOSS: of each batch, train on what the model has yet to learn and a model without these samples could.

Mindermann, Brauner, Razzak, Sharma, Kirsch, Xu, Höltgen, Gomez, Morisot, Farquhar, Gal, "Prioritized Training on Points
that are Learnable, Worth Learning, and Not Yet Learnt", ICML 2022, arXiv 2206.07137. With ``l_i`` the present loss of a
sample and ``h_i`` its irreducible loss, that by a model trained on held-out data:

    of each batch of B, train on the b with the highest  l_i - h_i

Noise (high ``h``) and what is learnt already (low ``l``) both rank low. Default b/B = 0.1, the paper's; there is no
warm-up. Without a held-out set the paper trains two models, each on one half of the training set, to measure the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.holdout import HoldoutModel, copy_to_train, fit_holdout, joined_losses, train_holdout
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.state.load_values import ValueSource, load_values
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.state.store import Identity, ScoreStore
from lightning_dataselect.trainer import shows_progress
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, TrainerSettingsError
from lightning_dataselect.utils.validation import check_count

_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def _function(hook: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: hook(*args, **kwargs)


def highest(scores: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return the positions of the ``k`` highest scores, on their device and without waiting for it.

    Args:
        scores: float32 (B,); NaN comes first.
        k: Number to choose, at most B.
        generator: On the device of ``scores``; breaks ties.

    Returns:
        int64 (k,).

    Example:
        >>> scores = torch.tensor([0.5, float("nan"), -1.0, 2.0])
        >>> sorted(highest(scores, 2, torch.Generator().manual_seed(0)).tolist())
        [1, 3]
    """
    tie_break = torch.rand(scores.shape, generator=generator, device=scores.device).argsort()
    ranked = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)[tie_break]
    return tie_break[ranked.argsort(descending=True, stable=True)[:k]]


class RHOLoss(WithinBatches, BatchSelector):
    """Score each batch, and train on the samples whose loss is furthest above their irreducible loss.

    Args:
        holdout_losses: float32 (N,), the irreducible loss of each training sample, for instance from
            :meth:`fit_holdout`; or a file with them, ``.pt``, ``.npy``, ``.csv`` or ``.parquet`` (column ``loss``, as
            ``export`` writes it). None cross-fits copies of the module on the two halves of the training set when the
            fit begins, on one device; what that costs is counted in the first record of ``history``.
        holdout_model: Instead of the losses, a module trained on held-out data, whose ``training_step`` takes the same
            batches. It measures each batch when it comes, which costs one more forward pass and also works on streams.
        batch_ratio: Share of each batch that is trained on, in (0, 1]. Default 0.1, the paper's.
        holdout_epochs: Epochs of the copies where ``holdout_losses`` is None. Default: as many as the fit's, which
            together costs as much as a fit without the callback: on Fashion-MNIST, copies trained for a quarter of it
            and less chose samples that cost the model four points. One epoch if only steps or time end the fit.
        warmup_epochs: Epochs on whole batches at the start. Default 0, the paper's.
        **common: Arguments of `BatchSelector` but ``prune_ratio``, ``every_n_epochs`` and ``balance``, which mean
            nothing here.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range, the losses are not finite, or, when the fit begins, if there is
            not one for each sample.

    Example:
        >>> selector = RHOLoss(holdout_losses=torch.tensor([0.1, 2.0, 0.3]))
        >>> selector.batch_ratio
        0.1
    """

    info: ClassVar[MethodInfo] = CATALOG["RHOLoss"]
    other_words: ClassVar[Mapping[str, str]] = {
        "percent_train": "batch_ratio",
        "irreducible_losses": "holdout_losses",
        "irreducible_loss": "holdout_losses",
        "irreducible_loss_generator": "holdout_model",
        "irreducible_loss_model": "holdout_model",
        "il_model": "holdout_model",
        "model": "holdout_model",
    }
    fit_holdout = staticmethod(fit_holdout)
    _untrained = FitLocal[pl.LightningModule | None](None)
    _measuring = FitLocal[HoldoutModel | None](None)

    def __init__(
        self,
        *,
        holdout_losses: ValueSource | None = None,
        holdout_model: pl.LightningModule | None = None,
        batch_ratio: float = 0.1,
        holdout_epochs: int | None = None,
        warmup_epochs: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(
            batch_ratio=batch_ratio,
            warmup_epochs=warmup_epochs,
            **common,
        )
        self.holdout_epochs = (
            None if holdout_epochs is None else check_count("holdout_epochs", holdout_epochs, minimum=1)
        )
        if isinstance(holdout_model, type) or not (
            holdout_model is None or callable(getattr(holdout_model, "training_step", None))
        ):
            raise ArgumentTypeError(
                f"holdout_model={holdout_model!r} is not a LightningModule: give one that was trained on held-out data,"
                " with its weights loaded."
            )
        if holdout_model is not None and (holdout_losses is not None or holdout_epochs is not None):
            other = "holdout_losses" if holdout_losses is not None else "holdout_epochs"
            raise InvalidArgumentError(
                f"holdout_model is given, and {other} too, which leaves nothing to measure: give one of the two."
            )
        if holdout_losses is not None and holdout_epochs is not None:
            raise InvalidArgumentError(
                f"holdout_epochs={holdout_epochs!r} is how long RHOLoss trains the models that measure the holdout"
                " losses, but holdout_losses= gives them: leave one of the two out."
            )
        self.holdout_model = holdout_model
        self._given: Tensor | None = None
        if holdout_losses is not None:
            self._given = load_values(holdout_losses, column="loss", argument="holdout_losses")
            if bad := int((~self._given.isfinite()).sum()):
                first = int((~self._given.isfinite()).nonzero()[0])
                raise InvalidArgumentError(
                    f"holdout_losses has {bad} entries that are NaN or infinite, the first of them for sample {first}:"
                    " measure every training sample, say with RHOLoss.fit_holdout(module, loader, max_epochs=10)."
                )

    @property
    def needs_one_loader(self) -> bool:
        """True if holdout models are trained on the samples and measure them."""
        return self._given is None and self.holdout_model is None

    def columns(self) -> dict[str, float]:
        """Name the column of the irreducible losses."""
        return {"holdout": math.nan}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Score by the reducible loss."""
        store["score"][seen.indices] = seen.losses - store["holdout"][seen.indices].nan_to_num(0)

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Take the ``k`` highest."""
        return highest(self.store["score"][seen.indices], k, generator)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep a copy of the module, as long as it is untrained, if holdout models are to be trained."""
        is_known = self._given is not None or self.holdout_model is not None
        untrained = None if stage != "fit" or is_known else copy_to_train(pl_module)
        super().setup(trainer, pl_module, stage)
        self._untrained = untrained

    def on_fit_setup(self, context: FitContext) -> None:
        """Get the held-out model ready to measure, if there is one."""
        super().on_fit_setup(context)
        if self.holdout_model is not None:
            self._measuring = HoldoutModel(self.holdout_model, context, self.sample_loss)
            context.add_cleanup(self._measuring.give_back)

    def look_at_batch(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: BatchSamples) -> None:
        """Have the held-out model measure the batch, if there is one."""
        if self._measuring is not None:
            self.store["holdout"][batch.indices] = self._measuring.losses_of(args, kwargs, batch.indices)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the irreducible losses, or measure them."""
        if self.context is None:
            return
        if self.holdout_model is None:
            self._take_up_losses(trainer, pl_module)
        self._untrained = None
        super().on_train_start(trainer, pl_module)

    def _take_up_losses(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.store.identity is not Identity.INDEX:
            raise InvalidArgumentError(
                "On a stream RHOLoss cannot look irreducible losses up, nor read the stream twice to cross-fit: give"
                " RHOLoss(holdout_model=...), a module trained on held-out data, which measures the samples as they"
                " pass."
            )
        holdout = self.store["holdout"][: self.store.n]
        if self._given is not None:
            if len(self._given) != self.store.n:
                raise InvalidArgumentError(
                    f"holdout_losses has {len(self._given)} entries, but the training set has {self.store.n} samples:"
                    " give one for each, in the order of the data set."
                )
            holdout.copy_(self._given)
        elif bool(holdout.isnan().all()):  # not so after a resume
            holdout.copy_(self._cross_fit(trainer, pl_module))

    def _cross_fit(self, trainer: pl.Trainer, module: pl.LightningModule) -> Tensor:
        if trainer.world_size > 1:
            raise TrainerSettingsError(
                "RHOLoss trains its holdout models on one device. With several, measure first, with losses ="
                " RHOLoss.fit_holdout(module, loader, max_epochs=10), and give RHOLoss(holdout_losses=losses)."
            )
        assert self._untrained is not None and self.context is not None
        for name in _TRANSFER_HOOKS:
            if trainer.datamodule is not None and is_overridden(name, trainer.datamodule):  # type: ignore[attr-defined]
                # a function, because a copy of a bound method copies the datamodule and the Trainer with it
                setattr(self._untrained, name, _function(getattr(trainer.datamodule, name)))  # type: ignore[attr-defined]
        device, n_epochs = module.device, self.holdout_epochs or self.max_epochs or 1
        rank_zero_info(
            f"RHOLoss first trains copies of the module on each half of the training set for {n_epochs} epochs, to"
            " measure the other half. RHOLoss(holdout_losses=...) takes what RHOLoss.fit_holdout has measured once."
        )
        runs = train_holdout(
            self._untrained,
            self.context.loader.given,
            None,
            seed=self.seed,
            sample_loss=self.sample_loss,
            max_epochs=n_epochs,
            accelerator=device.type,
            devices=1 if device.index is None or device.type == "cpu" else [device.index],
            precision=trainer.precision,
            enable_progress_bar=shows_progress(trainer),
        )
        losses = joined_losses(runs)
        records = [record for run in runs for record in run.history]
        self.state.count_samples(
            forward=len(losses) + sum(record["n_forward"] for record in records),
            backward=sum(record["n_backward"] for record in records),
        )
        return losses
