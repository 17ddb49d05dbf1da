"""The order of an epoch: the selected samples, shuffled, sharded over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.numerics.shuffle import random_order
from lightning_dataselect.state.plan import EpochPlan

_CHUNK = 1 << 16


class SelectionSampler(DistributedSampler[int]):
    """Yield the samples of a plan that belong to this rank.

    It is a ``DistributedSampler``, because Lightning wraps any other sampler in one of fixed length. Iterating it has
    no side effects: the same plan gives the same order however often it is iterated. Every rank yields the same number
    of samples; if the count does not divide evenly, the last ranks repeat one sample.

    Args:
        n: Number of samples of the training set.
        shuffle: Whether the order is shuffled again for each epoch, rather than ascending.
        seed: Seed of the order.
        num_replicas: Number of ranks.
        rank: This rank.
        full_size: Number of samples in an unpruned epoch; ``n`` unless the user's sampler draws another number.
        followers: The user's own samplers, whose ``set_epoch`` is called whenever this one's is.
        memory: Where the order is allocated.

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
        followers: tuple[Any, ...] = (),
        memory: InMemory = IN_MEMORY,
    ) -> None:
        super().__init__(range(n), num_replicas, rank, shuffle, seed)  # type: ignore[arg-type]
        self.full_size = n if full_size is None else full_size
        self.plan = EpochPlan.everything(0, n, memory)
        self.announce_full = False
        """True to make ``len`` count the whole set: schedules that are built before training count full epochs."""
        self._followers = followers
        self.memory = memory
        self._told_epoch: int | None = None

    def __len__(self) -> int:
        """Return how many samples this rank yields."""
        return self.full_len if self.announce_full else self._shard_size(self._plan_size())

    @property
    def full_len(self) -> int:
        """The number of samples that this rank yields in an unpruned epoch."""
        return self._shard_size(self.full_size)

    @property
    def n_unpadded(self) -> int:
        """The number of this rank's samples that are not repeated to make ranks even."""
        return len(range(self.rank, self._plan_size(), self.num_replicas))

    def set_epoch(self, epoch: int) -> None:
        """Pass ``epoch`` on to the user's samplers, for which Lightning intends it; the plan has its own."""
        self._told_epoch = epoch
        for sampler in self._followers:
            sampler.set_epoch(epoch)

    def announce_epoch(self) -> None:
        """Tell the user's samplers the epoch of the plan, unless Lightning has done so."""
        if self._told_epoch != self.plan.epoch:
            self.set_epoch(self.plan.epoch)

    def __iter__(self) -> Iterator[int]:
        """Yield the dataset indices of this rank, in order."""
        for indices in self.go_through(0, _CHUNK):
            yield from indices.tolist()

    def go_through(self, turn: int, size: int) -> Iterator[Tensor]:
        """Yield the dataset indices of this rank in an epoch that repeats its plan.

        Each repeat has the samples that the rank had the first time, in a new order if they are shuffled.

        Args:
            turn: Number of the repeat, from 0.
            size: How many are yielded at once, as int64 (size,); the last tensor may be shorter. They share memory.
        """
        n = self._plan_size()
        order = self._order()
        mine = order[self.rank :: self.num_replicas]
        if not mine.is_contiguous():
            mine = self.memory.copy(mine)
        if mine.numel() < self._shard_size(n):
            position = (mine.numel() * self.num_replicas + self.rank) % n
            lent = order[position : position + 1].clone()
        else:
            lent = order[:0].clone()
        del order  # of all ranks, which should not be kept while this one iterates over its own part
        if turn and self.shuffle and self.plan.order is None:
            generator = epoch_generator(self.seed, self.plan.epoch, f"order of rank {self.rank}, time {turn}")
            with self.memory.active():
                anew = random_order(mine.numel(), generator)
            mine = torch.index_select(mine, 0, anew, out=self.memory.empty(mine.shape, mine.dtype))
            del anew
        if lent.numel() > 0:
            mine = torch.cat([mine, lent], out=self.memory.empty((mine.numel() + 1,), mine.dtype))
        step = max(_CHUNK // size, 1) * size
        for start in range(0, mine.numel(), step):
            yield from self._resolve(mine[start : start + step]).split(size)

    def _plan_size(self) -> int:
        return self.plan.indices.numel() if self.plan.order is None else self.plan.order.numel()

    def _shard_size(self, size: int) -> int:
        return -(-size // self.num_replicas)

    def _order(self) -> Tensor:
        if self.plan.order is not None:
            return self.plan.order
        size = self._plan_size()
        if not self.shuffle:
            return torch.arange(size, out=self.memory.empty((size,), torch.int32 if size < 2**31 else torch.int64))
        with self.memory.active():
            return random_order(size, epoch_generator(self.seed, self.plan.epoch, "order"))

    def _resolve(self, chunk: Tensor) -> Tensor:
        return chunk if self.plan.order is not None else self.plan.indices[chunk.long()]
