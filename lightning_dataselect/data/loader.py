"""The user's train loader, with only the sampler changed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
)

from lightning_dataselect.data.batches import RecordingBatchSampler
from lightning_dataselect.data.collate_check import checked, report_rows
from lightning_dataselect.data.delivery import iterates_itself
from lightning_dataselect.data.places import Collate, sorts_what_it_reads
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.data.sampler_settings import WrittenSettings, is_torchs, own_sampler, shuffles
from lightning_dataselect.data.shared_attributes import SharedAttributes
from lightning_dataselect.data.user_sampler import OwnDraws, draws_for_its_rank, twin
from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import InvalidLoaderError, UnsupportedLoaderError

_DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True)
class SelectedLoader:
    """A copy of a loader that follows a plan, with the parts that the selector uses.

    Attributes:
        loader: The copy, only for the training loop; the user's own loader is never modified.
        shown: Another copy, for everyone else: its batches are those of the plan, and its samplers behave like the
            user's.
        sampler: Receives the plan of each epoch.
        batches: Knows the samples of each batch.
        given: The user's own loader.
        shared: What is written to one of these loaders and concerns all.
    """

    loader: DataLoader[Any]
    shown: DataLoader[Any]
    sampler: SelectionSampler
    batches: RecordingBatchSampler
    given: DataLoader[Any]
    shared: SharedAttributes

    @property
    def n(self) -> int:
        """Number of samples of the training set."""
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def apply_plan(self, plan: EpochPlan, start_batch: int = 0) -> None:
        """Follow ``plan`` from batch ``start_batch`` on.

        Raises:
            InvalidLoaderError: If the epoch would have no batch.
        """
        self.sampler.plan = plan
        self.batches.start_batch = start_batch
        if self.batches.n_of_plan == 0:
            keep_more = "Keep more samples, lower" if plan.indices.numel() < self.n else "Lower"
            raise InvalidLoaderError(
                f"Epoch {plan.epoch} would have no batch: {plan.indices.numel()} of {self.n} samples are selected,"
                f" on {self.sampler.num_replicas} rank(s), and the loader's batch_size={self.batches.batch_size} with"
                f" drop_last=True drops them all. {keep_more} the batch size, or set drop_last=False."
            )

    def meet_samples(self) -> None:
        """Note how many samples the data set has now."""
        self.batches.catch_up()
        own = self.batches.own
        if own is None or own.sampler is None:
            self.sampler.full_size = self.n
        if own is not None:
            self.batches.own = replace(own, n=self.n)


def prepare(
    loader: object,
    *,
    seed: int,
    world_size: int = 1,
    rank: int = 0,
    needs_losses: bool = True,
    memory: InMemory = IN_MEMORY,
) -> SelectedLoader:
    """Copy ``loader`` so that a plan decides which samples it yields.

    Everything else is kept, whatever the class: ``batch_size``, ``drop_last``, ``collate_fn`` (see `collate_check`),
    workers, pinning, ``worker_init_fn``, ``generator``. A shuffled loader is shuffled by ``seed``, a sequential one
    stays in order, and the user's own sampler or batch sampler is drawn once per epoch and filtered.

    Args:
        loader: The user's own, see `choose_loader`.
        seed: Seed of the order.
        world_size: Number of ranks.
        rank: This rank.
        needs_losses: Whether samples must be identified in a batch, in which case a collate function that changes their
            order is an error; otherwise it is a warning.
        memory: Where the order of an epoch is allocated.

    Raises:
        UnsupportedLoaderError: If samples cannot be chosen by index from this loader; the message says what to change.
        InvalidLoaderError: If the data set is empty, or the loader yields batches in another order than it draws them.
    """
    single = _indexed(loader)
    batch_sampler = _batch_sampler_of(single, world_size)
    drawn = getattr(batch_sampler, "sampler", None)
    makes_batches = not is_torchs(batch_sampler, BatchSampler)
    own, ranks_draw = own_sampler(drawn), False
    shuffle = shuffles(drawn)
    if type(drawn) is DistributedSampler:
        world_size, rank = drawn.num_replicas, drawn.rank
    elif own is not None or drawn is None:
        ranks_draw = draws_for_its_rank(batch_sampler if drawn is None else drawn, world_size)
        if ranks_draw:
            world_size, rank = dist.get_world_size(), dist.get_rank()
    n, draws = len(single.dataset), makes_batches or own is not None  # type: ignore[arg-type]
    draws_own = OwnDraws(n, own, batch_sampler if makes_batches else None, ranks_draw) if draws else None
    sampler = SelectionSampler(
        n,
        shuffle=shuffle,
        seed=seed,
        num_replicas=world_size,
        rank=rank,
        full_size=None if draws_own is None else draws_own.full_size,
        followers=tuple(part for part in _parts(single) if callable(getattr(part, "set_epoch", None))),
        memory=memory,
    )
    size = getattr(batch_sampler, "batch_size", None)
    recorder = RecordingBatchSampler(
        sampler,
        size if isinstance(size, int) else None,
        drop_last=bool(getattr(batch_sampler, "drop_last", False)),
        own=draws_own,
    )
    recorder.n_now = functools.partial(len, single.dataset)  # type: ignore[arg-type]
    recorder.catch_up = WrittenSettings(recorder, batch_sampler, ranks_draw, recorder.n_now).take_over
    if sorts_what_it_reads(single):
        _say_sorted(single.dataset, required=needs_losses)
    shown = _shown(single, recorder)
    collates = single.batch_sampler is not None
    collate = functools.partial(checked, required=needs_losses) if collates else _as_it_is
    shared = SharedAttributes(single, shown, collate)
    copied = _with_samplers(single, sampler, recorder, shared.share)
    copied.collate_fn = collate(copied.collate_fn)
    shared.lead_to(copied)
    return SelectedLoader(copied, shown, sampler, recorder, single, shared)


def scoring_loader(selected: SelectedLoader, indices: Tensor, epoch: int) -> SelectedLoader:
    """Return a loader like ``selected`` that yields each of the samples ``indices`` once, in order.

    Args:
        selected: The train loader.
        indices: int64 (m,), sorted.
        epoch: 0-based epoch that the samples are scored for.
    """
    sampler = SelectionSampler(
        selected.n,
        shuffle=False,
        num_replicas=selected.sampler.num_replicas,
        rank=selected.sampler.rank,
        memory=selected.sampler.memory,
    )
    sampler.plan = EpochPlan(epoch, indices)
    recorder = RecordingBatchSampler(sampler, selected.batches.batch_size or _DEFAULT_BATCH_SIZE)
    loader = _with_samplers(selected.loader, sampler, recorder)
    loader.generator = None  # starting workers would draw from the user's own generator
    return SelectedLoader(loader, selected.shown, sampler, recorder, selected.given, selected.shared)


def _with_samplers(
    loader: DataLoader[Any],
    sampler: SelectionSampler,
    recorder: RecordingBatchSampler,
    begin: Callable[[], None] | None = None,
) -> DataLoader[Any]:
    copied = copy.copy(loader)
    # DataLoader refuses to set these after construction, and a new instance would lose the state of subclasses
    if loader.batch_sampler is None:
        copied.__dict__["sampler"] = recorder
    else:
        copied.__dict__.update(sampler=sampler, batch_sampler=recorder)
    copied.__dict__["_iterator"] = None
    recorder.is_delivered = iterates_itself(loader)
    report_rows(copied, recorder.arrive, begin, recorder.deliver if recorder.is_delivered else None)
    if hasattr(loader, "load_state_dict"):
        copied.__dict__["load_state_dict"] = _leave_to_plan
    return copied


def _as_it_is(collate_fn: Collate) -> Collate:
    return collate_fn


def _leave_to_plan(state: Any) -> None:
    """Do nothing: a stateful loader would skip batches that the plan already skips."""


def _shown(loader: DataLoader[Any], recorder: RecordingBatchSampler) -> DataLoader[Any]:
    """Return a copy of the user's ``loader`` with the plan's batches, and samplers that behave like the user's."""
    copied = copy.copy(loader)
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    answers = {"__iter__": lambda self: recorder.peek(), "__len__": lambda self: len(recorder)}
    copied.__dict__.update({name: twin(getattr(loader, name), **answers), "_iterator": None})
    return copied


