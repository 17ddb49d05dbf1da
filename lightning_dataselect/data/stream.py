"""A loader whose samples have no index: they are known by a key that they carry, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_dataselect.data.keys import call_for_keys, named, plain_key
from lightning_dataselect.data.row_count import RowCounter, rows_agreed_on
from lightning_dataselect.state.stream_store import BatchStore, Key, KeyedStore, SampleId
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, UnsupportedLoaderError


def is_stream(loader: object) -> bool:
    """Return whether a loader yields a stream, in which samples have no index.

    Example:
        >>> is_stream(DataLoader([1, 2, 3])), is_stream(iter(()))
        (False, True)
    """
    is_indexed = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    return not is_indexed and hasattr(loader, "__iter__")


def name_of_stream(loader: Any) -> str:
    """Return what to call a stream in a message."""
    dataset = getattr(loader, "dataset", None)
    return type(loader).__name__ if dataset is None or _wraps_indexed(loader) else type(dataset).__name__


def _wraps_indexed(loader: Any) -> bool:
    """Return whether a loader that is no DataLoader has a data set whose samples have an index."""
    dataset = getattr(loader, "dataset", None)
    is_indexed = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    return is_indexed and not isinstance(loader, DataLoader)


class StreamSource:
    """Tell the samples of a stream's batches apart, as far as the columns can.

    Args:
        loader: Yields the batches.
        store: Where the samples have their slots.
        sample_id: Where their keys are; None for a store of the batch alone.
        is_cut: True if batches are cut to some of their samples, so that these must have rows in them.
    """

    def __init__(
        self, loader: Any, store: BatchStore | KeyedStore, sample_id: SampleId | None, *, is_cut: bool = False
    ) -> None:
        size = getattr(loader, "batch_size", None)
        self.batch_size = size if isinstance(size, int) and not isinstance(size, bool) else None
        """Samples of a batch; None if only the stream knows."""
        self._store = store
        self._sample_id = sample_id
        self._rows = RowCounter(self.batch_size)
        self._is_cut = is_cut
        self._warned = False
        self._looked_at = -1  # number of keys of the batch that was last compared with its rows
        self.doubt = ""
        """Why the number of keys may differ from that of the samples, in a sentence; empty if it does not."""

    def slots_of(self, batch: Any) -> Tensor:
        """Return where the samples of ``batch`` are written, int64 (B,), on the CPU; to be called once a batch.

        Raises:
            UnsupportedLoaderError: If their number cannot be determined.
            InvalidArgumentError: If they carry no such key.
        """
        if isinstance(self._store, BatchStore):
            return self._store.open_batch(self._rows.count(batch))
        assert self._sample_id is not None
        found = _keys_in(batch, self._sample_id)
        keys = _plain(found, self._sample_id)
        if len(keys) != self._looked_at:
            self._looked_at = len(keys)
            self._compare_with_rows(batch, found, len(keys), self._sample_id)
        if not self._warned and len(set(keys)) < len(keys):
            self._warned = True
            _warn_of_shared_keys(keys, self._sample_id)
        return self._store.open_batch(keys)

    def _compare_with_rows(self, batch: Any, found: Any, n_keys: int, sample_id: SampleId) -> None:
        rows = rows_agreed_on(batch, n_keys, besides=found if self._is_cut else None)
        if rows is None:
            self.doubt = ""
            return
        doubt = (
            f"{named(sample_id)} gives {n_keys} key{'' if n_keys == 1 else 's'} for a batch ({type(batch).__name__})"
            f" whose parts have {rows} rows each."
        )
        if self._is_cut:
            raise InvalidArgumentError(
                f"{doubt} If each row is a sample, give one key per row. If samples have several rows, as those of"
                " graphs have, a batch cannot be cut to the chosen ones."
            )
        if not self.doubt:
            rank_zero_warn(
                f"{doubt} The batch is taken to hold {n_keys} sample{'' if n_keys == 1 else 's'}. If each row is a"
                " sample, give one key per row."
            )
        self.doubt = f"{doubt} If each row is a sample, give one key per row."


def _warn_of_shared_keys(keys: Sequence[Key], sample_id: SampleId) -> None:
    key = max(keys, key=keys.count)
    rank_zero_warn(
        f"{named(sample_id)} gives {keys.count(key)} of the {len(keys)} samples of a batch the same key, {key!r}:"
        " samples with the same key are taken for one sample, whose last loss counts, and are left out together. If"
        " they are different samples, name a field that tells them apart."
    )


def keys_of(batch: Any, sample_id: SampleId) -> list[Key]:
    """Return the keys of the samples of a batch.

    Args:
        batch: What the loader yielded.
        sample_id: Where they are.

    Raises:
        InvalidArgumentError: If they are not there, or are no strings or whole numbers.

    Example:
        >>> import torch
        >>> keys_of({"x": torch.zeros(2, 5), "id": torch.tensor([7, 8])}, "id")
        [7, 8]
        >>> keys_of((torch.zeros(2, 5), ["a.jpg", "b.jpg"]), 1)
        ['a.jpg', 'b.jpg']
    """
    return _plain(_keys_in(batch, sample_id), sample_id)


def _keys_in(batch: Any, sample_id: SampleId) -> Any:
    if not callable(sample_id):
        return _field(batch, sample_id)
    return call_for_keys(sample_id, batch, _described(batch))


def _plain(found: Any, sample_id: SampleId) -> list[Key]:
    keys = found.tolist() if isinstance(found, Tensor | np.ndarray) else found
    if isinstance(keys, str | bytes) or not isinstance(keys, Sequence):
        raise InvalidArgumentError(
            f"{named(sample_id)} gives a {type(found).__name__} for a batch: it must give one key per sample, in a"
            " list, an array or a tensor. A loader of single samples (batch_size=None) must make batches of them."
        )
    if not len(keys):
        raise InvalidArgumentError(f"{named(sample_id)} gives no keys for a batch: it must give one key per sample.")
    return [_checked(key, sample_id) for key in keys]


def key_at(sample: Any, sample_id: str | int) -> Key:
    """Return the key of one sample, whose fields are where they are in a batch.

    Raises:
        InvalidArgumentError: If it is not there, or is no string or whole number.

    Example:
        >>> import torch
        >>> key_at({"x": torch.zeros(5), "id": torch.tensor(7)}, "id")
        7
    """
    found = _field(sample, sample_id)
    return _checked(found, sample_id)


def _checked(given: Any, sample_id: SampleId) -> Key:
    if (key := plain_key(given)) is not None:
        return key
    raise InvalidArgumentError(
        f"{named(sample_id)} gives the key {given!r}: keys must be strings or whole numbers, since they are saved"
        " in checkpoints."
    )


def _field(batch: Any, name: str | int) -> Any:
    try:
        if isinstance(name, int) or isinstance(batch, Mapping) or not hasattr(batch, name):
            return batch[name]
        return getattr(batch, name)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InvalidArgumentError(
            f"sample_id={name!r} is no field of {_described(batch)}. Name the field"
            " with the samples' keys, its position, or give a function of the batch."
        ) from None


def _described(batch: Any) -> str:
    fields = f" with {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else ""
    return f"the batch ({type(batch).__name__}{fields})"


def check_sample_id(sample_id: object) -> SampleId | None:
    """Return ``sample_id`` if it can say where keys are.

    Raises:
        ArgumentTypeError: If it cannot.
    """
    if sample_id is None or callable(sample_id) or isinstance(sample_id, str):
        return sample_id
    if isinstance(sample_id, int) and not isinstance(sample_id, bool):
        return sample_id
    raise ArgumentTypeError(
        f"{named(sample_id)} must be the name or the position of a field of the batch, or a function of the batch."
    )


def refuse_epoch_choice(
    loader: Any, method: str, sample_id: SampleId | None, advice: str = ""
) -> UnsupportedLoaderError:
    """Return the error for a method that must choose samples before a stream yields them.

    Args:
        loader: Yields the stream.
        method: Name of the method.
        sample_id: Where the samples' keys are, if they have some.
        advice: What to use instead of this method; if empty, methods that work are named.

    Example:
        >>> print(refuse_epoch_choice(iter(()), "InfoBatch", "id", "Lower max_steps."))
        tuple_iterator is a stream: sample_id='id' tells its samples apart once they are read, and InfoBatch must...
    """
    if sample_id is None:
        why = f"its samples have no index, so {method} cannot choose among them before they are read."
    else:
        why = f"{named(sample_id)} tells its samples apart once they are read, and {method} must choose before that."
    if _wraps_indexed(loader):
        kind = type(loader).__name__
        why = f"{why} It has a data set with an index: if {kind} wraps a DataLoader, let fit take that one."
    return UnsupportedLoaderError(f"{name_of_stream(loader)} is a stream: {why} {advice or WORK_ON_STREAMS}")


WORK_ON_STREAMS = (
    "On a stream take a method that chooses within each batch (SelectiveBackprop, EvolvedSampling, AutoAssist,"
    " DBPD, SMRD, DivBS, or RHOLoss with a holdout_model), or Frontier where samples carry a key (sample_id=...); or"
    " use a map-style data set (with __len__ and __getitem__)."
)
