"""The batch of a step cut to chosen samples, or these collated anew where it cannot be cut."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.data.subset_batch import subset_arguments, with_batch
from lightning_dataselect.state.selection import BatchSamples
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.utils.errors import UnsupportedLoaderError


class BatchCutter:
    """Cut the arguments of training steps to the samples that were chosen.

    Args:
        reader: Knows the layout of the samples in a batch, and how to make a batch of other ones.
        method: Name of the method, for messages.
        collates_anew: True if chosen samples may be read and collated anew where batches cannot be cut.
    """

    def __init__(self, reader: StepReader, method: str, *, collates_anew: bool) -> None:
        self._reader = reader
        self._method = method
        self._may_collate_anew = collates_anew
        self._collates_anew = False
        self.is_ready = False
        """True once a batch has been cut."""

    def get_ready(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: BatchSamples, n: int) -> None:
        """Refuse batches that cannot be cut at the first of them, and not after epochs that train on whole ones.

        Args:
            args: Positional arguments of the training step.
            kwargs: Its keyword arguments.
            batch: The samples of the batch.
            n: How many of them are to be tried.

        Raises:
            UnsupportedLoaderError: If they cannot be cut.
        """
        size, reader = len(batch), self._reader
        positions = [size - 1, 0, size // 2][: min(3, size)]
        reader.layout.learn(reader.loader, reader.batch_in(args, kwargs), batch.indices, positions)
        first = torch.arange(n, device=batch.indices.device)
        try:
            self.cut(args, kwargs, first, batch)
        except UnsupportedLoaderError as error:
            if reader.collate is None or not self._may_collate_anew:
                raise
            self._collates_anew = True
            try:
                self.cut(args, kwargs, first, batch)
            except Exception as reason:  # of a data set that only its workers can read, say
                raise error from reason
            rank_zero_warn(
                f"The batches cannot be cut, so {self._method} has the samples that it chooses read and collated"
                f" anew, in the main process: {error} A slow data set then slows the training down."
            )
        self.is_ready = True

    def cut(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], positions: Tensor, batch: BatchSamples
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the step on some samples of the batch, at ``positions``, int64 (b,)."""
        reader, size = self._reader, len(batch)
        if self._collates_anew:
            assert reader.collate is not None
            return with_batch(args, kwargs, reader.collate(batch.indices[positions].tolist()))
        layout, number = reader.layout, reader.layout.numbers(positions.numel())
        smaller = subset_arguments(args, kwargs, positions, size, layout.axes, number, reader.part)
        layout.refuse_shared()
        return smaller
