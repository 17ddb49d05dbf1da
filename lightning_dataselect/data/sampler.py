"""The order of an epoch: the selected samples, shuffled, sharded over ranks, started in the middle after a resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, Sampler

from lightning_dataselect.numerics.sampling import random_order
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import UnsupportedLoaderError, UnsupportedTrainerError

_CHUNK = 1 << 16


class SelectionSampler(DistributedSampler[int]):
    """Yields the samples of a plan that belong to this rank.

    It is a ``DistributedSampler``, because Lightning wraps any other sampler in one of frozen length. Iterating it is
    pure: the same plan gives the same order however often it is iterated. Every rank yields equally many samples; the
    last ranks repeat one sample where the count does not divide.

    Args:
        n: number of samples of the training set.
        shuffle: whether the order is shuffled, anew for each epoch, or ascending.
        seed: seed of the order.
        num_replicas: number of ranks.
        rank: this rank.
        full_size: number of samples of an epoch with nothing pruned, ``n`` unless the user's sampler draws otherwise.

    Example:
        >>> sampler = SelectionSampler(6, shuffle=False)
        >>> sampler.plan = EpochPlan(epoch=1, indices=torch.tensor([1, 4, 5]))
        >>> list(sampler), len(sampler)
        ([1, 4, 5], 3)
    """

    def __init__(
        self,
        n: int,
        *,
        shuffle: bool,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        full_size: int | None = None,
    ) -> None:
        super().__init__(range(n), num_replicas, rank, shuffle, seed)  # type: ignore[arg-type]
        self.full_size = n if full_size is None else full_size
        self.plan = EpochPlan(0, torch.arange(n))
        self.n_readings = 0
        """How often it was iterated: a batch sampler that never does draws its indices from elsewhere."""
        self.announce_full = False
        """Whether ``len`` answers for the whole set: schedules that are built before training count whole epochs."""

    def __len__(self) -> int:
        """How many samples this rank yields."""
        return self.full_len if self.announce_full else self._shard_size(self._plan_size())

    @property
    def full_len(self) -> int:
        """How many samples this rank yields with nothing pruned."""
        return self._shard_size(self.full_size)

    @property
    def n_unpadded(self) -> int:
        """How many of the samples that this rank yields are its own, not repeated to make ranks even."""
        return len(range(self.rank, self._plan_size(), self.num_replicas))

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the plan says which epoch it is for."""

    def __iter__(self) -> Iterator[int]:
        """The dataset indices of this rank, in order."""
        self.n_readings += 1
        size = self._plan_size()
        order = self._order()
        mine = order[self.rank :: self.num_replicas]
        for chunk in mine.split(_CHUNK):
            yield from self._resolve(chunk).tolist()
        if mine.numel() < self._shard_size(size):
            position = (mine.numel() * self.num_replicas + self.rank) % size
            yield from self._resolve(order[position : position + 1]).tolist()

    def _plan_size(self) -> int:
        return self.plan.indices.numel() if self.plan.order is None else self.plan.order.numel()

    def _shard_size(self, size: int) -> int:
        return -(-size // self.num_replicas)

    def _order(self) -> Tensor:
        if self.plan.order is not None:
            return self.plan.order
        size = self._plan_size()
        if not self.shuffle:
            return torch.arange(size, dtype=torch.int32 if size < 2**31 else torch.int64)
        return random_order(size, epoch_generator(self.seed, self.plan.epoch, "order"))

    def _resolve(self, chunk: Tensor) -> Tensor:
        return chunk if self.plan.order is not None else self.plan.indices[chunk.long()]


@dataclass(frozen=True)
class BatchIndices:
    """The samples of one batch: their dataset indices, of which the first ``n_unpadded`` are not repeats."""

    batch_idx: int
    indices: list[int]
    n_unpadded: int


class RecordingBatchSampler(Sampler[list[int]]):
    """Passes on the batches of a batch sampler and remembers their indices until the training loop asks for them.

    The main process draws the indices of every batch in order, however many workers read them, so the record is exact
    with prefetching and persistent workers.

    Args:
        batches: the batch sampler, drawing from ``sampler``.
        sampler: where its indices come from.
        consecutive: whether the batches cut the sampler's order into pieces of ``batches.batch_size``.
    """

    def __init__(self, batches: Iterable[list[int]], sampler: SelectionSampler, *, consecutive: bool) -> None:
        self.batches = batches
        self.sampler = sampler
        self.batch_size = getattr(batches, "batch_size", None)
        self.drop_last = getattr(batches, "drop_last", False)
        self.start_batch = 0
        """The first batch that is yielded, greater than 0 when an epoch goes on after a resume."""
        self._consecutive = consecutive
        self._record: deque[BatchIndices] = deque()

    def __len__(self) -> int:
        """Number of batches of a whole epoch of the present plan, whatever ``start_batch`` is."""
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the present plan from ``start_batch`` on."""
        record: deque[BatchIndices] = deque()
        self._record = record
        start, own, position = self.start_batch, self.sampler.n_unpadded, 0
        selected, n_readings = self.sampler.plan.indices, self.sampler.n_readings
        for batch_idx, batch in enumerate(self._none_of_one() if self._consecutive else self.batches):
            if batch_idx == start and not self._consecutive:
                self._check_drawn_from(batch, selected, read=self.sampler.n_readings > n_readings)
            if batch_idx >= start:
                n_unpadded = min(max(own - position, 0), len(batch)) if self._consecutive else len(batch)
                record.append(BatchIndices(batch_idx, batch, n_unpadded))
                yield batch
            position += len(batch)

    def _none_of_one(self) -> Iterator[list[int]]:
        """The batches, the last of them lent a sample by the one before if pruning has left it with one.

        BatchNorm, for one, refuses a batch of one sample, which the whole set may never have made.
        """
        size = self.batch_size or 1
        if size < 3 or self.sampler.full_len % size == 1:
            yield from self.batches
            return
        before: list[int] = []
        for batch in self.batches:
            if len(batch) == 1 and before:
                batch = [before.pop(), *batch]
            if before:
                yield before
            before = batch
        if before:
            yield before

    def size_of(self, batch_idx: int) -> int:
        """Number of samples of a batch that was drawn and not yet taken."""
        return len(self._record[batch_idx - self._record[0].batch_idx].indices)

    def take(self, batch_idx: int) -> BatchIndices:
        """What batch ``batch_idx`` of this epoch is made of; earlier records are forgotten."""
        while self._record and self._record[0].batch_idx < batch_idx:
            self._record.popleft()
        if not self._record or self._record[0].batch_idx != batch_idx:
            raise UnsupportedTrainerError(
                f"Batch {batch_idx} reached the training step, but the loader was never asked for its indices. The"
                " train loader that the Trainer uses is not the one that the selector prepared: does another callback"
                " or strategy replace it? Put the selector first in `callbacks`, or remove the other."
            )
        return self._record.popleft()

    def _check_drawn_from(self, batch: list[int], selected: Tensor, *, read: bool) -> None:
        if not read or not bool(torch.isin(torch.tensor(batch), selected).all()):
            raise UnsupportedLoaderError(
                f"The batch sampler {type(self.batches).__name__} yields samples whether they are selected or not: it"
                " has a `sampler` attribute but does not draw its indices from it. Let its __iter__ read"
                " `self.sampler`, or give the loader `batch_size=` and `shuffle=` in place of `batch_sampler=`."
            )
