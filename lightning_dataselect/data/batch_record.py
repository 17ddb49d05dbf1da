"""The batches of one pass over a loader: which samples they hold, and how far each has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lightning_dataselect.data.batch_tree import Path
from lightning_dataselect.data.delivery import Delivery


@dataclass(frozen=True)
class BatchIndices:
    """The samples of one batch.

    Attributes:
        indices: int64 (B,), dataset indices, one per row of the batch; -1 for a row that is not one of the samples
            drawn for it.
        n_unpadded: How many of them, counted from the first, are not repeats that make ranks even.
        has_strangers: True if some rows may not be among the samples drawn.
    """

    indices: Tensor
    n_unpadded: int
    has_strangers: bool = False

    def slots(self, n: int) -> Tensor:
        """Return the slots of the rows, int64 (B,): their dataset indices, or ``n``, which belongs to no sample.

        Example:
            >>> import torch
            >>> BatchIndices(torch.tensor([4, -1, 2]), n_unpadded=2, has_strangers=True).slots(10)
            tensor([ 4, 10, 10])
        """
        if self.n_unpadded == self.indices.numel() and not self.has_strangers:
            return self.indices
        slots = self.indices.masked_fill(self.indices < 0, n)
        slots[self.n_unpadded :] = n
        return slots


@dataclass
class BatchRecord:
    """Batches that one pass over the loader has drawn but the training loop has not taken yet.

    Attributes:
        first: The number of the first batch of the pass.
        drawn: The samples of each batch, by its number.
        n_arrived: How many the loader has read.
        delivery: Finds out which of these it yields; None if it yields all of them.
        numbers: Those of the batches that are trained on, where that is to be found out.
        first_rows: The number of the first batch that was read, and the `first_numbers` of its rows; None before.
    """

    first: int
    drawn: dict[int, BatchIndices] = field(default_factory=dict)
    n_arrived: int = 0
    delivery: Delivery | None = None
    numbers: dict[int, int] = field(default_factory=dict)
    first_rows: tuple[int, dict[Path, Tensor]] | None = None
