"""The arguments of a LightningModule's training step, and how a batch reaches it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import missing, refusal


def logging_parts(module: pl.LightningModule) -> list[Any]:
    """Find the LightningModules in ``module``, including itself, of either package: those with a ``log``."""
    return [part for part in module.modules() if callable(getattr(part, "log", None)) and hasattr(part, "log_dict")]


def takes_dataloader_iter(module: pl.LightningModule) -> bool:
    """Return whether ``training_step(dataloader_iter)`` fetches the batches itself."""
    return "dataloader_iter" in inspect.signature(module.training_step).parameters


def takes_batch_idx(step: Callable[..., Any]) -> bool:
    """Return whether ``training_step`` has an argument besides the batch: the batch's index."""
    return len(inspect.signature(step).parameters) > 1


def changes_batches(trainer: pl.Trainer) -> bool:
    """Return whether the module or the datamodule has hooks of its own that may change a batch on its way."""
    hooks = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
    owners = [owner for owner in (trainer.lightning_module, getattr(trainer, "datamodule", None)) if owner is not None]
    return any(_is_overridden(getattr(owner, hook, None)) for owner in owners for hook in hooks)


def _is_overridden(hook: Any) -> bool:
    written_in = getattr(inspect.unwrap(hook), "__module__", "") if callable(hook) else ""
    return bool(written_in) and written_in not in ("lightning.pytorch.core.hooks", "pytorch_lightning.core.hooks")


def batch_to_device(trainer: pl.Trainer, batch: Any) -> Any:
    """Transfer a batch as the training loop does, through the user's transfer hooks."""
    if missing(trainer.lightning_module, path := "_on_before_batch_transfer"):
        raise refusal("no samples can be scored by a pass of their own", f"LightningModule.{path}")
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
