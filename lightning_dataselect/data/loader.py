"""The user's train loader with nothing changed but the sampler."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from lightning_dataselect.data.collate_check import checked
from lightning_dataselect.data.sampler import RecordingBatchSampler, SelectionSampler
from lightning_dataselect.data.user_sampler import draws_for_its_rank, from_all_ranks, own_order
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import InvalidLoaderError, UnsupportedLoaderError

_DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True)
class SelectedLoader:
    """A copy of a loader that follows a plan, with the parts of it that the selector talks to.

    Attributes:
        loader: the copy; the user's own loader is never written to.
        sampler: takes the plan of each epoch.
        batches: knows which samples a batch is made of.
        own_sampler: a sampler of the user's own, whose draws are kept among the selected samples, or None.
        given: the user's own loader.
        ranks_draw: whether that sampler draws for its rank alone, and not for all of them alike.
    """

    loader: DataLoader[Any]
    sampler: SelectionSampler
    batches: RecordingBatchSampler
    own_sampler: Sampler[int] | None
    given: DataLoader[Any]
    ranks_draw: bool = False

    @property
    def n(self) -> int:
        """Number of samples of the training set."""
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def apply_plan(self, plan: EpochPlan, start_batch: int = 0) -> EpochPlan:
        """Take up ``plan`` from batch ``start_batch`` on; the plan that comes back has the order filled in.

        A pass of the user's own sampler is no longer than the selected share of what it draws with nothing pruned.
        """
        if self.own_sampler is not None and plan.order is None:
            plan = replace(plan, order=own_order(self.own_sampler, plan, self.sampler, self.n, self.ranks_draw))
        self.sampler.plan = plan
        self.batches.start_batch = start_batch
        if len(self.batches) == 0:
            raise InvalidLoaderError(
                f"The epoch {plan.epoch} would have no batch: {plan.indices.numel()} of {self.n} samples are selected,"
                f" on {self.sampler.num_replicas} rank(s), and the loader's batch_size={self.batches.batch_size} with"
                " drop_last=True drops them all. Lower `prune_ratio`, lower the batch size, or set drop_last=False."
            )
        return plan


def prepare(
    loader: object, *, seed: int, world_size: int = 1, rank: int = 0, needs_losses: bool = True
) -> SelectedLoader:
    """Copy ``loader`` so that a plan decides which samples it yields.

    Everything else is kept, whatever the class: ``batch_size``, ``drop_last``, ``collate_fn`` (see `collate_order`),
    workers, pinning, ``worker_init_fn``, ``generator``. A shuffled loader is shuffled by ``seed``, a sequential one
    stays in order, and a sampler of the user's own is drawn once an epoch and filtered.

    Args:
        loader: what the user gave to ``fit`` or returned from ``train_dataloader``.
        seed: seed of the order.
        world_size: number of ranks.
        rank: this rank.
        needs_losses: whether samples must be found again in a batch: a collate function that changes their order is
            then an error, and else a warning.

    Raises:
        TypeError: if samples cannot be chosen by index from this loader; the message says what to change.
        ValueError: if the data set is empty, or the loader yields batches in another order than it draws them.
    """
    single = _single_loader(loader)
    _refuse_unindexed(single)
    drawn, batch_sampler = _index_source(single, world_size)
    own: Sampler[int] | None = None
    full_size, ranks_draw = None, False
    shuffle = isinstance(drawn, RandomSampler) or _is_torchs(drawn, RandomSampler)
    if type(drawn) is DistributedSampler:
        shuffle, world_size, rank = drawn.shuffle, drawn.num_replicas, drawn.rank
    elif isinstance(drawn, SubsetRandomSampler):
        raise UnsupportedLoaderError(
            "The train loader's SubsetRandomSampler hides part of the data set, so no share of the set can be kept."
            " Wrap the data set instead: DataLoader(torch.utils.data.Subset(dataset, indices), shuffle=True, ...)."
        )
    elif not _is_plain(drawn):
        own, full_size = drawn, len(drawn)  # type: ignore[arg-type]
        if ranks_draw := draws_for_its_rank(drawn, world_size):
            world_size, rank = dist.get_world_size(), dist.get_rank()
            full_size = sum(from_all_ranks(full_size))
    sampler = SelectionSampler(
        len(single.dataset),  # type: ignore[arg-type]
        shuffle=shuffle,
        seed=seed,
        num_replicas=world_size,
        rank=rank,
        full_size=full_size,
    )
    batches = copy.copy(batch_sampler)
    batches.sampler = sampler
    if not (consecutive := _is_torchs(batch_sampler, BatchSampler)):
        _refuse_fixed_length(batches, sampler)
    recorder = RecordingBatchSampler(batches, sampler, consecutive=consecutive)
    copied = _with_samplers(single, sampler, recorder)
    if copied.batch_sampler is not None:
        copied.collate_fn = checked(copied.collate_fn, required=needs_losses)
    return SelectedLoader(copied, sampler, recorder, own, single, ranks_draw)


def scoring_loader(selected: SelectedLoader, indices: Tensor, epoch: int) -> SelectedLoader:
    """A loader like ``selected`` that yields the samples ``indices`` once, in order, with none left out.

    Args:
        selected: the train loader.
        indices: int64 (m,), sorted.
        epoch: 0-based epoch that the samples are scored for.
    """
    sampler = SelectionSampler(
        selected.n,
        shuffle=False,
        num_replicas=selected.sampler.num_replicas,
        rank=selected.sampler.rank,
    )
    sampler.plan = EpochPlan(epoch, indices)
    batches = BatchSampler(sampler, selected.batches.batch_size or _DEFAULT_BATCH_SIZE, drop_last=False)
    recorder = RecordingBatchSampler(batches, sampler, consecutive=True)
    loader = _with_samplers(selected.loader, sampler, recorder)
    loader.generator = None  # starting workers would draw from the user's own
    return SelectedLoader(loader, sampler, recorder, None, selected.given)


def _with_samplers(
    loader: DataLoader[Any], sampler: SelectionSampler, recorder: RecordingBatchSampler
) -> DataLoader[Any]:
    copied = copy.copy(loader)
    # DataLoader refuses to set these after construction, and constructing anew would lose what subclasses hold
    if loader.batch_sampler is None:
        copied.__dict__["sampler"] = recorder
    else:
        copied.__dict__.update(sampler=sampler, batch_sampler=recorder)
    copied.__dict__["_iterator"] = None
    if hasattr(loader, "load_state_dict"):
        copied.__dict__["load_state_dict"] = _leave_to_plan
    return copied


def _leave_to_plan(state: Any) -> None:
    """Nothing: a stateful loader would leave out what the plan leaves out already."""


def _single_loader(loader: object) -> DataLoader[Any]:
    if isinstance(loader, DataLoader):
        return loader
    flattened = getattr(loader, "flattened", None)
    members = flattened if flattened is not None else loader
    if isinstance(members, list | tuple | dict):
        if len(members) == 1:
            raise UnsupportedLoaderError(
                f"The train loader is a {type(loader).__name__} around one DataLoader. Give the DataLoader itself."
            )
        raise UnsupportedLoaderError(
            f"Samples are selected from one train loader, but {len(members)} were given ({type(loader).__name__})."
            " Join the data sets with torch.utils.data.ConcatDataset into one DataLoader, or remove the selector."
        )
    raise UnsupportedLoaderError(
        f"Samples are selected from a torch.utils.data.DataLoader, but the train loader is a {type(loader).__name__}."
        " Return a DataLoader over a map-style data set, or remove the selector."
    )


def _refuse_unindexed(loader: DataLoader[Any]) -> None:
    name = type(loader.dataset).__name__
    if isinstance(loader.dataset, IterableDataset):
        raise UnsupportedLoaderError(
            f"The data set {name} is an IterableDataset: its samples have no index, so none can be selected. Use a"
            " map-style data set (with __len__ and __getitem__)."
        )
    if not hasattr(loader.dataset, "__len__"):
        raise UnsupportedLoaderError(
            f"The data set {name} has no __len__, so a share of it cannot be selected. Give it a __len__."
        )
    if len(loader.dataset) == 0:
        raise InvalidLoaderError(f"The data set {name} is empty: there are no samples to select from.")
    if not getattr(loader, "in_order", True):
        raise InvalidLoaderError(
            "The train loader has in_order=False: batches arrive in an order that nobody records, so losses could be"
            " given to the wrong samples. Set in_order=True."
        )


def _index_source(loader: DataLoader[Any], world_size: int) -> tuple[Sampler[int], BatchSampler]:
    """The sampler that the indices come from, and the batch sampler that groups them."""
    batch_sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    if loader.batch_sampler is None and (not isinstance(batch_sampler, BatchSampler) or world_size > 1):
        raise UnsupportedLoaderError(
            f"The train loader has batch_size=None and the sampler {type(loader.sampler).__name__}"
            f" on {world_size} rank(s): which samples make a batch cannot be seen. Give it a batch_size, or, on one"
            " rank, sampler=torch.utils.data.BatchSampler(...)."
        )
    drawn = getattr(batch_sampler, "sampler", None)
    if drawn is None:
        raise UnsupportedLoaderError(
            f"The batch sampler {type(batch_sampler).__name__} has no `sampler` attribute, so it cannot be told which"
            " samples are selected. Derive it from torch.utils.data.BatchSampler and draw from `self.sampler`, or give"
            " the loader batch_size= and shuffle= in place of batch_sampler=."
        )
    for part in (drawn, batch_sampler):
        if not hasattr(part, "__len__"):
            raise UnsupportedLoaderError(
                f"The train loader's {type(part).__name__} has no __len__, so the length of an epoch is unknown. Give"
                " it a __len__."
            )
    return drawn, batch_sampler  # type: ignore[return-value]


def _refuse_fixed_length(batches: BatchSampler, sampler: SelectionSampler) -> None:
    """Lightning goes by the length: an epoch that ends before it is never validated."""
    whole, before = len(batches), sampler.plan
    sampler.plan = EpochPlan(before.epoch, before.indices[:1])
    is_fixed = whole == len(batches) > 1
    sampler.plan = before
    if is_fixed:
        raise UnsupportedLoaderError(
            f"The batch sampler {type(batches).__name__} answers len() with {whole} even where only one sample is"
            " selected, so the end of an epoch, and validation with it, would be missed. Let its __len__ count from"
            " len(self.sampler), or give the loader `batch_size=` and `shuffle=` in place of `batch_sampler=`."
        )


def _is_plain(sampler: Sampler[int]) -> bool:
    if _is_torchs(sampler, RandomSampler):
        return not sampler.replacement and sampler._num_samples is None  # type: ignore[attr-defined]
    return type(sampler) is SequentialSampler


def _is_torchs(sampler: object, kind: type) -> bool:
    """Whether it is one of just that class, or of torchdata's of that name, which a stateful loader makes."""
    mine = type(sampler)
    return mine is kind or (mine.__module__.startswith("torchdata.") and mine.__name__ == kind.__name__)
