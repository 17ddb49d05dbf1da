"""The samples of a stream that a pass leaves out, by their keys, in every process that reads the stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_COUNT, _ASKED = range(2)


def hash_of(key: str | int | bytes) -> int:
    """Return an int64 hash of a key, the same in every process.

    Example:
        >>> hash_of("a") == hash_of("a"), hash_of("7") == hash_of(7)
        (True, False)
    """
    if isinstance(key, str):
        written = b"s" + key.encode(errors="surrogatepass")
    else:
        written = b"b" + key if isinstance(key, bytes) else b"i%d" % key
    return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest(), "little", signed=True)


def hashes_of(keys: Iterable[str | int | bytes]) -> Tensor:
    """Return :func:`hash_of` of each key, int64 (n,)."""
    return torch.tensor([hash_of(key) for key in keys], dtype=torch.int64)


class KeyFilter:
    """Tell whether a pass over a stream keeps the sample with a key, also in the workers of a loader.

    A stream that builds its own batches calls it before samples are batched, preferably before they are decoded::

        keeps = Frontier(sample_id="__key__").keeps
        stream = webdataset.WebDataset(shards).select(lambda sample: keeps(sample["__key__"])).decode().batched(256)

    Its copies in workers share its memory, so they see changes in the main process at once.

    Args:
        capacity: The maximum number of keys that can be left out.

    Example:
        >>> keeps = KeyFilter(capacity=4)
        >>> keeps.leave_out(hashes_of(["a", "b"]))
        >>> keeps("a"), keeps("c")
        (False, True)
    """

    def __init__(self, capacity: int) -> None:
        self._hashes = torch.zeros(capacity, dtype=torch.int64).share_memory_()
        self._head = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._views: tuple[Any, Any] | None = None

    def __call__(self, key: str | int | bytes) -> bool:
        """Return whether the current pass keeps the sample with this key, for a data set that filters by itself."""
        head = self._shared()[1]
        if not head[_ASKED]:
            head[_ASKED] = 1
        return self.lets_pass(key)

    @property
    def is_asked(self) -> bool:
        """True once the user's data set has asked for a key in this fit, in any process."""
        return bool(self._shared()[1][_ASKED])

    def begin_fit(self) -> None:
        """Forget who has asked in an earlier fit."""
        self._shared()[1][_ASKED] = 0

    @property
    def is_open(self) -> bool:
        """True while nothing is left out."""
        return not self._shared()[1][_COUNT]

    def lets_pass(self, key: str | int | bytes) -> bool:
        """Return whether the current pass keeps the sample with this key."""
        hashes, head = self._shared()
        n = int(head[_COUNT])
        if n == 0:
            return True
        sought = hash_of(key)
        place = int(np.searchsorted(hashes[:n], sought))
        return place == n or int(hashes[place]) != sought

    def leave_out(self, hashes: Tensor) -> None:
        """Leave out the samples whose keys have these hashes, int64 (m,), instead of the earlier ones.

        If there are more than there is room for, only the first ones are left out.
        """
        table, head = self._shared()
        sorted_ = np.unique(hashes[: len(table)].numpy())
        head[_COUNT] = 0
        table[: len(sorted_)] = sorted_
        head[_COUNT] = len(sorted_)

    def left_out(self) -> Tensor:
        """Return the hashes of the keys that are left out, int64 (m,), sorted."""
        hashes, head = self._shared()
        return torch.from_numpy(hashes[: int(head[_COUNT])].copy())

    def _shared(self) -> tuple[Any, Any]:
        if self._views is None:
            self._views = self._hashes.numpy(), self._head.numpy()
        return self._views

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views, which would be copied instead of shared."""
        return {**self.__dict__, "_views": None}
