"""The refusal of what a method cannot do on a stream, before it trains on one."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from lightning_dataselect.data.stream import is_stream, refuse_epoch_choice
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.utils.errors import InvalidArgumentError, UnsupportedLoaderError


def check_stream(loader: DataLoader[Any], policy: SelectionPolicy) -> None:
    """Refuse a loader that is no longer a stream, and a method whose arguments mean nothing on one.

    Raises:
        UnsupportedLoaderError: If the method must choose samples before they are read, or if a reloaded loader is no
            longer a stream.
        InvalidArgumentError: If state is to lie on the disk.
    """
    if not is_stream(loader):
        raise UnsupportedLoaderError(
            "The train loader was a stream when the fit began and no longer is, so its samples are identified"
            " differently. Return loaders of one kind, or start a new fit."
        )
    if policy.chooses_epochs and not (policy.leaves_out_by_key and policy.sample_id is not None):
        raise refuse_epoch_choice(loader, type(policy).__name__, policy.sample_id, policy.on_streams)
    if policy.scratch_dir is not None:
        raise InvalidArgumentError(
            f"scratch_dir={str(policy.scratch_dir)!r} is for state of samples that have an index; of a"
            " stream only the last `history_size` samples are remembered, in memory. Leave it out."
        )


def refuse_reading_ahead(policy: SelectionPolicy) -> UnsupportedLoaderError:
    """Return the refusal of a method that reads ahead of the training on one of several loaders."""
    return UnsupportedLoaderError(
        f"{type(policy).__name__} reads ahead of the training, and loader={policy.loader!r} is a stream among"
        " several train loaders, whose batches would no longer be told apart. Take a method that scores each"
        " batch as it comes, such as EvolvedSampling, or a map-style data set."
    )
