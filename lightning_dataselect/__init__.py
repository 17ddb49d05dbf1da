"""PyTorch Lightning callbacks that train on the samples that are worth it.

Add one callback to a Trainer; the LightningModule, the datamodule and the loaders stay as they are:

>>> import lightning.pytorch as pl
>>> from lightning_dataselect import InfoBatch
>>> trainer = pl.Trainer(max_epochs=30, callbacks=[InfoBatch(prune_ratio=0.5)], logger=False, accelerator="cpu")
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lightning_dataselect import methods as _methods
from lightning_dataselect.methods.registry import list_methods
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import DataSelectError, MissingExtraError
from lightning_dataselect.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from lightning_dataselect.callbacks.batch_selector import BatchSelector
    from lightning_dataselect.callbacks.log_figures import LogFigures
    from lightning_dataselect.callbacks.selector import DataSelector
    from lightning_dataselect.comparison.api import compare as compare
    from lightning_dataselect.methods import *  # noqa: F403
    from lightning_dataselect.numerics.ratio_schedule import RatioSchedule
    from lightning_dataselect.state.selection import Observation, Selection

__all__ = [
    "BatchSelector",
    "DataSelectError",
    "DataSelector",
    "LogFigures",
    "Observation",
    "RatioSchedule",
    "Selection",
    "list_methods",
    *_methods.__all__,
]

# What needs torch and Lightning is imported when it is first asked for: the command line mostly answers without.
_HOMES = {
    "BatchSelector": "callbacks.batch_selector",
    "DataSelector": "callbacks.selector",
    "LogFigures": "callbacks.log_figures",
    "Observation": "state.selection",
    "RatioSchedule": "numerics.ratio_schedule",
    "Selection": "state.selection",
    "compare": "comparison.api",
    **{method.name: f"methods.{method.module}" for method in list_methods()},
}

if not TYPE_CHECKING:  # so that a type checker knows a wrong name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, _HOMES)}")
        try:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        except ModuleNotFoundError as error:
            if name != "compare":
                raise
            raise MissingExtraError(
                f"{__name__}.compare needs {error.name}: pip install 'lightning-dataselect[report]'."
            ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
