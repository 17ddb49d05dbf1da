"""The user's own samplers and batch samplers: drawn once per epoch, on each rank or for all, and filtered."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DistributedSampler

from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.numerics.sizes import whole_size
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import InvalidLoaderError

# Random draws miss their share by a few per cent; a fold of the data set misses by far more.
_FEWEST_DRAWN = 0.75
_MOST_DRAWN = 2**28  # at eight bytes each, what a machine has room for
_T = TypeVar("_T")


class Most(NamedTuple):
    """The most that the Trainer takes from an epoch, of all ranks; None for no limit.

    Attributes:
        batches: Number of batches.
        samples: Number of samples, if all batches have the same size.
    """

    batches: int | None
    samples: int | None


UNLIMITED = Most(None, None)
"""All of an epoch is trained on."""


@dataclass(frozen=True)
class OwnDraws:
    """The epoch as drawn by the user's own sampler and batch sampler.

    They are drawn when the epoch's first batch is requested, as a DataLoader does, so that changes made in hooks until
    then take effect.

    Attributes:
        n: Number of samples of the data set.
        sampler: Draws samples; None if the order follows from the selector's seed.
        batch_sampler: Makes batches; None if they have the loader's ``batch_size``.
        ranks_draw: Whether ``sampler`` draws only for its rank, rather than the same for all ranks.
    """

    n: int
    sampler: Any | None
    batch_sampler: Any | None
    ranks_draw: bool = False

    @property
    def makes_batches(self) -> bool:
        """True if the user's own batch sampler makes the batches."""
        return self.batch_sampler is not None

    def expected_batches(self, selection: SelectionSampler) -> int:
        """Return the expected number of batches of the plan, before they are drawn."""
        assert self.batch_sampler is not None
        return min(len(with_sampler(self.batch_sampler, selection)), len(self.batch_sampler))

    @property
    def full_size(self) -> int | None:
        """Samples that the user's own sampler draws for an unpruned epoch, of all ranks; None if there is none."""
        if self.sampler is None:
            return None
        return sum(from_all_ranks(len(self.sampler))) if self.ranks_draw else len(self.sampler)

    def draw(self, selection: SelectionSampler, unit: int, most: Most = UNLIMITED) -> EpochPlan:
        """Return the plan of ``selection`` with the order and the batches in which all ranks iterate over its samples.

        The order of a sampler is no longer than the selected share of an unpruned draw, rounded up to whole batches if
        that gives whole ones.

        Args:
            selection: Has the plan, and distributes the order over the ranks.
            unit: Samples in a full batch of all ranks; a selection is rounded to a multiple of it.
            most: No more of the epoch is trained on, so that no more is drawn.

        Raises:
            InvalidLoaderError: If none of the selected samples was drawn, or something else than their indices.
        """
        plan = selection.plan
        selection.announce_epoch()
        if self.sampler is not None:
            unit = unit if plan.indices.numel() < self.n else 1
            plan = replace(plan, order=self._order(plan, selection, unit, most.samples))
        if self.batch_sampler is None:
            return plan
        given, selection.plan = selection.plan, plan
        lists = [*islice(_kept_batches(self.batch_sampler, selection, self.n), most.batches)]
        selection.plan = given
        order = torch.from_numpy(np.fromiter((index for batch in lists for index in batch), np.int64))
        sizes = torch.tensor([len(batch) for batch in lists], dtype=torch.int64)
        if selection.num_replicas > 1:
            order, sizes = _batches_in_turns(from_all_ranks((order, sizes)))
        if order.numel() == 0:
            raise _drew_nothing(self.batch_sampler, plan)
        return replace(plan, order=order, batch_sizes=sizes)

    def peek(self, selection: SelectionSampler, batch_size: int | None) -> Iterator[list[int]]:
        """Yield the batches of an extra pass over the samplers, on this rank only."""
        kept = _mask(selection.plan, self.n)
        if self.batch_sampler is not None:
            yield from _kept_batches(self.batch_sampler, selection, self.n)
            return
        assert self.sampler is not None and batch_size is not None
        drawn = (index for index in self.sampler if kept[index])
        while batch := list(islice(drawn, batch_size)):
            yield batch

    def _order(self, plan: EpochPlan, selection: SelectionSampler, unit: int, most: int | None) -> Tensor:
        assert self.sampler is not None
        drawn = self._drawn(plan, most)
        if selection.num_replicas > 1:
            drawn = _in_turns(from_all_ranks(drawn)) if self.ranks_draw else _from_first_rank(drawn)
        order = drawn[_mask(plan, self.n)[drawn]]
        if order.numel() == 0:
            raise _drew_nothing(self.sampler, plan)
        full_size = self.full_size
        assert full_size is not None
        # a sampler may draw fewer samples from epoch to epoch; Lightning takes no more than at first
        share = max(round(min(full_size, selection.full_size) * plan.indices.numel() / self.n), 1)
        share = share if most is None else min(share, most)
        if order.numel() < _FEWEST_DRAWN * share:
            rank_zero_warn(
                f"The sampler {type(self.sampler).__name__} draws far fewer of the selected samples than their share of"
                " the data set, so more is dropped than you asked for. If it draws from a part of the data set, wrap"
                " the data set in torch.utils.data.Subset and let it draw from all of that."
            )
        return order[: whole_size(share, order.numel(), unit)]

    def _drawn(self, plan: EpochPlan, most: int | None) -> Tensor:
        """Return what the sampler draws, int64 (m,); only as much as contains ``most`` selected samples, if given."""
        assert self.sampler is not None
        n_drawn = len(self.sampler)
        indices = _indices(islice(self.sampler, n_drawn), self.n, self.sampler)
        if most is None or n_drawn <= most:
            if n_drawn > max(_MOST_DRAWN, 2 * self.n):
                raise _draws_too_many(self.sampler, n_drawn)
            return torch.from_numpy(np.fromiter(indices, np.int64))
        kept, found = _mask(plan, self.n).numpy(), list[int]()
        for index in indices:
            if len(found) == most:
                break
            if kept[index]:
                found.append(index)
        return torch.tensor(found, dtype=torch.int64)


