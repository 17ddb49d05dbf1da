"""The source of the batches of a fit, so that a step can be run on some samples of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.data.batch_layout import BatchLayout
from lightning_dataselect.data.chosen_loader import BatchPart
from lightning_dataselect.data.subset_batch import step_on_part


@dataclass
class BatchSource:
    """Know where batches come from, and where the samples lie in them.

    Attributes:
        loader: The train loader, once the Trainer has it.
        part: With several train loaders, where the chosen one's batches are; None if it is the only one.
        collate: Collates samples again, by their indices, on the module's device; None if they have none.
        layout: The layout of the samples in a batch.
        doubt: Reason why the batch under way may not have as many samples as it is said to, a sentence; or empty.

    Example:
        >>> BatchSource().batch_in(("batch", 0), {})
        'batch'
    """

    loader: DataLoader[Any] | None = None
    part: BatchPart | None = None
    collate: Callable[[Sequence[int]], Any] | None = None
    layout: BatchLayout = field(default_factory=BatchLayout)
    doubt: str = ""

    def batch_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the batch in the arguments of a step: that of the loader which samples are selected from."""
        if self.part is not None:
            return self.part.in_step(args, kwargs)
        return args[0] if args else next(iter(kwargs.values()))

    def on_part(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor
    ) -> Callable[[Sequence[int]], functools.partial[Any]]:
        """Return a step on some samples of its batch, which are ``indices``, int64 (B,); see `step_on_part`."""
        return step_on_part(step, args, kwargs, indices, self.layout, self.loader, self.collate, self.part)
