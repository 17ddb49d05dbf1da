"""Collate some samples of a batch again, with the loader's own data set and collate function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader

from lightning_dataselect.data.batch_layout import random_states_in
from lightning_dataselect.data.collate_check import FollowedBatch
from lightning_dataselect.utils.errors import UnsupportedLoaderError


def collate_anew(loader: DataLoader[Any], indices: Sequence[int]) -> Any:
    """Return the batch that a loader would make of some samples, on the CPU, without side effects.

    The samples are read again, in this process. Random numbers that the data set draws differ from the first time.

    Args:
        loader: Yields batches of indexed samples.
        indices: Indices of samples of its data set, at least one.

    Raises:
        UnsupportedLoaderError: If its collate function drops, sorts or replaces samples.

    Example:
        >>> import torch
        >>> loader = DataLoader(torch.arange(6).view(3, 2), batch_size=3)
        >>> collate_anew(loader, [2, 0])
        tensor([[4, 5],
                [0, 1]])
    """
    dataset: Any = loader.dataset
    undo = random_states_in(dataset)
    try:
        with isolate_rng(include_cuda=False):
            batch = loader.collate_fn([dataset[i] for i in indices])
    finally:
        for restore in undo:
            restore()
    if isinstance(batch, FollowedBatch):
        raise UnsupportedLoaderError(
            "The train loader's batches cannot be cut down to some of their samples, and they cannot be collated"
            " again either, since the collate function leaves out, sorts or replaces samples. Take a method that"
            " chooses before the epoch, such as InfoBatch."
        )
    return batch
