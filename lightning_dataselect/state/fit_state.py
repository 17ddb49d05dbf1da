"""The position of a fit: everything that a resumed fit needs besides the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
import torch.distributed as dist

from lightning_dataselect.numerics.placement import IN_MEMORY, InMemory
from lightning_dataselect.state.plan import EpochPlan


class EpochRecord(TypedDict):
    """The cost of one epoch.

    ``n_total`` is the number of samples in the data set, ``n_selected`` the number that were chosen; ``n_forward`` and
    ``n_backward`` count samples forwarded and back-propagated on all ranks, repeats included; ``n_trained`` counts
    samples that the module was trained on, or that were gathered for it, and ``n_left_out`` those in its batches that
    were not chosen, likewise on all ranks; ``n_full`` is the number of samples that it would have been trained on with
    nothing dropped, given the sampler, loader and Trainer; ``done`` is the share of the epoch that was done, below 1 if
    the end of the fit cut it, and ``n_full`` is then that of this share; ``seconds`` is the training time without
    validation, ``select_seconds`` the time between this epoch and the next.
    """

    epoch: int
    n_total: int
    n_selected: int
    n_forward: int
    n_backward: int
    n_trained: int
    n_left_out: int
    n_full: int
    done: float
    seconds: float
    select_seconds: float


@dataclass
class FitState:
    """The plan of the current epoch, how far it has got, and what the epochs before it cost.

    Attributes:
        plan: What the current epoch trains on.
        batches_done: Batches of it that are done.
        batch_size: Samples of a batch on all ranks together; 0 if that is not fixed.
        n_forward: Samples forwarded in this epoch so far, by this rank until the ranks' counts are summed.
        n_backward: Samples back-propagated in this epoch so far, likewise.
        n_trained: Samples trained on in this epoch so far, likewise.
        n_left_out: Samples of this epoch's batches so far that were not trained on, likewise.
        n_measured: Samples whose losses were written in this epoch so far, likewise.
        seconds: Training seconds of this epoch so far.
        is_cut: Whether the end of the fit has cut the current epoch short; the last record in ``history`` then
            describes the part that was trained.
        budget_spent: The compute, in samples trained on, of a budget that the last epoch has used up, 0 before; on a
            stream, the compute of all finished epochs, in batches.
        shortened_at: The compute that was spent when the method ended its fit early, in samples trained on.
        early_end: The compute at which such a fit ends; 0 if the whole budget is to be spent.
        stream_batches: Batches in a whole epoch of a stream; 0 as long as its end has not been reached.
        scheduler_calls: How often each learning-rate scheduler was stepped to keep it in step, in the Trainer's order.
        history: One record for each epoch that has ended.
    """

    plan: EpochPlan
    batches_done: int = 0
    batch_size: int = 0
    n_forward: int = 0
    n_backward: int = 0
    n_trained: int = 0
    n_left_out: int = 0
    n_measured: int = 0
    seconds: float = 0.0
    is_cut: bool = False
    budget_spent: float = 0.0
    shortened_at: float = 0.0
    early_end: float = 0.0
    stream_batches: int = 0
    scheduler_calls: list[int] = field(default_factory=list)
    history: list[EpochRecord] = field(default_factory=list)

    def begin(self, plan: EpochPlan) -> None:
        """Begin an epoch with its plan."""
        self.plan = plan
        self.batches_done = 0

    def cut(self, n_total: int, n_full: int, done: float) -> None:
        """Add the record of an epoch that ends with the fit, before its last batch; see :class:`EpochRecord`."""
        self._write_record(n_total, self.plan.indices.numel(), n_full, done)
        self.is_cut = True

    def reopen(self) -> None:
        """Continue an epoch that was cut."""
        self.history.pop()
        self.is_cut = False

    def close(self, n_total: int, n_full: int, done: float, n_selected: int | None = None) -> None:
        """Add the record of the epoch that has ended.

        Args:
            n_total: Number of samples in the set.
            n_full: Number that the same part of it would have been trained on with nothing dropped.
            done: Share of it that was done.
            n_selected: Number of chosen samples; None for those of the plan.
        """
        self._write_record(n_total, self.plan.indices.numel() if n_selected is None else n_selected, n_full, done)
        self.batches_done = 0
        self._forget_counts()
        self.seconds = 0.0

    def _write_record(self, n_total: int, n_selected: int, n_full: int, done: float) -> None:
        self.history.append(
            EpochRecord(
                epoch=self.plan.epoch,
                n_total=n_total,
                n_selected=n_selected,
                n_forward=self.n_forward,
                n_backward=self.n_backward,
                n_trained=self.n_trained,
                n_left_out=self.n_left_out,
                n_full=n_full,
                done=done,
                seconds=self.seconds,
                select_seconds=0.0,
            )
        )

    def count_samples(self, *, forward: int, backward: int) -> None:
        """Count samples that were forwarded and back-propagated on this rank."""
        self.n_forward += forward
        self.n_backward += backward

    def sum_over_ranks(self, world_size: int, device: torch.device) -> None:
        """Give every rank the sum of all ranks' counts; all ranks must call it together.

        Args:
            world_size: Number of ranks.
            device: Device that the counts are sent from.
        """
        if world_size > 1:
            summed = torch.tensor([getattr(self, name) for name in _COUNTS], device=device)
            dist.all_reduce(summed)
            for name, count in zip(_COUNTS, summed.tolist(), strict=True):
                setattr(self, name, count)

    def leave_counts_to_first(self, rank: int) -> None:
        """Keep the summed counts on the first rank only, so that they are not counted once per rank."""
        if rank > 0:
            self._forget_counts()

    def _forget_counts(self) -> None:
        for name in _COUNTS:
            setattr(self, name, 0)

    def state_dict(self, n_total: int) -> dict[str, Any]:
        """Return plain tensors, numbers, lists and dicts, so that ``torch.load(weights_only=True)`` reads them."""
        state: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        full = self.plan.indices.numel() == n_total
        state["plan"] = {**vars(self.plan), "indices": None if full else self.plan.indices}
        state["scheduler_calls"] = list(self.scheduler_calls)
        state["history"] = [dict(record) for record in self.history]
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], n_total: int, memory: InMemory = IN_MEMORY) -> FitState:
        """Restore the state that :meth:`state_dict` returned, for the same number of samples.

        Args:
            state: What it returned.
            n_total: Number of samples.
            memory: Where the plan is allocated.
        """
        plan: dict[str, Any] = dict(state["plan"])
        plan |= {name: memory.hold(part) for name, part in plan.items() if torch.is_tensor(part)}
        if plan["indices"] is None:
            plan["indices"] = memory.arange(n_total)
        return cls(
            plan=EpochPlan(**plan),
            scheduler_calls=list(state["scheduler_calls"]),
            history=list(state["history"]),
            **{name: state[name] for name in _PLAIN},
        )


_COUNTS = ("n_forward", "n_backward", "n_trained", "n_left_out", "n_measured")
_PLAIN = (
    "batches_done",
    "batch_size",
    *_COUNTS,
    "seconds",
    "is_cut",
    "budget_spent",
    "shortened_at",
    "early_end",
    "stream_batches",
)
