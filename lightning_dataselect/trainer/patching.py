"""Private names of Lightning: check that they exist, the error if they do not, and patching one for a fit."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl

from lightning_dataselect.utils.errors import UnsupportedTrainerError

Restore = Callable[[], None]


def missing(target: object, path: str) -> bool:
    """Return whether there is no attribute at the end of a dotted path."""
    for name in path.split("."):
        if not hasattr(target, name):
            return True
        target = getattr(target, name)
    return False


def refusal(what: str, path: str) -> UnsupportedTrainerError:
    """Return the error for a fit that needs the missing name at ``path``; ``what`` says what it is needed for."""
    return UnsupportedTrainerError(
        f"This lightning ({pl.__version__}) has no {path}, without which {what}. Use a release of lightning that this"
        " lightning-dataselect was tested with, 2.5 or 2.6, or a newer lightning-dataselect."
    )


def patch_attribute(target: object, name: str, value: object) -> Restore:
    """Set the attribute ``name`` on an instance, in a way that can be undone exactly."""
    attributes = target.__dict__
    nothing = object()
    before = attributes.get(name, nothing)
    attributes[name] = value

    def undo() -> None:
        if before is nothing:
            attributes.pop(name, None)
        else:
            attributes[name] = before

    return undo
