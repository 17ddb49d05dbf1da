"""A callback that the Trainers of both ``lightning`` and ``pytorch_lightning`` accept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NoReturn

import lightning.pytorch as pl

from lightning_dataselect.callbacks.fit_local import without_fit_locals
from lightning_dataselect.callbacks.state_key import class_given
from lightning_dataselect.trainer import HOOKS_OF_A_BATCH
from lightning_dataselect.utils.arguments import call_text, refuse_unnamed, refuse_without_effect
from lightning_dataselect.utils.errors import UnsupportedTrainerError

_FIRST_TO_TAKE_ANY = (2, 6)
_FABRIC = "Fabric, whose loop is your own"
# no hook of a batch: Fabric's users set up a module before that, and it would add a call to each step
_HOOKS_OF_A_FIT = frozenset(
    "setup on_fit_start on_train_start on_train_epoch_start on_train_epoch_end on_train_end on_fit_end"
    " on_validation_start on_validation_end teardown".split()
)


def _base() -> type[pl.Callback]:
    """Lightning's class, combined with that of ``pytorch_lightning``, which accepts only its own callbacks."""
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


class LightningOnly(_Base):
    """Refuse at once to work outside Lightning's Trainer.

    Fabric and Hugging Face's Trainer take a list of callbacks too, and would call none of the hooks that matter.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the hooks of a fit say what is wrong if they are called without a Trainer."""
        super().__init_subclass__(**options)
        for name in _HOOKS_OF_A_FIT & vars(cls).keys():
            setattr(cls, name, _of_trainer(vars(cls)[name]))

    def on_after_setup(self, **given: object) -> NoReturn:
        """Refuse Fabric, which calls this when it sets up a module."""
        raise _refusal(self, _FABRIC)

    def on_init_end(self, *given: object, **named: object) -> NoReturn:
        """Refuse Hugging Face's Trainer, which calls this at the end of its construction."""
        raise _refusal(self, "the Trainer of Hugging Face: call the model in a LightningModule's training_step")

    def on_exception(self, *given: Any) -> None:
        """Do nothing: given a class in place of a callback, Lightning calls this without an instance."""


def _of_trainer(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a hook so that it refuses to be called without a Trainer, as by ``Fabric.call``."""

    @functools.wraps(hook)
    def called(self: Any, *args: Any, **named: Any) -> Any:
        if not isinstance(self, LightningOnly):
            raise class_given(hook.__qualname__.partition(".")[0])
        if len(args) + len(named) < 2:  # of trainer and pl_module
            raise _refusal(self, _FABRIC)
        return hook(self, *args, **named)

    return called


for _name in _HOOKS_OF_A_FIT:  # hooks that a callback does not define would fail with Python's own error
    setattr(LightningOnly, _name, _of_trainer(getattr(_Base, _name)))


def _refusal(callback: object, other: str) -> UnsupportedTrainerError:
    return UnsupportedTrainerError(
        f"{type(callback).__name__} is a callback of lightning.Trainer and cannot work in {other}. In a loop of your"
        " own, lightning_dataselect.capture.LossCapture gives the per-sample losses to choose by."
    )


class Callback(LightningOnly):
    """Base class of the selectors: its repr is the call that made it, and copies leave out the current fit."""

    _call: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the call for :meth:`__repr__`: not all arguments are kept, and some have other names."""
        refuse_unnamed(cls, args)
        refuse_without_effect(cls, kwargs)
        made = super().__new__(cls)
        made._call = call_text(cls, args, kwargs)
        return made

    def __repr__(self) -> str:
        return self._call

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the current fit: Lightning's bound ``log`` would drag the module along."""
        own = {name: value for name, value in without_fit_locals(self).items() if name not in ("log", "log_dict")}
        return {name: value for name, value in own.items() if name not in HOOKS_OF_A_BATCH or value is not None}
