"""The columns of a stream's samples on all ranks, and random numbers that follow from their keys."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_dataselect.state.class_history import UNKNOWN
from lightning_dataselect.state.key_filter import hashes_of
from lightning_dataselect.state.stream_store import KeyedStore


@dataclass(frozen=True)
class StreamRows:
    """Hold what all ranks know of a stream's samples, the same on every rank.

    Attributes:
        hashes: int64 (M,), of the samples' keys; a key that several ranks have read occurs as often.
        columns: By name, float32 (M,), on the CPU.
        own: The rows of this rank.
        slots: int64 (n,), where the samples of these rows are in the store.
        knows_classes: True once a rank has seen the logits of classes; there are columns ``label`` and ``predicted``
            then.
    """

    hashes: Tensor
    columns: Mapping[str, Tensor]
    own: slice
    slots: Tensor
    knows_classes: bool

    def draw(self, seed: int, epoch: int, purpose: str) -> Tensor:
        """Return a random number for each row, float64 (M,) in [0, 1), the same wherever and whenever its key is read.

        Example:
            >>> rows = StreamRows(torch.tensor([5, 6, 5]), {}, slice(0, 3), torch.arange(3), False)
            >>> u = rows.draw(0, 2, "trial")
            >>> bool(u[0] == u[2]), bool(u[0] == u[1]), bool((u < 1).all())
            (True, False, True)
        """
        salt = np.uint64(random.Random(f"{seed}/{epoch}/{purpose}").getrandbits(64))
        x = self.hashes.numpy().view(np.uint64) ^ salt
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finish of splitmix64
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
        return torch.from_numpy((x >> np.uint64(11)).astype(np.float64) / 2**53)


def gather_rows(store: KeyedStore, names: Iterable[str], world_size: int) -> StreamRows:
    """Return the columns ``names``, and what is known of classes, of the samples of all ranks.

    All ranks must call it together.
    """
    device = store.device
    knows_classes = _any_rank(store.knows_classes, world_size, device)
    # by hash, since slots depend on what came when, and a resumed fit must add up in the same order
    hashes, slots = hashes_of(store.keys).sort()
    columns = {name: store.column(name)[slots] for name in names}
    if knows_classes:
        unknown = torch.full((len(hashes),), UNKNOWN)
        for name in ("label", "predicted"):
            columns[name] = (store.column(name)[slots] if store.knows_classes else unknown).float()
    if world_size == 1:
        return StreamRows(hashes, columns, slice(0, len(hashes)), slots, knows_classes)
    sizes = _all_gather(torch.tensor([len(hashes)], device=device), world_size)
    counts = [int(size) for size in sizes]
    begin = sum(counts[: dist.get_rank()])

    def of_all(column: Tensor) -> Tensor:
        padded = column.new_zeros(max(counts))
        padded[: len(column)] = column
        parts = _all_gather(padded.to(device), world_size)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]).cpu()

    gathered = {name: of_all(column) for name, column in columns.items()}
    return StreamRows(of_all(hashes), gathered, slice(begin, begin + len(hashes)), slots, knows_classes)


def _any_rank(value: bool, world_size: int, device: torch.device) -> bool:
    if world_size == 1:
        return value
    anyone = torch.tensor([value], dtype=torch.int32, device=device)
    dist.all_reduce(anyone, dist.ReduceOp.MAX)
    return bool(anyone)


def _all_gather(mine: Tensor, world_size: int) -> list[Tensor]:
    everyones = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(everyones, mine)
    return everyones
