"""The evidence for an early stop of Frontier: what held-out samples lose, beside others that are trained on.

Pure functions on tensors; `methods/frontier/rule.py` says what they are for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

_FALL = 0.05  # of the control's loss, from one measurement to the next
_RISE = 0.1  # of that fall
_PASSED_ON = 0.25  # of that fall, where the model generalizes
_PASSED_ON_IF_SUSPECTED = 0.15
_PASSED_ON_BY_MOST = 0.5  # where the model does more than memorize
_ERRORS = 2.5  # as the question is asked several times
_ERRORS_IF_SURE = 2.0


@dataclass(frozen=True)
class HeldOut:
    """Mean losses of held-out samples and of a control that is trained on, measured in eval mode at the same moment.

    Attributes:
        epoch: 0-based epoch before which they were measured.
        passes: How many times the size of the set has been trained on by then.
        loss: Mean loss of the held-out samples.
        control_loss: Mean loss of the control.
        change: Mean change of held-out losses since the measurement before; 0 at first.
        change_error: Its standard error.
        control_change: The same of the control.
        control_error: Its standard error.
        rise: Mean change of held-out losses since their mean was lowest; 0 at first.
        rise_error: Its standard error.
    """

    epoch: int
    passes: float
    loss: float
    control_loss: float
    change: float = 0.0
    change_error: float = 0.0
    control_change: float = 0.0
    control_error: float = 0.0
    rise: float = 0.0
    rise_error: float = 0.0

    def only_memorizes(self, *, suspected: bool) -> bool:
        """Return whether training lowers the losses of what it sees, and of nothing else.

        The control must lose 5 % less than before, measurably, and held-out samples measurably more than at best, by a
        tenth of that at least. Where labels are suspected, it is enough that held-out losses fall by less than 0.15 of
        what the control's do, measurably.

        Args:
            suspected: Whether losses were such as wrong labels have.

        Example:
            >>> HeldOut(6, 3.0, 1.2, 0.6, change=0.1, control_change=-0.2, rise=0.1).only_memorizes(suspected=False)
            True
        """
        fall = -self.control_change
        if fall <= _ERRORS * self.control_error or fall < _FALL * (self.control_loss + fall):
            return False
        if suspected and _ERRORS_IF_SURE * self.change_error - self.change < _PASSED_ON_IF_SUSPECTED * fall:
            return True
        return self.rise > _ERRORS * self.rise_error and self.change >= _RISE * fall

    @property
    def generalizes(self) -> bool:
        """True if held-out losses fall by more than a quarter of what the control's do, measurably."""
        return -self.change - _ERRORS_IF_SURE * self.change_error > -_PASSED_ON * self.control_change

    @property
    def memorizes(self) -> bool:
        """True if held-out losses fall by less than half of what the control's do, measurably.

        Example:
            >>> HeldOut(6, 3.0, 0.57, 0.30, change=-0.01, control_change=-0.13, control_error=0.02).memorizes
            True
        """
        error = math.hypot(self.change_error, _PASSED_ON_BY_MOST * self.control_error)
        return _ERRORS_IF_SURE * error - self.change < -_PASSED_ON_BY_MOST * self.control_change


@dataclass(frozen=True)
class HeldOutLosses:
    """The losses that the next measurement is compared with, float32 (m,) each.

    Attributes:
        last: Those of the held-out samples.
        lowest: The same when their mean was lowest.
        control: Those of the control.
    """

    last: Tensor
    lowest: Tensor
    control: Tensor


def compare_held_out(
    epoch: int, passes: float, losses: Tensor, control: Tensor, before: HeldOutLosses | None
) -> tuple[HeldOut, HeldOutLosses]:
    """Compare the losses of both groups with what they were, sample by sample.

    Args:
        epoch: 0-based epoch to come.
        passes: How many times the size of the set has been trained on.
        losses: float32 (m,), of the held-out samples.
        control: float32 (m,), of the control.
        before: What this returned at the measurement before, or None.

    Example:
        >>> import torch
        >>> first, losses = compare_held_out(4, 2.0, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), None)
        >>> then, _ = compare_held_out(6, 3.0, torch.tensor([1.2, 2.4]), torch.tensor([0.4, 1.6]), losses)
        >>> round(then.change, 3), round(then.change_error, 3), round(then.control_change, 3)
        (0.3, 0.1, -0.5)
    """
    found = HeldOut(epoch, passes, _mean(losses), _mean(control))
    if before is None:
        return found, HeldOutLosses(losses, losses, control)
    found = replace(
        found,
        change=_mean(losses - before.last),
        change_error=_error(losses - before.last),
        control_change=_mean(control - before.control),
        control_error=_error(control - before.control),
        rise=_mean(losses - before.lowest),
        rise_error=_error(losses - before.lowest),
    )
    return found, HeldOutLosses(losses, losses if found.rise < 0 else before.lowest, control)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _error(values: Tensor) -> float:
    return float(values.double().std()) / math.sqrt(len(values))
