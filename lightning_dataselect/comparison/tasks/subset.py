"""A task on a part of its training data, the same part for every run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.utils.errors import UserInputError

_KEPT = (
    *("num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("generator", "prefetch_factor", "persistent_workers"),
)


@dataclass(frozen=True)
class SubsetTask:
    """A task whose train loader gives a part of its data set, drawn once; validation stays whole.

    Attributes:
        task: On all of the data.
        share: Of the samples that are left.
    """

    task: Task
    share: float

    @property
    def epochs(self) -> int:
        """Of a full run."""
        return self.task.epochs

    @property
    def set_aside(self) -> Sequence[str]:
        """Selectors that the task trains with otherwise."""
        return self.task.set_aside

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, Any]:
        """Return fresh trainer, module and data; see `Task.build`."""
        trainer, module, data = self.task.build(
            seed=seed, epochs=epochs, callbacks=callbacks, root=root, fast_dev_run=fast_dev_run
        )
        shrink = functools.partial(part_of, share=self.share)
        if data is None or hasattr(data, "train_dataloader"):
            owner: Any = module if data is None else data
            owner.train_dataloader = _then(owner.train_dataloader, shrink)
            return trainer, module, data
        if isinstance(data, tuple | list) and len(data) == 2:
            return trainer, module, (shrink(data[0]), data[1])
        return trainer, module, shrink(data)

    def origins(self) -> Iterable[Any]:
        """Return the classes and functions that the task is made of."""
        return self.task.origins()

    def described(self) -> dict[str, Any]:
        """Return the task's settings, and the share."""
        return {**self.task.described(), "share_of_data": self.share}


def part_of(loader: Any, share: float) -> DataLoader[Any]:
    """Return a loader like another one, of a part of its data set.

    Args:
        loader: A DataLoader over a map-style data set, shuffled or in order.
        share: Of the samples that are left; which, is drawn by a fixed seed.

    Raises:
        UserInputError: If it is anything else.

    Example:
        >>> loader = part_of(DataLoader(range(100), batch_size=5, shuffle=True), 0.25)
        >>> len(loader.dataset), len(loader), type(loader.sampler).__name__
        (25, 5, 'RandomSampler')
    """
    why = _why_whole(loader)
    if why:
        raise UserInputError(
            f"--budget leaves room for a part of the data only, and {why}: give more, fewer methods or fewer --epochs."
        )
    n = len(loader.dataset)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: max(1, round(share * n))]
    shuffle = isinstance(loader.sampler, RandomSampler)
    kept = {name: getattr(loader, name) for name in _KEPT}
    return DataLoader(Subset(loader.dataset, chosen.tolist()), loader.batch_size, shuffle=shuffle, **kept)


def _why_whole(loader: Any) -> str:
    """Why no part of a loader's data can be taken; nothing if it can."""
    if not isinstance(loader, DataLoader):
        return f"the train loader is a {type(loader).__name__}"
    if isinstance(loader.dataset, IterableDataset):
        return "the data set is a stream"
    if loader.batch_size is None:
        return "the train loader has batches of its own"
    sampler = loader.sampler
    if type(sampler) not in (RandomSampler, SequentialSampler) or getattr(sampler, "replacement", False):
        return f"the train loader has a sampler of its own, {type(sampler).__name__}"
    return ""


def _then(hook: Callable[[], Any], change: Callable[[Any], Any]) -> Callable[[], Any]:
    @functools.wraps(hook)
    def changed() -> Any:
        return change(hook())

    return changed
