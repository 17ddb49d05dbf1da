"""A callback that the Trainers of ``lightning`` and of ``pytorch_lightning`` both take."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NoReturn

import lightning.pytorch as pl

from lightning_dataselect.callbacks.fit_local import without_fit_locals
from lightning_dataselect.trainer import HOOKS_OF_A_BATCH
from lightning_dataselect.utils.arguments import call_text, refuse_unnamed
from lightning_dataselect.utils.errors import UnsupportedTrainerError

_FIRST_TO_TAKE_ANY = (2, 6)


def _base() -> type[pl.Callback]:
    """Lightning's class, joined with that of a ``pytorch_lightning`` that takes no callbacks but its own."""
    try:
        major, minor, *_ = version("pytorch-lightning").split(".")
    except PackageNotFoundError:
        return pl.Callback
    if (int(major), int(minor)) >= _FIRST_TO_TAKE_ANY:
        return pl.Callback
    return type("_Base", (pl.Callback, import_module("pytorch_lightning").Callback), {"__module__": __name__})


if TYPE_CHECKING:
    from typing_extensions import Self

    _Base = pl.Callback
else:
    _Base = _base()


class Callback(_Base):
    """Base class of the callbacks, which tells at once where they are of no use.

    Fabric and Hugging Face's Trainer take a list of callbacks too, and would call none of the hooks that matter.
    """

    _call: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Write down the call, for :meth:`__repr__`: arguments are not all kept, and some under other names."""
        refuse_unnamed(cls, args)
        made = super().__new__(cls)
        made._call = call_text(cls, args, kwargs)
        return made

    def __repr__(self) -> str:
        return self._call

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a fit under way: Lightning's bound ``log`` would drag the module along."""
        own = {name: value for name, value in without_fit_locals(self).items() if name not in ("log", "log_dict")}
        return {name: value for name, value in own.items() if name not in HOOKS_OF_A_BATCH or value is not None}

    def on_after_setup(self, **given: object) -> NoReturn:
        """Refuse Fabric, which calls this when it sets up a module."""
        self._refuse("Fabric, whose loop is your own")

    def on_init_end(self, *given: object, **named: object) -> NoReturn:
        """Refuse Hugging Face's Trainer, which calls this when it has been made."""
        self._refuse("the Trainer of Hugging Face: call the model in a LightningModule's training_step")

    def _refuse(self, other: str) -> NoReturn:
        raise UnsupportedTrainerError(
            f"{type(self).__name__} is a callback of lightning.Trainer and cannot work in {other}. In a loop of your"
            " own, lightning_dataselect.capture.LossCapture gives the per-sample losses to choose by."
        )
