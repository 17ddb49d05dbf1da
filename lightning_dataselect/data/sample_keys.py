"""The keys of the samples of a map-style data set, which match them with another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from lightning_dataselect.data.keys import call_for_keys, named, plain_key
from lightning_dataselect.state.stream_store import Key, SampleId
from lightning_dataselect.utils.errors import InvalidArgumentError


def keys_of_dataset(dataset: Any, sample_id: SampleId) -> list[Key]:
    """Return one key per sample, in the order of the data set, without reading samples.

    Args:
        dataset: A map-style data set; a ``Subset`` or ``ConcatDataset`` has the keys of its parts.
        sample_id: The name of an attribute, or of a column as of a Hugging Face data set, that holds the keys; or a
            function of the data set that returns them.

    Raises:
        InvalidArgumentError: If there are no such keys, or not one for each sample.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> photos = TensorDataset(Tensor(3))
        >>> photos.names = ["a.jpg", "b.jpg", "c.jpg"]
        >>> keys_of_dataset(Subset(photos, [2, 0]), "names")
        ['c.jpg', 'a.jpg']
    """
    keys = _found(dataset, sample_id)
    name = named(sample_id)
    if len(keys) != len(dataset):
        raise InvalidArgumentError(
            f"{name} gives {len(keys)} keys for the {len(dataset)} samples of {type(dataset).__name__}: give one per"
            " sample."
        )
    plain: list[Key] = []
    for given in keys:
        if (key := plain_key(given)) is None:
            raise InvalidArgumentError(f"{name} gives the key {given!r}: keys must be strings or whole numbers.")
        plain.append(key)
    if len(set(plain)) < len(plain):
        raise InvalidArgumentError(f"{name} gives two samples of {type(dataset).__name__} the same key.")
    return plain


def _found(dataset: Any, sample_id: SampleId) -> list[Any]:
    if callable(sample_id):
        return _listed(call_for_keys(sample_id, dataset, f"the data set ({type(dataset).__name__})"))
    if isinstance(dataset, Subset):
        of_all = _found(dataset.dataset, sample_id)
        return [of_all[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [key for part in dataset.datasets for key in _found(part, sample_id)]
    if isinstance(sample_id, str):
        if hasattr(dataset, sample_id):
            return _listed(getattr(dataset, sample_id))
        if sample_id in getattr(dataset, "column_names", ()):
            return _listed(dataset[sample_id])
    raise InvalidArgumentError(
        f"sample_id={sample_id!r} names no keys of the data set {type(dataset).__name__}. Give the name of an attribute"
        " of it, or of a column, that holds one key per sample, or a function of the data set that returns them;"
        " without sample_id its samples are known by their index."
    )


def _listed(found: Any) -> list[Any]:
    if isinstance(found, Tensor | np.ndarray):
        found = found.tolist()
    if isinstance(found, str | bytes) or not isinstance(found, Sequence):
        try:
            return list(found)
        except TypeError:
            raise InvalidArgumentError(
                f"sample_id gives a {type(found).__name__}: one key per sample is needed."
            ) from None
    return list(found)
