"""Batches between a loader and the training step: a loader of a user's class may leave some out, or move their rows."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.data.batch_tree import Path, tensors_in
from lightning_dataselect.data.places import dense
from lightning_dataselect.utils.errors import InvalidLoaderError

_OURS = "lightning_dataselect"
_LIBRARIES = {"torch", "torchdata"}


def iterates_itself(loader: DataLoader[Any]) -> bool:
    """Return whether the class of ``loader`` has an ``__iter__`` that is neither torch's, torchdata's nor ours.

    Example:
        >>> class Own(DataLoader):
        ...     def __iter__(self):
        ...         yield from super().__iter__()
        >>> Own.__module__ = "train"
        >>> iterates_itself(Own([1])), iterates_itself(DataLoader([1]))
        (True, False)
    """
    makers = (cls.__module__.partition(".")[0] for cls in type(loader).__mro__ if "__iter__" in vars(cls))
    return next(maker for maker in makers if maker != _OURS) not in _LIBRARIES


class Delivery:
    """Find out which of the batches that were read, in turn, are yielded by a loader's own ``__iter__``.

    A batch is known by its tensors, whatever else is done with it. One with none of them is taken for the next.

    Example:
        >>> delivery, batches = Delivery(), [torch.zeros(2), torch.ones(2)]
        >>> for number, batch in enumerate(batches):
        ...     delivery.read(number, batch)
        >>> delivery.find((batches[1], 0.5)), delivery.has_lost
        (1, False)
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Any]] = deque()
        self._n_read = self._n_found = 0
        self._has_guessed = False

    @property
    def has_lost(self) -> bool:
        """True if it had to guess, and not every batch was yielded once."""
        return self._has_guessed and self._n_read != self._n_found

    def read(self, number: int, batch: Any) -> None:
        """Note that the batch of that number was read; held until a later one is yielded."""
        self._waiting.append((number, batch))
        self._n_read += 1

    def find(self, batch: Any) -> int | None:
        """Return the number of a batch that is yielded; None if there is none left that it could be."""
        self._n_found += 1
        yielded = _identities(batch)
        for place, (number, read) in enumerate(self._waiting):
            if read is batch or not yielded.isdisjoint(_identities(read)):
                for _ in range(place):
                    self._waiting.popleft()
                return number
        self._has_guessed = True
        return self._waiting.popleft()[0] if self._waiting else None


def _identities(batch: Any) -> set[int]:
    return {id(tensor) for _, tensor in tensors_in(batch)}


def first_numbers(batch: Any) -> dict[Path, Tensor]:
    """Return a copy of the first number of each row, for all parts of a batch that have rows."""
    parts = {path: tensor for path, tensor in dense(batch).items() if len(tensor) > 1 and tensor[0].numel() > 0}
    return {path: tensor.detach().reshape(len(tensor), -1)[:, 0].clone() for path, tensor in parts.items()}


def check_order(before: dict[Path, Tensor], batch: Any) -> None:
    """Check that the rows of a batch are where they were when it was read, as far as can be told.

    Args:
        before: The `first_numbers` of the batch when it was read.
        batch: The batch as it reaches the training step.

    Raises:
        InvalidLoaderError: If some parts have the same rows in another order, and none has them in the same.
    """
    is_moved = False
    for path, now in first_numbers(batch).items():
        if (given := before.get(path)) is None or len(given) != len(now):
            continue
        now, given = now.cpu(), given.to("cpu", now.dtype)
        if bool((given == given[0]).all()):
            continue
        if torch.equal(given, now):
            return
        is_moved = is_moved or torch.equal(given.sort().values, now.sort().values)
    if is_moved:
        raise InvalidLoaderError(
            "The samples of a batch are in another order when they reach the training step than when they were read,"
            " so one sample's loss would be taken for another's. A hook such as on_after_batch_transfer, or the"
            " loader's own __iter__, sorts or shuffles them: keep their order there, or sort within training_step."
        )