def _indexed(loader: object) -> DataLoader[Any]:
    """Return ``loader`` if samples can be chosen from it by their index."""
    if not isinstance(loader, DataLoader):
        raise UnsupportedLoaderError(
            f"Samples are selected from a torch.utils.data.DataLoader, but the train loader is of the type"
            f" {type(loader).__name__}. Return a DataLoader over a map-style data set, or remove the selector."
        )
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
            "The train loader has in_order=False: batches arrive in an unknown order, so losses could be assigned to"
            " the wrong samples. Set in_order=True."
        )
    return loader


def _say_sorted(dataset: object, *, required: bool) -> None:
    words = (
        f"The data set {type(dataset).__name__} is given several indices at once and returns their samples in another"
        " order, so one sample's loss would be taken for another's. If it has to read them sorted, as from an HDF5"
        " file, put them back: order = numpy.argsort(indices); samples = file[indices[order]]; return"
        " samples[numpy.argsort(order)]."
    )
    if required:
        raise InvalidLoaderError(words)
    rank_zero_warn(words)


def _batch_sampler_of(loader: DataLoader[Any], world_size: int) -> Any:
    """Return the sampler that groups the indices into batches."""
    batch_sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    if loader.batch_sampler is None and (not isinstance(batch_sampler, BatchSampler) or world_size > 1):
        raise UnsupportedLoaderError(
            f"The train loader has batch_size=None and the sampler {type(loader.sampler).__name__}"
            f" on {world_size} rank(s): which samples make a batch cannot be seen. Give it a batch_size, or, on one"
            " rank, sampler=torch.utils.data.BatchSampler(...)."
        )
    for part in (getattr(batch_sampler, "sampler", ()), batch_sampler):
        if not hasattr(part, "__len__"):
            raise UnsupportedLoaderError(
                f"The train loader's {type(part).__name__} has no __len__, so the length of an epoch is unknown. Give"
                " it a __len__."
            )
    return batch_sampler


def _parts(loader: DataLoader[Any]) -> list[Any]:
    """Return the samplers whose ``set_epoch`` Lightning calls."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    return [loader.sampler] if inner is None or inner is loader.sampler else [loader.sampler, inner]
