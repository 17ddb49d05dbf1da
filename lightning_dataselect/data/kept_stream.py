"""A stream without the samples that a pass leaves out: a loader's data set, filtered where it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, default_collate

from lightning_dataselect.data.stream import key_at, keys_of
from lightning_dataselect.state.key_filter import KeyFilter
from lightning_dataselect.state.stream_store import Key, SampleId

_OWN = ("_kept_dataset", "_kept_keeps", "_kept_key_of")


class SampleKey:
    """Find the key of one sample, before a loader makes a batch of several.

    Args:
        sample_id: Where a sample's key lies in a batch.
        collate: Makes a batch of samples.

    Example:
        >>> SampleKey("id", default_collate)({"x": 1.0, "id": "a"})
        'a'
        >>> SampleKey(1, lambda rows: ([row["x"] for row in rows], [row["id"] for row in rows]))({"x": 1.0, "id": "a"})
        'a'
    """

    def __init__(self, sample_id: SampleId, collate: Callable[[list[Any]], Any]) -> None:
        self._sample_id = sample_id
        # default_collate leaves fields where they are, so no batch needs to be made
        self._collate = None if collate is default_collate and not callable(sample_id) else collate

    def __call__(self, sample: Any) -> Key:
        """Return the key.

        Raises:
            InvalidArgumentError: If there is none.
        """
        if self._collate is None:
            assert not callable(self._sample_id)
            return key_at(sample, self._sample_id)
        return keys_of(self._collate([sample]), self._sample_id)[0]


class KeptStream(IterableDataset[Any]):
    """Yield the samples of a data set that a filter lets pass; behave like that data set in all other respects.

    Args:
        dataset: Yields samples.
        keeps: Says which are kept.
        key_of: Finds a sample's key.

    Example:
        >>> from lightning_dataselect.state.key_filter import hashes_of
        >>> keeps = KeyFilter(4)
        >>> keeps.leave_out(hashes_of([1]))
        >>> list(KeptStream([0, 1, 2], keeps, key_of=int))
        [0, 2]
    """

    def __init__(self, dataset: Any, keeps: KeyFilter, key_of: Callable[[Any], Key]) -> None:
        for name, value in zip(_OWN, (dataset, keeps, key_of), strict=True):
            object.__setattr__(self, name, value)

    def __iter__(self) -> Iterator[Any]:
        samples = iter(self._kept_dataset)
        kept = _StatefulKept if hasattr(samples, "state_dict") else self._kept_without_state()
        return kept(samples, self._kept_keeps, self._kept_key_of)

    def _kept_without_state(self) -> type[_Kept]:
        return _CountingKept

    def __len__(self) -> int:
        return len(self._kept_dataset)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self._kept_dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._kept_dataset, name, value)  # as worker_init_fn does with what get_worker_info() shows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _StatefulKeptStream(KeptStream):
    """The same for a data set that saves its position: torchdata looks for these methods on the class."""

    def _kept_without_state(self) -> type[_Kept]:
        return _Kept

    def state_dict(self) -> Any:
        return self._kept_dataset.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._kept_dataset.load_state_dict(state)


class _Kept:
    def __init__(self, samples: Iterator[Any], keeps: KeyFilter, key_of: Callable[[Any], Key]) -> None:
        self._samples, self._keeps, self._key_of = samples, keeps, key_of

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            sample, keeps = self._read(), self._keeps
            if keeps.is_open or keeps.is_asked or keeps.lets_pass(self._key_of(sample)):
                return sample

    def _read(self) -> Any:
        return next(self._samples)


class _CountingKept(_Kept):
    """Saves how much it has read of a data set that does not save its position, and reads as much again.

    torchdata would do so by batches, but counts those before a resume twice, so that a second resume goes wrong.
    """

    _n_read = 0

    def _read(self) -> Any:
        sample = next(self._samples)
        self._n_read += 1
        return sample

    def state_dict(self) -> Any:
        return {"n_read": self._n_read}

    def load_state_dict(self, state: Any) -> None:
        while self._n_read < state["n_read"]:
            self._read()


class _StatefulKept(_Kept):
    def state_dict(self) -> Any:
        return self._samples.state_dict()  # type: ignore[attr-defined]

    def load_state_dict(self, state: Any) -> None:
        self._samples.load_state_dict(state)  # type: ignore[attr-defined]


def kept_stream(loader: Any, keeps: KeyFilter, sample_id: SampleId) -> KeptStream | None:
    """Return what a loader is to read in place of its data set, so that it makes whole batches of kept samples.

    None if that is impossible: it is no DataLoader, does not make the batches itself, or reads in a way of its own.
    """
    if not isinstance(loader, DataLoader) or not isinstance(loader.dataset, IterableDataset):
        return None
    reads = type(loader).__iter__.__module__.partition(".")[0]
    if loader.batch_size is None or reads not in ("torch", "torchdata"):
        return None
    kept = _StatefulKeptStream if hasattr(loader.dataset, "state_dict") else KeptStream
    return kept(loader.dataset, keeps, SampleKey(sample_id, loader.collate_fn))
