"""Losses of the training samples under a model that was trained without them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.compile import to_uncompiled
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.data.loader import prepare
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.numerics.sampling import uniform_subset
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.selection import Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.isolation import SideEffectGuard
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.step.sample_loss import SampleLoss
from lightning_dataselect.trainer import sampler_ranks
from lightning_dataselect.utils.errors import InvalidArgumentError, InvalidLoaderError, TrainerSettingsError

_TRAINER_DEFAULTS = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}


def fit_holdout(
    module: pl.LightningModule,
    train: DataLoader[Any] | pl.LightningDataModule,
    holdout: DataLoader[Any] | None = None,
    *,
    seed: int = 0,
    sample_loss: SampleLoss = "auto",
    **trainer_options: Any,
) -> Tensor:
    """Train copies of ``module`` on held-out data, and measure what each training sample loses by them.

    Without held-out data the training set is cross-fitted, as the paper does: it is cut in two halves at random, and a
    copy trained on each measures the other. Losses are measured in eval mode. The module given and the global random
    state are left as they are.

    Args:
        module: Untrained; its ``training_step`` gives the losses. A smaller one than that to be trained will do.
        train: The training data.
        holdout: Data that is not trained on, or None to cross-fit.
        seed: Seed of the halves and of the order.
        sample_loss: See `DataSelector`.
        **trainer_options: Arguments of ``lightning.pytorch.Trainer``; ``max_epochs`` above all. The paper stops where
            the held-out loss is lowest.

    Returns:
        float32 (N,), on the CPU.

    Raises:
        ValueError: If a loss is not finite, or there are fewer than two samples to cross-fit.

    Example:
        >>> from lightning_dataselect.methods import RHOLoss
        >>> losses = RHOLoss.fit_holdout(Net(), loader, max_epochs=10)  # doctest: +SKIP
    """
    runs = train_holdout(module, train, holdout, seed=seed, sample_loss=sample_loss, **trainer_options)
    return joined_losses(runs)


def train_holdout(
    module: pl.LightningModule,
    train: DataLoader[Any] | pl.LightningDataModule,
    holdout: DataLoader[Any] | None,
    *,
    seed: int,
    sample_loss: SampleLoss,
    callbacks: Sequence[pl.Callback] | pl.Callback | None = None,
    **trainer_options: Any,
) -> list[HoldoutRun]:
    """Make the runs of :func:`fit_holdout`: one, or one a half."""
    others = [callbacks] if isinstance(callbacks, pl.Callback) else list(callbacks or ())
    runs = []
    for half in (None,) if holdout is not None else (0, 1):
        target = None if holdout is None else _train_loader(train)
        run = HoldoutRun(half, target, seed=seed, sample_loss=sample_loss)
        with isolate_rng():
            trainer = pl.Trainer(**{**_TRAINER_DEFAULTS, **trainer_options}, callbacks=[run, *others])
            trainer.fit(copy_to_train(module), train if holdout is None else holdout)
        runs.append(run)
    return runs


def copy_to_train(module: pl.LightningModule) -> pl.LightningModule:
    """Copy a module without its compiled steps, which would go on training ``module``."""
    copied = copy.deepcopy(module)
    return copied if getattr(copied, "_compiler_ctx", None) is None else to_uncompiled(copied)


def joined_losses(runs: Sequence[HoldoutRun]) -> Tensor:
    """Return the loss of each sample in the run that measured it, float32 (N,).

    Raises:
        ValueError: If a loss is not finite.
    """
    losses = torch.stack([run.measured for run in runs]).nan_to_num(0).sum(0)
    unknown = torch.stack([run.measured.isnan() for run in runs]).all(0)
    if bool(unknown.any()):
        raise InvalidArgumentError(
            f"The holdout model gives {int(unknown.sum())} of {len(losses)} training samples a loss that is not finite,"
            f" the first of them sample {int(unknown.nonzero()[0])}. Train it longer, or with a smaller learning rate."
        )
    return losses


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cut ``n`` samples in two at random; the first half is the smaller one if ``n`` is odd.

    Raises:
        ValueError: If there are fewer than two.

    Example:
        >>> first, second = halves(5, seed=0)
        >>> len(first), torch.cat([first, second]).sort().values
        (2, tensor([0, 1, 2, 3, 4]))
    """
    if n < 2:
        raise InvalidLoaderError(f"A data set of {n} samples cannot be split into two halves: give held-out data.")
    first = torch.zeros(n, dtype=torch.bool)
    first[uniform_subset(n, n // 2, epoch_generator(seed, 0, "holdout"))] = True
    return first.nonzero().squeeze(1), (~first).nonzero().squeeze(1)


class HoldoutRun(DataSelector):
    """Train on one half of the samples, or on all of a held-out set, then measure the others.

    Args:
        half: The half that is trained on; None for all.
        target: The loader whose samples are measured; None for the other half.
        **common: Arguments of `DataSelector`.
    """

    def __init__(self, half: int | None, target: DataLoader[Any] | None, **common: Any) -> None:
        super().__init__(prune_ratio=0.0, warmup_epochs=0, whole_batches=False, **common)
        self.half = half
        self.target = target
        self.measured = torch.empty(0)
        """float32 (N,), what the samples lost that were not trained on; NaN for the others."""

    def trains_on_everything(self, epoch: int) -> bool:
        """Return whether there is a held-out set."""
        return self.half is None

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Select the half that is trained on."""
        assert self.half is not None
        return Selection(halves(len(scores), self.seed)[self.half])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the losses of the other samples."""
        context = self.context
        if context is None:
            raise TrainerSettingsError(
                "overfit_batches trains on a few batches only, which does not make a holdout model: remove it."
            )
        world_size, rank = sampler_ranks(trainer)
        loader = context.loader
        if self.target is not None:
            loader = prepare(self.target, seed=self.seed, world_size=world_size, rank=rank)
        others = torch.arange(loader.n) if self.half is None else halves(loader.n, self.seed)[1 - self.half]
        store = ScoreStore(loader.n, world_size=trainer.world_size)
        store.to(pl_module.device)
        for seen in context.score_samples(others, store, loader):
            store["loss"][seen.indices] = seen.losses
            store.mark_dirty(seen.indices)
        store.merge()
        self.measured = store.column("loss")


class HoldoutModel:
    """Measure what samples lose by a trained module as their batches pass; it is left as it is.

    Args:
        module: Trained on held-out data.
        context: The fit whose batches pass.
        sample_loss: Where per-sample losses come from, see `DataSelector`.
    """

    def __init__(self, module: pl.LightningModule, context: FitContext, sample_loss: SampleLoss) -> None:
        self._module = module
        self._context = context
        self._isolate = SideEffectGuard(module)
        self._reader = StepReader(module, sample_loss, required=True, keeps_infinite=False, method="The holdout_model")
        self._is_ready = False

    def losses_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor) -> Tensor:
        """Return what the samples of a batch lose, float32 (B,), NaN where that was not finite.

        Args:
            args: Positional arguments of the training step.
            kwargs: Its keyword arguments.
            indices: int64 (B,), the samples' slots.
        """
        context, module, reader = self._context, self._module, self._reader
        if not self._is_ready:
            self._is_ready = True
            module.to(context.module.device)
            module.trainer = context.module.trainer
            batches, own = reader.batches, context.reader.batches
            batches.loader, batches.part = own.loader, own.part
        context.run.fit.count_samples(forward=indices.numel(), backward=0)
        with self._isolate():
            return reader.score(module.training_step, args, kwargs, indices, context.store, context.epoch).losses

    def give_back(self) -> None:
        """Let go of the Trainer."""
        self._module.trainer = None


def _train_loader(train: DataLoader[Any] | pl.LightningDataModule) -> DataLoader[Any]:
    if not isinstance(train, pl.LightningDataModule):
        return train
    train.prepare_data()
    train.setup("fit")
    loader: DataLoader[Any] = train.train_dataloader()
    return loader
