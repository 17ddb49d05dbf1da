"""Learning rates: stepping the Trainer's schedulers in its place, and scaling what an optimizer steps with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer

from lightning_dataselect.trainer.patching import Restore


def take_over_step_schedulers(trainer: pl.Trainer) -> tuple[list[int | None], Restore]:
    """Keep Lightning from stepping the schedulers that go by steps.

    Returns:
        The ``frequency`` of each scheduler, None for one that goes by epochs or metrics and is left to Lightning; and
        what gives the others back.
    """
    configs = list(trainer.lr_scheduler_configs)
    taken = [config.interval == "step" and not config.reduce_on_plateau for config in configs]
    frequencies = [config.frequency for config in configs]
    for config, ours in zip(configs, taken, strict=True):
        if ours:
            config.frequency = sys.maxsize

    def undo() -> None:
        for config, frequency in zip(configs, frequencies, strict=True):
            config.frequency = frequency

    return [frequency if ours else None for frequency, ours in zip(frequencies, taken, strict=True)], undo


def step_lr_scheduler(trainer: pl.Trainer, scheduler: Any) -> None:
    """Step ``scheduler`` as Lightning does, through the module's own ``lr_scheduler_step``."""
    trainer.lightning_module.lr_scheduler_step(scheduler, None)


def scale_learning_rate(optimizer: Optimizer, factor: Callable[[], float]) -> Restore:
    """Multiply the learning rates of ``optimizer`` while it steps, and only then: schedulers see their own values."""
    before: list[Any] = []

    def scale(*_: Any) -> None:
        before[:] = [group["lr"] for group in optimizer.param_groups]
        if (factor_now := factor()) != 1.0:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor_now

    def restore(*_: Any) -> None:
        for group, lr in zip(optimizer.param_groups, before, strict=bool(before)):
            group["lr"] = lr
        before.clear()

    handles = optimizer.register_step_pre_hook(scale), optimizer.register_step_post_hook(restore)

    def undo() -> None:
        restore()  # a step that failed never came to its end
        for handle in handles:
            handle.remove()

    return undo
