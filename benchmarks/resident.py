"""A data set that lies on the device from the start, and is read a whole batch at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Resident(Dataset[tuple[Tensor, Tensor]]):
    """A data set of inputs and classes on one device, of which a batch is one indexing of each.

    Args:
        inputs: (N, ...), of any type.
        classes: int64 (N,), on the same device.
    """

    def __init__(self, inputs: Tensor, classes: Tensor) -> None:
        self.inputs, self.classes = inputs, classes

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.classes[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        positions = torch.tensor(indices)
        if self.inputs.is_cuda:  # from pinned memory, so that nothing waits for the device
            positions = positions.pin_memory().to(self.inputs.device, non_blocking=True)
        return self.inputs[positions], self.classes[positions]

    def loader(self, batch_size: int, shuffle: bool = False) -> DataLoader[Any]:
        """Return a loader of batches as they are fetched, with nothing left to collate."""
        return DataLoader(self, batch_size, shuffle=shuffle, collate_fn=_as_fetched)


def _as_fetched(batch: Any) -> Any:
    return batch