def draws_for_its_rank(sampler: object, world_size: int) -> bool:
    """Return whether each of several ranks trains on what its own sampler draws, as it would under Lightning."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    return isinstance(sampler, DistributedSampler) or world_size == 1  # 1: use_distributed_sampler=False


def from_all_ranks(mine: _T) -> list[_T]:
    """Return the values of all ranks, by rank."""
    everyones = [mine] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return everyones


def twin(original: Any, **members: Any) -> Any:
    """Return an object of the class of ``original`` that shares its attributes, but has some members of its own.

    Reading or writing an attribute of one reads or writes that of the other.

    Example:
        >>> class Bucketed:
        ...     epoch = 0
        ...     def set_epoch(self, epoch): self.epoch = epoch
        >>> bucketed = Bucketed()
        >>> other = twin(bucketed, __len__=lambda self: 7)
        >>> other.set_epoch(3)
        >>> bucketed.epoch, len(other), isinstance(other, Bucketed)
        (3, 7, True)
    """
    cls = type(original)
    if not hasattr(original, "__dict__"):  # a list, say, whose items cannot be shared
        asked = {"__getattr__": lambda self, name: getattr(original, name)}
        items = {"__getitem__": lambda self, key: original[key]}
        return type(cls.__name__, (), {**asked, **items, **members})()
    made: Any = object.__new__(type(cls.__name__, (cls,), {"__module__": cls.__module__, **members}))
    # not setattr: while Lightning asks for a loader, it records what is set on batch samplers
    object.__setattr__(made, "__dict__", original.__dict__)
    return made


def with_sampler(batch_sampler: Any, sampler: SelectionSampler) -> Any:
    """Return ``batch_sampler`` drawing from ``sampler``, if it draws from one; otherwise unchanged."""
    if not hasattr(batch_sampler, "sampler"):
        return batch_sampler
    return twin(batch_sampler, sampler=_Fixed(sampler))


class _Fixed:
    """An attribute with a fixed value, whatever is written to the instance."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self._value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["sampler"] = value


def _indices(drawn: Iterable[Any], n: int, sampler: object) -> Iterator[int]:
    """Yield what a sampler draws, as positions among ``n`` samples."""
    for key in drawn:
        try:
            index = operator.index(key)
        except TypeError:
            index = -1
        if not 0 <= index < n:
            raise InvalidLoaderError(
                f"The sampler {type(sampler).__name__} drew {key!r}, but a selector knows the samples by their indices,"
                f" integers from 0 to {n - 1}. Let it draw those, and let the data set find what belongs to them."
            )
        yield index


def _kept_batches(batch_sampler: Any, selection: SelectionSampler, n: int) -> Iterator[list[int]]:
    """Yield the batches without their unselected samples; batches made from a selection have none."""
    kept = _mask(selection.plan, n).numpy().tobytes()  # a list of bools would take eight times the memory
    for batch in islice(with_sampler(batch_sampler, selection), len(batch_sampler)):
        if found := [index for index in _indices(batch, n, batch_sampler) if kept[index]]:
            yield found


def _mask(plan: EpochPlan, n: int) -> Tensor:
    kept = torch.zeros(n, dtype=torch.bool)
    kept[plan.indices] = True
    return kept


def _drew_nothing(sampler: object, plan: EpochPlan) -> InvalidLoaderError:
    return InvalidLoaderError(
        f"The sampler {type(sampler).__name__} drew none of the {plan.indices.numel()} selected samples in epoch"
        f" {plan.epoch}. Lower `prune_ratio`, or let the sampler draw more samples per epoch."
    )


def _draws_too_many(sampler: object, n_drawn: int) -> InvalidLoaderError:
    return InvalidLoaderError(
        f"The sampler {type(sampler).__name__} has the length {n_drawn}, and the samples of an epoch are drawn at once."
        " Give it the length of an epoch, or let the Trainer end epochs by a number of batches, such as"
        " limit_train_batches=1000."
    )


def _in_turns(orders: list[Tensor]) -> Tensor:
    """Interleave the ranks' orders, to be dealt out in turn; ranks with longer orders give to the others."""
    dealt = pad_sequence(orders, padding_value=-1).flatten()
    return dealt[dealt >= 0]


def _batches_in_turns(of_ranks: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Interleave the ranks' batches, one of each in turn; ranks with more of them give some to the others.

    Args:
        of_ranks: The samples of each rank's batches, int64 (m,), and their sizes, int64 (b,).

    Returns:
        The same for all ranks together.
    """
    order, sizes = map(torch.cat, zip(*of_ranks, strict=True))
    turns = [torch.arange(len(own)) * len(of_ranks) + rank for rank, (_, own) in enumerate(of_ranks)]
    sequence = torch.cat(turns).argsort()
    starts, dealt = sizes.cumsum(0) - sizes, sizes[sequence]
    shifts = starts[sequence] - (dealt.cumsum(0) - dealt)
    return order[shifts.repeat_interleave(dealt) + torch.arange(order.numel())], dealt


def _from_first_rank(order: Tensor) -> Tensor:
    # a sampler that draws from the global random state draws differently on each rank
    shared = [order]
    dist.broadcast_object_list(shared)
    return shared[0]
