"""Learning rates: step the schedulers in the Trainer's place, and scale the rates that an optimizer steps with."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer

from lightning_dataselect.trainer.patching import Restore, missing, patch_attribute

_ALSO_SCHEDULED = {"weight_decay": "weight decay", "momentum": "momentum", "betas": "momentum"}


def take_over_schedulers(trainer: pl.Trainer, intervals: Collection[str]) -> tuple[list[int | None], Restore]:
    """Keep Lightning from stepping the schedulers with one of these ``intervals``, ``"step"`` and ``"epoch"``.

    Returns:
        The ``frequency`` of each scheduler, None for one that is left to Lightning, as all that depend on metrics are;
        and a function that gives the others back.
    """
    configs = list(trainer.lr_scheduler_configs)
    taken = [config.interval in intervals and not config.reduce_on_plateau for config in configs]
    frequencies = [config.frequency for config in configs]
    for config, ours in zip(configs, taken, strict=True):
        if ours:
            config.frequency = sys.maxsize

    def undo() -> None:
        for config, frequency in zip(configs, frequencies, strict=True):
            config.frequency = frequency

    return [frequency if ours else None for frequency, ours in zip(frequencies, taken, strict=True)], undo


def step_lr_scheduler(trainer: pl.Trainer, scheduler: Any, global_step: int, epoch: int) -> None:
    """Step ``scheduler`` as Lightning does, through the module's own ``lr_scheduler_step``.

    Args:
        trainer: The Trainer.
        scheduler: One of its schedulers.
        global_step: The value of ``trainer.global_step`` meanwhile, which some schedulers depend on.
        epoch: That of ``trainer.current_epoch``.
    """
    module = trainer.lightning_module
    progress = "epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed"
    if missing(trainer.fit_loop, progress) or missing(trainer.fit_loop, "epoch_progress.current.completed"):
        module.lr_scheduler_step(scheduler, None)
        return
    steps = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    epochs = trainer.fit_loop.epoch_progress.current
    with_selector = steps.completed, epochs.completed
    steps.completed, epochs.completed = global_step, epoch
    try:
        module.lr_scheduler_step(scheduler, None)
    finally:
        steps.completed, epochs.completed = with_selector


def intercept_scheduler_calls(trainer: pl.Trainer, call: Callable[[int, Callable[[], None]], None]) -> Restore:
    """Pass every ``step()`` that the module's own code calls on one of its schedulers through ``call``.

    Args:
        trainer: The Trainer, its schedulers set up.
        call: Called with the index of the scheduler, in the Trainer's order, and a function that steps it once.

    Returns:
        A function that undoes the interception. A step that is passed an epoch or a metric is left alone.
    """
    undos = [
        patch_attribute(config.scheduler, "step", _passed_on(which, config.scheduler.step, call))
        for which, config in enumerate(trainer.lr_scheduler_configs)
        if not config.reduce_on_plateau
    ]

    def undo() -> None:
        for each in undos:
            each()

    return undo


def _passed_on(
    which: int, step: Callable[..., None], call: Callable[[int, Callable[[], None]], None]
) -> Callable[..., None]:
    @functools.wraps(step)
    def passed_on(*args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            step(*args, **kwargs)
        else:
            call(which, step)

    return passed_on


def scheduled_settings(trainer: pl.Trainer) -> dict[str, list[float]]:
    """Return the learning rate of every parameter group, and what else is commonly scheduled of each optimizer's first.

    Numbers that would have to be waited for are left out.
    """
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    found = {"learning rate": [float(rate) for rate in rates if not getattr(rate, "is_cuda", False)]}
    for optimizer in trainer.optimizers:
        group = optimizer.param_groups[0]
        for key, name in _ALSO_SCHEDULED.items():
            value = group.get(key)
            value = value[0] if isinstance(value, tuple | list) else value
            if isinstance(value, float):  # betas may be tensors
                found.setdefault(name, []).append(value)
    return found


def scale_learning_rate(optimizer: Optimizer, factor: Callable[[], float]) -> Restore:
    """Multiply the learning rates of ``optimizer`` only while it steps, so that schedulers see their own values."""
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
        restore()  # a step that failed has not restored the rates
        for handle in handles:
            handle.remove()

    return undo
