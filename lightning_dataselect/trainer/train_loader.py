"""The fit loop's train loader, and the one that everyone else sees."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Container
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.data import sized_len
from lightning_utilities.core.inheritance import get_all_subclasses
from torch.utils._pytree import tree_flatten
from torch.utils.data import BatchSampler, DataLoader

from lightning_dataselect.trainer.patching import Restore, missing, refusal


def intercept_train_loader(trainer: pl.Trainer, transform: Callable[[Any], Any]) -> Restore:
    """Pass every train loader that the fit loop asks for through ``transform``, wherever it comes from.

    Uses ``fit_loop._data_source.dataloader``, which all loaders pass through, whether given to ``fit``, by a datamodule
    or by the module. Anyone else who asks there, while the loop has a loader and is not about to reload it, gets the
    user's own.

    Args:
        trainer: The Trainer of the fit to come.
        transform: Given the user's loader, returns the one that the loop is to iterate.

    Returns:
        A function that undoes the interception.

    Raises:
        RuntimeError: If this version of lightning has no such attribute.
    """
    if missing(trainer, path := "fit_loop._data_source.dataloader"):
        raise refusal("no selector can take hold of the train loader", path)
    loop = trainer.fit_loop
    source = loop._data_source
    original = source.dataloader

    def dataloader() -> Any:
        has_loader = getattr(loop, "_combined_loader", None) is not None
        if has_loader and not getattr(loop, "_should_reload_train_dl", True):
            return original()
        try:
            return transform(original())
        except BaseException:
            _unwrap_loader_classes()
            raise

    source.dataloader = dataloader  # type: ignore[method-assign]

    def undo() -> None:
        source.__dict__.pop("dataloader", None)

    return undo


def combination_mode(given: object) -> str:
    """Return how several train loaders are combined: the ``mode`` of a ``CombinedLoader``, else Lightning's default."""
    return str(getattr(given, "_mode", "max_size_cycle"))


def show_apart(
    trainer: pl.Trainer,
    looped: Any,
    shown: Any,
    mode: str = "max_size_cycle",
    before: Callable[[], None] = lambda: None,
) -> Any:
    """Return a combined loader: the loop iterates ``looped``, while ``trainer.train_dataloader`` is ``shown``.

    So code that reads the train data in a hook cannot disturb the loop's own pass over it.

    Args:
        trainer: The Trainer of the fit under way.
        looped: A DataLoader, or a list or mapping of several.
        shown: The same, for everyone but the loop.
        mode: How several are combined, see `combination_mode`.
        before: Called before anyone sees it.
    """
    # from the Trainer's own package, lightning or pytorch_lightning: it does not accept the other's
    modules = (sys.modules[cls.__module__] for cls in type(trainer.fit_loop).__mro__)
    base = next(module.CombinedLoader for module in modules if hasattr(module, "CombinedLoader"))
    combined = _showing(base)(looped, mode)
    combined._shown, combined._before = shown, before
    return combined


@functools.cache
def _showing(base: type) -> type[Any]:
    return type(base.__name__, (base,), {"__module__": __name__, "iterables": property(_show)})


def _show(combined: Any) -> Any:
    combined._before()
    return combined._shown


def reads_ahead(trainer: pl.Trainer, members: Any) -> bool:
    """Return whether Lightning may read a batch ahead of the training, to know whether it is the last one.

    Args:
        trainer: The Trainer of the fit under way.
        members: A train loader, or a list or mapping of several.

    Example:
        >>> reads_ahead(pl.Trainer(logger=False), [DataLoader([1, 2]), iter(())])
        True
        >>> reads_ahead(pl.Trainer(logger=False, limit_train_batches=5), [DataLoader([1, 2]), iter(())])
        False
    """
    if isinstance(trainer.limit_train_batches, int):
        return False
    return any(sized_len(loader) is None for loader in tree_flatten(members)[0])


def lengths_of_others(trainer: pl.Trainer, combined: Any, left_out: Container[int]) -> dict[int, float]:
    """Return the number of batches of every loader but some, by position; infinite for one without a length.

    If ``limit_train_batches`` is a number of batches, it stands in for a missing length.

    Args:
        trainer: The Trainer of the fit under way.
        combined: Combines the loaders, see `show_apart`.
        left_out: Positions of the loaders that are left out.
    """
    limit = trainer.limit_train_batches
    endless = float(limit) if isinstance(limit, int) else math.inf
    sizes = {i: sized_len(loader) for i, loader in enumerate(combined.flattened) if i not in left_out}
    return {i: endless if size is None else size for i, size in sizes.items()}


def forget_train_loader(trainer: pl.Trainer) -> None:
    """Make the Trainer reload a train loader that was requested too early, by a callback's ``setup`` say."""
    if trainer.train_dataloader is not None:
        trainer.fit_loop._combined_loader = None


def _unwrap_loader_classes() -> None:
    """Restore the loaders' constructors: Lightning wraps them while it asks for a loader, for good if that fails."""
    for base in (DataLoader, BatchSampler):
        for cls in {base, *get_all_subclasses(base)}:
            for name in ("__init__", "__setattr__", "__delattr__"):
                if (old := f"__old{name}") in vars(cls):
                    setattr(cls, name, getattr(cls, old))
                    delattr(cls, old)
