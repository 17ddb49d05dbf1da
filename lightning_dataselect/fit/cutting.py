"""Cut the batch of a step to the chosen samples, or collate these again if it cannot be cut."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_dataselect.data.batch_source import BatchSource
from lightning_dataselect.data.batch_tree import tensors_in
from lightning_dataselect.data.subset_batch import subset_arguments, with_batch
from lightning_dataselect.state.selection import BatchSamples
from lightning_dataselect.utils.errors import DataSelectError, UnsupportedLoaderError


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
        self._has_stepped = False  # on a part of a batch
        self._uncut: tuple[Any, int] | None = None  # the batch that was cut last, before any step on a part

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
        self._uncut = None if self._has_stepped else (batches.batch_in(args, kwargs), size)
        layout, number = batches.layout, batches.layout.numbers(positions.numel())
        smaller = subset_arguments(args, kwargs, positions, size, layout.axes, number, batches.part)
        layout.refuse_shared()
        return smaller

    @contextlib.contextmanager
    def explaining(self, n: int, size: int, *, is_scored: bool) -> Iterator[None]:
        """Explain why a step on some samples of a batch fails, if that is because it was cut.

        Where samples are not read by index, nothing shows that a part has several rows of each of them: the first step
        does. A step that measures the longest of its samples fails once that is left out; as nothing shows that it is
        for this, a warning says so, and the error stays the step's own.

        Args:
            n: The number of samples that were chosen.
            size: That of the samples in the batch.
            is_scored: True if the step has come through on all of these just before.

        Raises:
            UnsupportedLoaderError: In place of the step's own error.
        """
        try:
            yield
        except (IndexError, RuntimeError, ValueError) as error:
            whole = [] if self._uncut is None else self._parts_left_whole(*self._uncut)
            if isinstance(error, DataSelectError | torch.OutOfMemoryError):
                raise
            if not whole and is_scored and not self._collates_anew and n < size:
                rank_zero_warn(
                    f"training_step fails on {n} samples that {self._method} has chosen from a batch of {size},"
                    f" although it has scored all {size}. The chosen samples keep the padding of the whole batch: a"
                    " step that measures how long the longest of its samples is comes to less without that one. If this"
                    " is why, give it the length of the tensors, as by pad_packed_sequence(...,"
                    " total_length=x.shape[1]), or take a method that chooses before the epoch, such as InfoBatch."
                )
            if not whole:
                raise
            raise UnsupportedLoaderError(
                f"training_step fails on the samples that {self._method} has chosen from a batch"
                f" ({type(error).__name__}: {error}). It was given {', '.join(whole)} whole, which have no axis with a"
                " row for each sample. If they hold several rows of each, as batches of graphs do, a batch cannot be"
                " cut: take a map-style data set, whose chosen samples are collated anew, or a method that chooses"
                " before the epoch; or let the loader yield padded tensors with the samples along the first axis, and"
                " build the graphs inside training_step."
            ) from error
        self._has_stepped, self._uncut = True, None

    def _parts_left_whole(self, batch: Any, size: int) -> list[str]:
        """Return what to call the tensors of a batch of ``size`` samples that were passed on as they are."""
        axes = self._batches.layout.axes
        return [
            f"{'.'.join(map(str, path))!r} (shape {tuple(tensor.shape)})"
            for path, tensor in tensors_in(batch)
            if tensor.dim() and tensor.numel() > 1 and len(tensor) != size and axes.get(path) is None
        ]
