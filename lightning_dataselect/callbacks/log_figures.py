"""Figures about a selector, sent to a logger that accepts images."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_dataselect.callbacks.base import LightningOnly
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.utils.arguments import refuse_unknown
from lightning_dataselect.utils.errors import InvalidArgumentError, TrainerSettingsError
from lightning_dataselect.utils.extras import require_report_extra
from lightning_dataselect.utils.validation import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = ("score_histogram", "data_map", "gallery")


class LogFigures(LightningOnly):
    """Send the score histogram, the data map and the gallery to TensorBoard or Weights & Biases.

    Add it to the Trainer's callbacks next to a selector; without one of these loggers it warns and does nothing. The
    gallery is left out if the samples are neither images nor text; drawing it reads up to forty of them.

    Args:
        every_n_epochs: Number of epochs between two sets of figures; the last epoch always has one.

    Raises:
        UnexpectedArgumentError: If it is given another argument.
        MissingExtraError: If matplotlib or pandas is not installed.
        ValueError: If ``every_n_epochs`` is below 1.

    Example:
        >>> from lightning_dataselect import InfoBatch
        >>> trainer = pl.Trainer(callbacks=[InfoBatch(), LogFigures(every_n_epochs=5)], accelerator="cpu", logger=False)
    """

    def __init__(self, every_n_epochs: int = 5, **unknown: object) -> None:
        refuse_unknown(type(self), unknown)
        self.every_n_epochs = check_count("every_n_epochs", every_n_epochs, minimum=1)
        require_report_extra("LogFigures", "matplotlib", "pandas")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the selector to draw, and a logger that accepts images.

        Raises:
            TrainerSettingsError: If there is no selector.
        """
        if stage != "fit":
            return
        if not _selectors(trainer):
            raise TrainerSettingsError(
                "LogFigures draws what a selector does, but the Trainer has none: add one to its callbacks, such as"
                " RandomPruning(prune_ratio=0), which drops nothing."
            )
        if not any(map(_takes_pictures, trainer.loggers)):
            rank_zero_warn(
                "LogFigures does nothing: none of the Trainer's loggers accepts pictures. Give it a TensorBoardLogger"
                " or a WandbLogger."
            )

    @rank_zero_only
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, if it is time."""
        done = trainer.current_epoch + 1
        loggers = [logger for logger in trainer.loggers if _takes_pictures(logger)]
        if not loggers or not (done % self.every_n_epochs == 0 or done == trainer.max_epochs):
            return
        for selector, kind in product(_selectors(trainer), _KINDS):
            try:
                figure = selector.plot(kind)
            except InvalidArgumentError:  # nothing measured yet, or samples that cannot be shown
                continue
            room = f"dataselect/{selector.loader}" if selector.has_company else "dataselect"
            for logger in loggers:
                _send(logger, f"{room}/{kind}", figure, trainer.global_step)


def _selectors(trainer: pl.Trainer) -> list[DataSelector]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, DataSelector)]


def _takes_pictures(logger: Any) -> bool:
    return hasattr(logger, "log_image") or _is_tensorboard(logger)


def _is_tensorboard(logger: Any) -> bool:
    return any(cls.__name__ == "TensorBoardLogger" for cls in type(logger).__mro__)


def _send(logger: Any, name: str, figure: Figure, step: int) -> None:
    if _is_tensorboard(logger):
        logger.experiment.add_figure(name, figure, step, close=False)  # pyplot does not know it, to close it
    else:
        logger.log_image(name, [figure], step=step)
