"""Cut the batch of a step to the chosen samples, or collate these again if it cannot be cut."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.data.batch_source import BatchSource
from lightning_dataselect.data.subset_batch import subset_arguments, with_batch
from lightning_dataselect.state.selection import BatchSamples
from lightning_dataselect.utils.errors import UnsupportedLoaderError


class BatchCutter:
    """Cut the arguments of training steps to the samples that were chosen.

    Args:
        batches: Knows where the samples lie in a batch, and how to make a batch of other samples.
        method: Name of the method, for messages.
        collates_anew: True if the chosen samples may be read and collated again if batches cannot be cut.
    """

    def __init__(self, batches: BatchSource, method: str, *, collates_anew: bool) -> None:
        self._batches = batches
        self._method = method
        self._may_collate_anew = collates_anew
        self._collates_anew = False
        self.is_ready = False
        """True once a batch has been cut."""

    def get_ready(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: BatchSamples, n: int) -> None:
        """Refuse batches that cannot be cut on the first one, and not only after epochs on whole batches.

        Args:
            args: Positional arguments of the training step.
            kwargs: Its keyword arguments.
            batch: The samples of the batch.
            n: How many of them are to be tried.

        Raises:
            UnsupportedLoaderError: If they cannot be cut.
        """
        size, batches = len(batch), self._batches
        positions = [size - 1, 0, size // 2][: min(3, size)]
        batches.layout.learn(batches.loader, batches.batch_in(args, kwargs), batch.indices, positions)
        first = torch.arange(n, device=batch.indices.device)
        try:
            self.cut(args, kwargs, first, batch)
        except UnsupportedLoaderError as error:
            if batches.collate is None or not self._may_collate_anew:
                raise
            self._collates_anew = True
            try:
                self.cut(args, kwargs, first, batch)
            except Exception as reason:  # a data set that only its workers can read, say
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
        batches, size = self._batches, len(batch)
        if self._collates_anew:
            assert batches.collate is not None
            return with_batch(args, kwargs, batches.collate(batch.indices[positions].tolist()))
        layout, number = batches.layout, batches.layout.numbers(positions.numel())
        smaller = subset_arguments(args, kwargs, positions, size, layout.axes, number, batches.part)
        layout.refuse_shared()
        return smaller
