"""The compute that a fit may spend: a share of what training on everything would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_dataselect.state.fit_state import EpochRecord


@dataclass(frozen=True)
class ComputeBudget:
    """Count how much of a fit's budget is spent, in samples trained on.

    A sample's forward pass counts one third and its backward pass two thirds, so that passes which only score count.

    Attributes:
        share: Share of the compute of training on everything that may be spent, in (0, 1].
        full_epoch: Samples of an epoch with nothing dropped, on all ranks, repeats included.
        full_fit: Samples of all such epochs, or of as many batches as ``max_steps`` allows.

    Example:
        >>> budget = ComputeBudget(share=0.5, full_epoch=100, full_fit=1000)
        >>> budget.spent_before(epoch=1, history=[], begun=0) / budget.total
        0.2
    """

    share: float
    full_epoch: float
    full_fit: float

    @property
    def total(self) -> float:
        """The samples that may be trained on."""
        return self.share * self.full_fit

    @property
    def epochs(self) -> float:
        """The epochs over everything that these would make."""
        return self.total / self.full_epoch if self.full_epoch else 0.0

    def spent_before(self, epoch: int, history: Sequence[EpochRecord], begun: int) -> float:
        """Return what is spent when ``epoch`` begins; an epoch without a record counts as one with nothing dropped.

        Args:
            epoch: 0-based epoch.
            history: One record for each epoch that has ended with the selector.
            begun: The 0-based epoch that the selector began with, where ``history`` is empty.
        """
        first = history[0]["epoch"] if history else begun
        following = history[-1]["epoch"] + 1 if history else begun
        unrecorded = min(epoch, first) + max(epoch - following, 0)
        recorded = sum(r["n_forward"] + 2 * r["n_backward"] for r in history if r["epoch"] < epoch) / 3
        return unrecorded * self.full_epoch + recorded

    def progress(self, spent: float, shortened_at: float = 0.0, early_end: float = 0.0) -> float:
        """Return how far a fit is once so much compute is spent: 1 at its end.

        Args:
            spent: In samples trained on, as all others.
            shortened_at: What was spent when it was decided that the fit ends early.
            early_end: What is spent by then; 0 if the whole budget is to be spent.

        Example:
            >>> budget = ComputeBudget(share=1.0, full_epoch=100, full_fit=1000)
            >>> budget.progress(400), budget.progress(500, shortened_at=400, early_end=600)
            (0.4, 0.7)
        """
        if self.total == 0:  # a fit without a batch
            return 0.0
        if not early_end or spent <= shortened_at:
            return spent / self.total
        before = shortened_at / self.total
        return before + (1 - before) * (spent - shortened_at) / (early_end - shortened_at)


@dataclass(frozen=True)
class StreamedCompute(ComputeBudget):
    """The same of a stream, counted in batches: how many samples an epoch has is known when it ends, if it does.

    Attributes:
        spent: Batches' worth of compute that is spent when the present epoch begins.
    """

    spent: float = 0.0

    def spent_before(self, epoch: int, history: Sequence[EpochRecord], begun: int) -> float:
        """Return what is spent when the present epoch begins, which is the only one that is asked for."""
        return self.spent


def measured_sample_cost(history: Sequence[EpochRecord]) -> float:
    """Return what a sample in the batches of the last epoch cost, next to one that is trained on; before it, 1.

    Args:
        history: One record for each epoch that has ended with the selector.

    Example:
        >>> record = {"n_trained": 20, "n_left_out": 80, "n_forward": 120, "n_backward": 20}
        >>> measured_sample_cost([record]), measured_sample_cost([])
        (0.5333333333333333, 1.0)
    """
    last = history[-1] if history else None
    offered = last["n_trained"] + last["n_left_out"] if last else 0
    return (last["n_forward"] + 2 * last["n_backward"]) / (3 * offered) if last and offered else 1.0
