"""A callback that the Trainers of ``lightning`` and of ``pytorch_lightning`` both take."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import lightning.pytorch as pl

_FIRST_TO_TAKE_ANY = (2, 6)


def _base() -> type[pl.Callback]:
    """Lightning's class, joined with that of a ``pytorch_lightning`` that takes no callbacks but its own."""
    try:
        major, minor, *_ = version("pytorch-lightning").split(".")
    except PackageNotFoundError:
        return pl.Callback
    if (int(major), int(minor)) >= _FIRST_TO_TAKE_ANY:
        return pl.Callback
    return type("Callback", (pl.Callback, import_module("pytorch_lightning").Callback), {"__module__": __name__})


if TYPE_CHECKING:
    Callback = pl.Callback
else:
    Callback = _base()
