"""The early stop of Frontier: samples are held out until they tell whether going on would only memorize."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.held_out import HeldOut, HeldOutLosses, compare_held_out
from lightning_dataselect.numerics.masks import positions
from lightning_dataselect.numerics.sampling import uniform_among

NEVER = math.inf
"""The turn of a sample that is held out."""
_SHARE, _MOST_SHARE = 0.02, 0.05  # of the samples is held out, and as many are the control
_FEWEST, _MOST = 200, 5_000
_FEWEST_PASSES = 6  # that a fit must have room for
_FIRST = 2.0  # passes, before the first measurement
_SPACING = 1 / 4  # of the passes that are done, between measurements
_EARLY = 0.05  # passes: measurements are taken between epochs, which may end a little early
_GENERALIZES_FROM = 3.0  # passes
_LATEST = 0.6  # of the budget
_PASSES_TO_ANNEAL = 1.5
_SHARE_TO_ANNEAL = 0.25  # of the passes that are done


class Verdict(enum.Enum):
    """Say what is to become of a fit and of its held-out samples."""

    WAIT = "wait"
    RELEASE = "release"
    END = "end"


@dataclass
class EarlyStop:
    """Choose the held-out samples and their control, keep what they have lost, and judge by it.

    Attributes:
        measured: One for each measurement.
        held_out: int64 (m,), sorted; None where no sample is held out.
        control: int64 (m,), sorted, likewise.
        losses: What both lost when they were measured last; None before.

    Example:
        >>> early_stop = EarlyStop()
        >>> early_stop.hold_out(torch.zeros(10_000), 10.0, torch.Generator())
        >>> len(early_stop.held_out), early_stop.samples_due(1.0), len(early_stop.samples_due(2.0))
        (200, None, 400)
    """

    measured: list[HeldOut] = field(default_factory=list)
    held_out: Tensor | None = None
    control: Tensor | None = None
    losses: HeldOutLosses | None = None

    def hold_out(self, turns: Tensor, planned_passes: float, generator: torch.Generator) -> None:
        """Hold out 2 % of the samples, 200 at least and 5,000 at most, of those that have not been trained on yet.

        None are held out where 200 would be more than 5 % of all, or the fit has room for fewer than six passes.

        Args:
            turns: float32 (N,), the turns that samples had, changed in place.
            planned_passes: Passes over everything that the budget has room for.
            generator: Draws both groups.
        """
        n, unseen = len(turns), turns == 0
        m = min(max(int(_SHARE * n), _FEWEST), _MOST)
        if m > _MOST_SHARE * n or int(unseen.count_nonzero()) < m or planned_passes < _FEWEST_PASSES:
            return
        held_out = uniform_among(unseen, m, generator)
        self.held_out, self.control = positions(held_out), positions(uniform_among(~held_out, m, generator))
        turns[self.held_out] = NEVER

    def is_held_out(self, turns: Tensor) -> bool:
        """Return whether the samples are still in their places, as they are not in a data set that has changed.

        Args:
            turns: float32 (N,), the turns that samples had; :data:`NEVER` of those that are held out.
        """
        if self.held_out is None or self.control is None:
            return False
        last = max(int(self.held_out[-1]), int(self.control[-1]))
        return last < len(turns) and bool((turns[self.held_out] == NEVER).all())

    def samples_due(self, passes: float) -> Tensor | None:
        """Return the samples to measure after so many passes, int64 (2 m,), sorted: after two, then ever more seldom.

        Args:
            passes: How many times the size of the set has been trained on.
        """
        if self.held_out is None or self.control is None:
            return None
        last = self.measured[-1].passes if self.measured else None
        due = _FIRST if last is None else last + max(1.0, _SPACING * last)
        return torch.cat([self.held_out, self.control]).sort().values if passes >= due - _EARLY else None

    def judge(self, epoch: int, passes: float, losses: Tensor, *, suspected: bool) -> Verdict:
        """Take up a measurement.

        Args:
            epoch: 0-based epoch to come.
            passes: How many times the size of the set has been trained on.
            losses: float32 (N,), the last loss of each sample.
            suspected: Whether labels are suspected to be wrong.
        """
        assert self.held_out is not None and self.control is not None
        found, self.losses = compare_held_out(epoch, passes, losses[self.held_out], losses[self.control], self.losses)
        self.measured.append(found)
        if found.only_memorizes(suspected=suspected):
            return Verdict.END
        return Verdict.RELEASE if passes >= _GENERALIZES_FROM - _EARLY and found.generalizes else Verdict.WAIT

    def release(self, turns: Tensor, passes: int) -> None:
        """Hold out no more samples; in ``turns`` they have had as many as there were passes."""
        turns.masked_fill_(turns == NEVER, float(passes))
        self.held_out = self.control = self.losses = None

    def state_dict(self) -> dict[str, Any]:
        """Return the groups, what they lost, and the measurements."""
        losses = None if self.losses is None else dict(vars(self.losses))
        groups = {"held_out": self.held_out, "control": self.control}
        return groups | {"losses": losses, "measured": [asdict(one) for one in self.measured]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier :meth:`state_dict`."""
        self.held_out, self.control = state["held_out"], state["control"]
        self.losses = None if state["losses"] is None else HeldOutLosses(**state["losses"])
        self.measured = [HeldOut(**one) for one in state["measured"]]


def is_too_late(passes: float, planned_passes: float) -> bool:
    """Return whether an early end would save little, so that what is held out is better trained on.

    Example:
        >>> is_too_late(5.0, 10.0), is_too_late(6.0, 10.0)
        (False, True)
    """
    return passes >= _LATEST * planned_passes


def passes_to_anneal(passes: float) -> float:
    """Return how many further passes a fit has that ends early: the learning rate has to come down.

    Args:
        passes: How many times the size of the set has been trained on.

    Example:
        >>> passes_to_anneal(3.0), passes_to_anneal(20.0)
        (1.5, 5.0)
    """
    return max(_PASSES_TO_ANNEAL, _SHARE_TO_ANNEAL * passes)
