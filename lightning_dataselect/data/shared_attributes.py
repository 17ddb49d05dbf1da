"""Attributes of a user's loader, which its copies share although each has samplers of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from lightning_dataselect.data.places import Collate

# each copy has its own, or belongs to what torch and torchdata keep of a pass under way
_OWN = {
    *("dataset", "batch_size", "drop_last", "sampler", "batch_sampler", "load_state_dict", "next_iter_state"),
    *("_dataset_kind", "_iterator", "_initial_iter_for_state_dict", "_IterableDataset_len_called"),
    *("_arrive", "_begin", "_deliver"),
}


class SharedAttributes:
    """Bring what is written to a loader, or to the copy that hooks see, to the one that is trained on, and back.

    A loader of a user's class may have a method such as ``set_epoch``, or be given another ``collate_fn``.

    Args:
        given: The user's own loader.
        shown: The copy that hooks see.
        collate: Makes of a collate function the one of the loader that is trained on.

    Example:
        >>> given, shown, looped = (DataLoader([1, 2]) for _ in range(3))
        >>> shared = SharedAttributes(given, shown, lambda collate_fn: collate_fn)
        >>> shared.lead_to(looped)
        >>> shown.epoch = 3
        >>> shared.share()
        >>> given.epoch, looped.epoch
        (3, 3)
    """

    def __init__(self, given: DataLoader[Any], shown: DataLoader[Any], collate: Callable[[Collate], Collate]) -> None:
        self._given = given
        self._shown = shown
        self._collate = collate
        self._known = _attributes(given)

    def lead_to(self, looped: DataLoader[Any]) -> None:
        """Follow the loader that is trained on. It is not kept alive: its workers live on as long as it does."""
        self._looped = weakref.ref(looped)

    def share(self) -> None:
        """Bring all of them up to date."""
        if (looped := self._looped()) is None:
            return
        written: dict[str, Any] = {}
        for loader in (looped, self._given, self._shown):
            for name, value in _attributes(loader).items():
                is_wrapped = loader is looped and name == "collate_fn"
                if not is_wrapped and (name not in self._known or self._known[name] is not value):
                    written[name] = value
        self._known.update(written)
        for loader in (looped, self._given, self._shown):
            vars(loader).update(written)
        if "collate_fn" in written:
            vars(looped)["collate_fn"] = self._collate(written["collate_fn"])


def _attributes(loader: DataLoader[Any]) -> dict[str, Any]:
    theirs = ("__", "_DataLoader__", "_StatefulDataLoader__")  # Lightning's, torch's and torchdata's
    return {name: value for name, value in vars(loader).items() if name not in _OWN and not name.startswith(theirs)}
