"""The user's own sampler within a batch sampler, and what is written to both during a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler

from lightning_dataselect.data.batches import RecordingBatchSampler
from lightning_dataselect.data.user_sampler import OwnDraws
from lightning_dataselect.utils.errors import UnsupportedLoaderError


class WrittenSettings:
    """Take over what the user's code writes to its batch sampler: a size of batches, or another sampler.

    Args:
        recorder: Receives it.
        batch_sampler: The user's own.
        ranks_draw: Whether its sampler draws only for its rank.
        count: Returns the number of samples of the data set.
    """

    def __init__(
        self, recorder: RecordingBatchSampler, batch_sampler: Any, ranks_draw: bool, count: Callable[[], int]
    ) -> None:
        self._recorder = recorder
        self._count = count
        self._batch_sampler = batch_sampler
        self._ranks_draw = ranks_draw
        self._known = self._settings()
        self._n_at_first = recorder.n_of_plan

    def take_over(self) -> bool:
        """Take over what has changed since the last time; return whether anything has."""
        (*sizes, drawn), (*sizes_before, drawn_before) = self._settings(), self._known
        if drawn is drawn_before and sizes == sizes_before:
            return False
        self._known = (*sizes, drawn)
        recorder = self._recorder
        recorder.batch_size, recorder.drop_last = sizes
        recorder.longest = self._n_at_first
        if drawn is not drawn_before:
            batch_sampler = None if recorder.own is None else recorder.own.batch_sampler
            own, n = own_sampler(drawn), self._count()
            draws = own is not None or batch_sampler is not None
            recorder.own = OwnDraws(n, own, batch_sampler, self._ranks_draw) if draws else None
            recorder.sampler.shuffle, recorder.sampler.full_size = shuffles(drawn), n
        return True

    def _settings(self) -> tuple[Any, ...]:
        size, drop_last = (getattr(self._batch_sampler, name, None) for name in ("batch_size", "drop_last"))
        size = size if isinstance(size, int) and size > 0 else None
        return size, bool(drop_last), getattr(self._batch_sampler, "sampler", None)


def own_sampler(drawn: Any) -> Any | None:
    """Return the user's own sampler if the order follows from it, None if the selector's seed makes the order.

    Raises:
        UnsupportedLoaderError: If it is a `SubsetRandomSampler`.
    """
    if isinstance(drawn, SubsetRandomSampler):
        raise UnsupportedLoaderError(
            "The train loader's SubsetRandomSampler hides part of the data set, so no share of the set can be kept."
            " Wrap the data set instead: DataLoader(torch.utils.data.Subset(dataset, indices), shuffle=True, ...)."
        )
    return None if drawn is None or type(drawn) is DistributedSampler or _is_plain(drawn) else drawn


def shuffles(drawn: Any) -> bool:
    """Return whether a sampler draws in a new order for each epoch."""
    if type(drawn) is DistributedSampler:
        return drawn.shuffle
    return isinstance(drawn, RandomSampler) or is_torchs(drawn, RandomSampler)


def _is_plain(sampler: object) -> bool:
    if is_torchs(sampler, RandomSampler):
        return not sampler.replacement and sampler._num_samples is None  # type: ignore[attr-defined]
    return type(sampler) is SequentialSampler


def is_torchs(sampler: object, kind: type) -> bool:
    """Return whether it is of exactly that class, or of torchdata's class of that name, as stateful loaders make it."""
    mine = type(sampler)
    return mine is kind or (mine.__module__.startswith("torchdata.") and mine.__name__ == kind.__name__)
