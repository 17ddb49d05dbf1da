"""Keep a step that only scores from writing to the Trainer's loggers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyExperiment

from lightning_dataselect.trainer.patching import Restore


class QuietLogger:
    """Behave like a logger, but write nothing.

    Args:
        logger: Its name, folder and settings are passed through; its methods and its experiment do nothing.

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
        """Return an object that accepts every call, and does nothing."""
        return DummyExperiment()

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the logger; calling it does nothing."""
        if name == "_logger":
            raise AttributeError(name)  # a copy that is being made has none yet
        value = getattr(self._logger, name)
        return _nothing if callable(value) else value


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def quiet_loggers(module: pl.LightningModule) -> Restore:
    """Replace the loggers of the module's Trainer, if it has one, by silent ones; return a function that undoes it."""
    try:
        trainer = module.trainer
    except RuntimeError:  # the module is attached to no Trainer
        return _nothing
    loggers = trainer.loggers
    if not loggers:
        return _nothing
    quiet: list[Any] = [QuietLogger(logger) for logger in loggers]
    trainer.loggers = quiet
    return lambda: setattr(trainer, "loggers", loggers)
