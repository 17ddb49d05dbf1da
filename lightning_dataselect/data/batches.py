"""The batches of an epoch, as drawn by the loader, and the samples in each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Sampler

from lightning_dataselect.data.batch_record import BatchIndices, BatchRecord
from lightning_dataselect.data.delivery import Delivery, check_order, first_numbers
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.data.user_sampler import UNLIMITED, Most, OwnDraws
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import InvalidLoaderError, UnsupportedTrainerError

_END = object()


class RecordingBatchSampler(Sampler[list[int]]):
    """Yield the batches of a plan and remember their indices until the training loop asks for them.

    The main process draws the indices of every batch in order, however many workers read them, so the record is exact
    with prefetching and persistent workers. Only the last pass is recorded: only the training loop iterates this
    sampler, and anyone else uses `peek`.

    Args:
        sampler: Knows the plan, and the order of its samples.
        batch_size: Samples per batch, or None if ``own`` makes batches of varying size.
        drop_last: Whether a last batch that is not full is dropped.
        own: Draws the order instead of ``sampler``; None if ``sampler`` does.
    """

    def __init__(
        self,
        sampler: SelectionSampler,
        batch_size: int | None,
        *,
        drop_last: bool = False,
        own: OwnDraws | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.own = own
        self.fills_up = True
        """True to fill up a last batch that a selection does not fill, if the unpruned epoch has only full ones."""
        self.always_fills_up = False
        """True to fill it up even if the unpruned epoch's last batch is not full, as a budget ends the fit anyway."""
        self.start_batch = 0
        """The first batch that is yielded; greater than 0 if an epoch is resumed."""
        self.on_drawn: Callable[[EpochPlan], None] = _ignore
        """Called with the plan once ``own`` has drawn its order, or samples of it are gone."""
        self.n_now: Callable[[], int] | None = None
        """Returns how many samples the data set has, which may have lost some since the epoch was planned."""
        self.is_delivered = False
        """True if the loader's own class yields the batches, which may leave some out."""
        self.watches_order = False
        """True to check that the rows of the first batch of a pass are still in order when they are trained on."""
        self.catch_up: Callable[[], bool] = _unchanged
        """Takes over what has been written to the user's batch sampler since; returns whether anything has."""
        self.longest: int | None = None
        """The most batches that Lightning takes after their size has changed, as many as at first; None for all."""
        self.most: int | None = None
        """The most batches that the Trainer takes from an epoch; None for all."""
        self.lasts: Callable[[int], int] | None = None
        """Given the number of batches of the plan, returns that of an epoch that repeats it; None for no repeats.

        Plans are repeated if several loaders are combined, one of which is longer."""
        self._record = BatchRecord(0)
        self._has_warned = False

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch of the current plan, whatever ``start_batch`` is."""
        return self.n_of_plan if self.lasts is None else self.lasts(self.n_of_plan)

    @property
    def n_of_plan(self) -> int:
        """The number of batches in one pass through the current plan."""
        n_batches = self._n_by_size()
        return n_batches if self.longest is None else min(n_batches, self.longest)

    def _n_by_size(self) -> int:
        sampler = self.sampler
        if self.own is not None and self.own.makes_batches:
            drawn = None if sampler.announce_full else sampler.plan.batch_sizes
            return self.own.expected_batches(sampler) if drawn is None else -(-drawn.numel() // sampler.num_replicas)
        assert self.batch_size is not None
        return len(sampler) // self.batch_size if self.drop_last else -(-len(sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the current plan from ``start_batch`` on."""
        self._record = record = BatchRecord(self.start_batch, delivery=Delivery() if self.is_delivered else None)
        has_changed = self.catch_up()
        if self.own is not None and self.sampler.plan.order is None:
            self.sampler.plan = self.own.draw(self.sampler, self.unit, self._most)
            self.on_drawn(self.sampler.plan)
        elif has_changed:
            self.on_drawn(self.sampler.plan)
        elif self.n_now is not None and (plan := self.sampler.plan.among_first(self.n_now())) is not self.sampler.plan:
            self.sampler.plan = plan
            self.on_drawn(plan)
        for batch_idx, (batch, n_unpadded) in enumerate(self._batches_of_epoch()):
            if batch_idx >= record.first:
                record.drawn[batch_idx] = BatchIndices(batch, n_unpadded)
                yield batch.tolist()

    def peek(self) -> Iterator[list[int]]:
        """Yield the batches of the current plan without recording them, for code other than the training loop."""
        if self.own is not None and self.sampler.plan.order is None:
            yield from self.own.peek(self.sampler, self.batch_size)
        else:
            yield from (batch.tolist() for batch, _ in self._batches_of_epoch())

    @property
    def _most(self) -> Most:
        if self.most is None:
            return UNLIMITED
        batches, is_even = self.most * self.sampler.num_replicas, not (self.own and self.own.makes_batches)
        return Most(batches, batches * self.batch_size if is_even and self.batch_size is not None else None)

    @property
    def unit(self) -> int:
        """Samples in a full batch of all ranks, if a pruned epoch may only have full ones; otherwise 1.

        Example:
            >>> sampler = SelectionSampler(40, shuffle=False)
            >>> RecordingBatchSampler(sampler, 8).unit, RecordingBatchSampler(sampler, 9).unit
            (8, 1)
        """
        if not self.fills_up or self.batch_size is None or (self.own is not None and self.own.makes_batches):
            return 1
        has_ragged = self.sampler.full_len % self.batch_size and not self.drop_last
        return 1 if has_ragged and not self.always_fills_up else self.batch_size * self.sampler.num_replicas

    def size_of(self, batch_idx: int) -> int:
        """Return the number of rows of a batch that was drawn but not taken yet."""
        record = self._record
        return record.drawn[record.numbers.get(batch_idx, batch_idx)].indices.numel()

    def arrive(self, rows: Sequence[int] | None, arrived: Any = None) -> None:
        """Note that the loader has read its next batch.

        Args:
            rows: For each row of the batch, the position of its sample among those drawn for it, or -1 if it is none of
                them; None if the rows are exactly the samples drawn.
            arrived: The batch itself.
        """
        record = self._record
        batch_idx = record.first + record.n_arrived
        record.n_arrived += 1
        if record.delivery is not None:
            record.delivery.read(batch_idx, arrived)
        if self.watches_order and record.first_rows is None:
            record.first_rows = batch_idx, first_numbers(arrived)
        if rows is not None and (drawn := record.drawn.get(batch_idx)) is not None:
            of = drawn.indices.tolist()
            indices = [of[p] if 0 <= p < drawn.n_unpadded else -1 for p in rows]
            record.drawn[batch_idx] = BatchIndices(torch.tensor(indices), len(indices), -1 in indices)
            self._warn_of_strangers(indices)

    def deliver(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Pass on what the loader's own class yields, and note which of the batches read that is.

        Raises:
            InvalidLoaderError: If that cannot be told at the end of the pass, where some are left out or repeated.
        """
        record, places = None, count()
        # not a for loop: it would begin anew with a loader that is its own iterator
        while (batch := next(batches, _END)) is not _END:
            record, place = self._record if record is None else record, next(places)
            if record.delivery is not None and (number := record.delivery.find(batch)) is not None:
                record.numbers[record.first + place] = number
            yield batch
        if record is not None and record.delivery is not None and record.delivery.has_lost:
            raise InvalidLoaderError(
                "The train loader's own __iter__ changes the batches that it reads, and yields more or fewer of them:"
                " which samples are in which batch cannot be told. Yield one batch for each, or pass them on unchanged."
            )

    def check_order(self, batch_idx: int, batch: Any) -> None:
        """Check a batch that is about to be trained on, if it is the first of its pass; see `delivery.check_order`."""
        record = self._record
        if record.first_rows is not None and record.first_rows[0] == record.numbers.get(batch_idx, batch_idx):
            check_order(record.first_rows[1], batch)

    def take(self, batch_idx: int) -> BatchIndices | None:
        """Return the samples of batch ``batch_idx`` of this epoch, None beyond the last; forget earlier batches.

        Raises:
            UnsupportedTrainerError: If that batch was never drawn.
        """
        drawn, number = self._record.drawn, self._record.numbers.pop(batch_idx, batch_idx)
        for earlier in list(drawn):
            if earlier >= number:
                break
            del drawn[earlier]
        taken = drawn.pop(number, None)
        if taken is None and batch_idx < len(self):
            raise UnsupportedTrainerError(
                f"Batch {batch_idx} reached the training step, but the loader was never asked for its indices. The"
                " train loader that the Trainer uses is not the one that the selector prepared: does another callback"
                " or strategy replace it? Put the selector first in `callbacks`, or remove the other. A loader of your"
                " own class has to draw the samples of each batch from its batch_sampler, once."
            )
        return taken

    def _batches_of_epoch(self) -> Iterator[tuple[Tensor, int]]:
        if self.lasts is None:
            return self._batches(0)
        again = (batch for turn in count() for batch in self._batches(turn))
        return islice(again, len(self))

    def _batches(self, turn: int) -> Iterator[tuple[Tensor, int]]:
        """Yield each batch of the ordered plan, and how many of its samples are not repeats."""
        sampler = self.sampler
        if sampler.plan.batch_sizes is not None:
            yield from _dealt(sampler.plan, sampler.num_replicas, sampler.rank)
            return
        own, position = sampler.n_unpadded, 0
        for batch in self._none_of_one(turn):
            yield batch, min(max(own - position, 0), batch.numel())
            position += batch.numel()

    def _none_of_one(self, turn: int) -> Iterator[Tensor]:
        """Yield the batches; if pruning leaves one sample in the last, move another one there from the batch before.

        BatchNorm, for one, refuses a batch of one sample, which may never occur on the whole data set.
        """
        size = self.batch_size
        assert size is not None
        lends = size >= 3 and self.sampler.full_len % size != 1
        before: Tensor | None = None
        for batch in self.sampler.go_through(turn, size):
            if batch.numel() < size and self.drop_last:
                break
            if before is not None:
                if batch.numel() == 1 and lends:
                    before, batch = before[:-1], torch.cat([before[-1:], batch])
                yield before
            before = batch
        if before is not None:
            yield before

    def _warn_of_strangers(self, indices: list[int]) -> None:
        if -1 in indices and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"The collate function put {indices.count(-1)} rows into a batch that do not match any of the samples"
                " drawn for it. The losses of such rows, here and in later batches, are not assigned to any sample."
                " Leave bad samples out of the data set, or out of the batch, instead of replacing them."
            )


def _dealt(plan: EpochPlan, n_ranks: int, rank: int) -> Iterator[tuple[Tensor, int]]:
    """Yield one rank's batches of those that a batch sampler made, dealt out in turn; the last may be repeats."""
    assert plan.order is not None and plan.batch_sizes is not None
    starts = [0, *plan.batch_sizes.cumsum(0).tolist()]
    n = len(starts) - 1
    for turn in range(-(-n // n_ranks)):
        which = turn * n_ranks + rank
        batch = plan.order[starts[which % n] : starts[which % n + 1]]
        yield batch, batch.numel() if which < n else 0


def _ignore(plan: EpochPlan) -> None:
    pass


def _unchanged() -> bool:
    return False
