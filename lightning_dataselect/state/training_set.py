"""The memory of a run's training set, from epoch to epoch and from fit to fit."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from lightning_dataselect.state.key_filter import hashes_of
from lightning_dataselect.state.stream_store import Key


class TrainingSet:
    """Remember a data set without keeping it alive, and what identifies its samples.

    Example:
        >>> from torch.utils.data import Dataset
        >>> training_set, dataset = TrainingSet(), Dataset()
        >>> training_set.refer_to(dataset)
        >>> training_set.dataset is dataset
        True
        >>> del dataset
        >>> training_set.dataset
    """

    def __init__(self) -> None:
        self.keys: list[Key] | None = None
        """The keys of the samples of a map-style data set, if there are any, in its order; set by `know_by`."""
        self.fingerprint: dict[int, dict[str, int]] = {}
        """A fingerprint of a few samples, to recognize them."""
        self._dataset: weakref.ref[Any] | None = None
        self._hashes: Tensor | None = None

    def know_by(self, keys: list[Key]) -> None:
        """Store the keys of the samples."""
        self.keys, self._hashes = keys, None

    @property
    def key_hashes(self) -> Tensor | None:
        """int64 (n,): hashes of the keys, as saved in checkpoints; those of a checkpoint until keys are looked up."""
        if self._hashes is None and self.keys is not None:
            self._hashes = hashes_of(self.keys)
        return self._hashes

    @key_hashes.setter
    def key_hashes(self, hashes: Tensor | None) -> None:
        self._hashes = hashes

    @property
    def dataset(self) -> Any:
        """The data set, as long as something else holds it; otherwise None."""
        return None if self._dataset is None else self._dataset()

    def refer_to(self, dataset: object) -> None:
        """Remember the data set that is trained on."""
        try:
            self._dataset = weakref.ref(dataset)
        except TypeError:  # a list, say, does not support weak references
            self._dataset = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the data set, which is not to be copied."""
        return {**self.__dict__, "_dataset": None}
