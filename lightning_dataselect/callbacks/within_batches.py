"""The base of methods that use every sample in every epoch, and only choose within batches."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.utils.validation import SET_LEVEL, refuse_unused


class WithinBatches(DataSelector):
    """Use every sample in every epoch, and choose only within the batches.

    Name it before `BatchSelector` among the bases.

    Args:
        **common: Arguments of the next base class, except ``prune_ratio``, ``every_n_epochs``, ``balance`` and
            ``whole_batches``, which have no effect here. ``lr_schedule`` has one only if the number of steps changes,
            as with a ``budget`` or ``constant_batch_size``.

    Raises:
        UnexpectedArgumentError: If one of those is given.

    Example:
        >>> from lightning_dataselect.callbacks.batch_selector import BatchSelector
        >>> class Hardest(WithinBatches, BatchSelector):
        ...     def choose(self, seen, k, generator):
        ...         return seen.losses.topk(k).indices
        >>> Hardest(batch_ratio=0.5).prune_ratio
        0.0
    """

    unused: ClassVar[frozenset[str]] = SET_LEVEL
    chosen_by: ClassVar[str] = "batch_ratio"
    gives_weights: ClassVar[bool] = False
    chooses_within_batches: ClassVar[bool] = True

    def __init__(self, **common: Any) -> None:
        refuse_unused(type(self).__name__, SET_LEVEL, common, self.chosen_by)
        super().__init__(prune_ratio=0.0, every_n_epochs=1, balance=None, whole_batches=True, **common)

    @property
    def chooses_epochs(self) -> bool:
        """False: every epoch uses all samples."""
        return False
