"""Log for samples: by a shorter way than the module's ``log``, and for as many samples as were trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_dataselect.trainer.patching import missing

_NAMES = ("trainer._results", "trainer._logger_connector._current_fx", "_current_fx_name")
_LIGHTNINGS = {"lightning.pytorch.core.module", "pytorch_lightning.core.module"}


def log_again(module: pl.LightningModule, name: str, value: float | Tensor, **options: Any) -> None:
    """Log a number under a name that has the same options in every epoch.

    Lightning moves all that it keeps of a number to the device that it is on, and takes it apart for that: a third of a
    millisecond each time. Where it knows the name from an epoch before, and nobody has taken the place of
    ``log``, the number is given to what it keeps.

    Args:
        module: The LightningModule, within a hook that may log.
        name: As in its ``log``.
        value: One number.
        **options: As in its ``log``.
    """
    kept = _kept_under(module, name)
    if not isinstance(value, Tensor):
        value = torch.tensor(value, dtype=torch.get_default_dtype(), device=module.device)
    if kept is None or kept.value.device != value.device:
        module.log(name, value, **options)
        return
    kept.forward(value.detach().clone(), 1)
    kept.has_reset = False
    trainer: Any = module.trainer
    # what others log in the same hook would otherwise be taken for the first of an epoch, before which all is reset
    trainer._logger_connector._current_fx = module._current_fx_name


@contextmanager
def logging_for(module: pl.LightningModule, batch: Any) -> Iterator[None]:
    """Let what is logged meanwhile count for the samples of ``batch``, in place of the one that the loader yielded.

    A mean over an epoch weighs the steps by the size of their batches, which Lightning looks up when it is needed.
    """
    results: Any = None if missing(module, "trainer._results.batch_size") else module.trainer._results
    if results is None:
        yield
        return
    before = results.batch, results.batch_size
    results.batch, results.batch_size = batch, None
    try:
        yield
    finally:
        results.batch, results.batch_size = before


def _kept_under(module: pl.LightningModule, name: str) -> Any:
    """Return what Lightning keeps of the numbers under a name; None where only ``log`` knows what to do."""
    if any(missing(module, path) for path in _NAMES) or not _is_lightnings_own(module.log):
        return None
    results: Any = module.trainer._results
    kept = (results or {}).get(f"{module._current_fx_name}.{name}")
    return kept if isinstance(getattr(kept, "value", None), Tensor) else None


def _is_lightnings_own(log: Any) -> bool:
    """Tell if a module's ``log`` is Lightning's, behind no wrapper but those of this package."""
    # by where code was written: a wrapper has the names of what it wraps
    while _written_in(log).partition(".")[0] == __name__.partition(".")[0]:
        log = log.__wrapped__
    return _written_in(getattr(log, "__func__", None)) in _LIGHTNINGS


def _written_in(function: Any) -> str:
    return str(getattr(function, "__globals__", {}).get("__name__"))
