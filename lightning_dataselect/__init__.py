"""PyTorch Lightning callbacks that train on the samples that are worth it.

Add one callback to a Trainer; the LightningModule, the datamodule and the loaders stay as they are:

>>> import lightning.pytorch as pl
>>> from lightning_dataselect import InfoBatch
>>> trainer = pl.Trainer(max_epochs=30, callbacks=[InfoBatch(prune_ratio=0.5)], logger=False, accelerator="cpu")
"""

from typing import TYPE_CHECKING, Any

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods import *  # noqa: F403
from lightning_dataselect.methods import __all__ as _methods
from lightning_dataselect.methods.registry import list_methods
from lightning_dataselect.state.selection import Observation, Selection

if TYPE_CHECKING:
    from lightning_dataselect.comparison.api import compare as compare

__version__ = "0.1.0"
__all__ = ["BatchSelector", "DataSelector", "Observation", "Selection", "list_methods", *_methods]


def __getattr__(name: str) -> Any:
    # compare needs what the report extra installs, which a training machine may lack
    if name == "compare":
        try:
            from lightning_dataselect.comparison.api import compare
        except ModuleNotFoundError as error:
            raise ImportError(
                f"lightning_dataselect.compare needs {error.name}: pip install 'lightning-dataselect[report]'"
            ) from error
        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
