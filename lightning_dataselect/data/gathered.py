"""Chosen samples of several batches, gathered into a full one."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from lightning_dataselect.data.batch_layout import BatchLayout
from lightning_dataselect.data.joined_batches import join_batches
from lightning_dataselect.data.subset_batch import subset_batch
from lightning_dataselect.state.selection import BatchSamples


@dataclass
class _Piece:
    batch: Any
    rows: Tensor  # int64 (b,), 0 to b - 1
    weights: Tensor | None

    @property
    def size(self) -> int:
        return self.rows.numel()

    def part(self, start: int, end: int, layout: BatchLayout) -> _Piece:
        number = layout.numbers(end - start)
        batch = subset_batch(self.batch, self.rows[start:end], self.size, layout.axes, number)
        return _Piece(batch, self.rows[: end - start], None if self.weights is None else self.weights[start:end])


class GatheredSamples:
    """Keep samples in the order in which they were chosen, and return them as batches.

    Attributes:
        whole: Samples in a full batch; 0 before the first batch is known.

    Example:
        >>> layout, gathered = BatchLayout(), GatheredSamples()
        >>> for rows in ([1.0, 2.0], [3.0, 4.0]):
        ...     layout.axes[()] = 0  # as cutting the batch has found
        ...     gathered.add(torch.tensor(rows), BatchSamples(torch.tensor([7, 8])))
        >>> gathered.take(3, layout), len(gathered)
        ((tensor([1., 2., 3.]), None), 1)
    """

    def __init__(self) -> None:
        self.whole = 0
        self._pieces: deque[_Piece] = deque()

    def __len__(self) -> int:
        """Return the number of samples."""
        return sum(piece.size for piece in self._pieces)

    def add(self, batch: Any, samples: BatchSamples) -> None:
        """Append samples.

        Args:
            batch: A batch that was cut to these samples.
            samples: Their indices, and their weights in the loss.
        """
        rows = torch.arange(len(samples), device=samples.indices.device)
        self._pieces.append(_Piece(batch, rows, samples.weights))

    def take(self, n: int, layout: BatchLayout) -> tuple[Any, Tensor | None]:
        """Remove and return the samples that have waited longest.

        Args:
            n: Their number, from 1 to all.
            layout: The layout of the batches that they were cut from.

        Returns:
            A batch of them, and the loss weight of each, float32 (n,), or None for the plain loss.

        Raises:
            UnsupportedLoaderError: If the batches cannot be joined.
        """
        taken = self._pop(n, layout)
        sizes = [piece.size for piece in taken]
        batch = join_batches([piece.batch for piece in taken], sizes, layout)
        if all(piece.weights is None for piece in taken):
            return batch, None
        known = next(piece.weights for piece in taken if piece.weights is not None)
        weights = [known.new_ones(p.size) if p.weights is None else p.weights for p in taken]
        return batch, torch.cat(weights)

    def drop(self, n: int, layout: BatchLayout) -> None:
        """Discard the ``n`` samples that have waited longest."""
        self._pop(n, layout)

    def to(self, device: torch.device) -> None:
        """Move all samples to ``device``."""
        self._pieces = deque(_Piece(*move_data_to_device(_contents(piece), device)) for piece in self._pieces)

    def state_dict(self) -> dict[str, Any]:
        """Return the samples, on the CPU, in batches with the loader's structure."""
        pieces = [move_data_to_device(_contents(piece), torch.device("cpu")) for piece in self._pieces]
        return {"whole": self.whole, "pieces": pieces}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.whole = state["whole"]
        self._pieces = deque(_Piece(*piece) for piece in state["pieces"])

    def _pop(self, n: int, layout: BatchLayout) -> list[_Piece]:
        popped: list[_Piece] = []
        while n > 0:
            piece = self._pieces.popleft()
            if piece.size > n:
                self._pieces.appendleft(piece.part(n, piece.size, layout))
                piece = piece.part(0, n, layout)
            popped.append(piece)
            n -= piece.size
        return popped


def _contents(piece: _Piece) -> tuple[Any, Tensor, Tensor | None]:
    return piece.batch, piece.rows, piece.weights
