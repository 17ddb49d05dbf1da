"""Let a step that only scores write nothing to the Trainer's loggers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyExperiment

from lightning_dataselect.trainer.patching import Restore


class QuietLogger:
    """Answer as a logger does, and write nothing.

    Args:
        logger: Its name, folder and settings are told; its methods and its experiment are silent.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> quiet = QuietLogger(CSVLogger("runs", name="mine", version=3))
        >>> quiet.log_metrics({"loss": 1.0}, step=0)
        >>> quiet.experiment.add_scalar("loss", 1.0)
        >>> quiet.name, quiet.version
        ('mine', 3)
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def experiment(self) -> DummyExperiment:
        """Return what takes every call, and does nothing."""
        return DummyExperiment()

    def __getattr__(self, name: str) -> Any:
        """Return what else the logger has; nothing comes of a call."""
        if name == "_logger":
            raise AttributeError(name)  # a copy in the making has none yet
        value = getattr(self._logger, name)
        return _nothing if callable(value) else value


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def quiet_loggers(module: pl.LightningModule) -> Restore:
    """Put silent loggers in the places of those of the module's Trainer, if it has one; return what undoes it."""
    try:
        trainer = module.trainer
    except RuntimeError:  # it is attached to none
        return _nothing
    loggers = trainer.loggers
    if not loggers:
        return _nothing
    quiet: list[Any] = [QuietLogger(logger) for logger in loggers]
    trainer.loggers = quiet
    return lambda: setattr(trainer, "loggers", loggers)
