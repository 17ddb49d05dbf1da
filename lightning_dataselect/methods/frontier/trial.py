"""The trial of Frontier: what the model loses on samples that a pass has held back, beside others that it trained on.

Pure functions on tensors; what a trial is for is said in `methods/frontier/callback.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import places
from lightning_dataselect.numerics.parts import parts

TRIAL_PASSES = 2  # one that holds samples back, and one that measures them
HELD_BACK, CONTROL = 1.0, 2.0
_SHARE = 0.1  # of the samples is held back, and as many are the control


def draw_groups(u: Tensor) -> Tensor:
    """Return the group of each sample in a trial, float32 (N,): 1 where it is held back, 2 in the control, else 0.

    Args:
        u: (N,), drawn evenly from [0, 1).

    Example:
        >>> draw_groups(torch.tensor([0.05, 0.15, 0.2]))
        tensor([1., 2., 0.])
    """
    group = torch.empty(len(u))
    for part in parts(len(u)):
        group[part] = CONTROL * (u[part] < 2 * _SHARE) + (HELD_BACK - CONTROL) * (u[part] < _SHARE)
    return group


def compare_held_back(
    last: Tensor, before: Tensor, group: Tensor, visits: Tensor
) -> tuple[float, float] | tuple[None, None]:
    """Return the mean loss of the held-back samples over that of the control, and its standard error.

    Both are corrected for what the samples lost before the trial, by analysis of covariance (CUPED in Deng et al.,
    Improving the Sensitivity of Online Controlled Experiments, WSDM 2013, equation 4): losses differ far more between
    samples than training on them once more changes.

    Args:
        last: float32 (N,), the last loss.
        before: float32 (N,), the moving average of the losses when the trial began.
        group: float32 (N,), from :func:`draw_groups`.
        visits: float32 (N,), how often each was trained on in the trial; those that are still to come do not count.

    Returns:
        ``r = h / c``, and ``sqrt(var(h) + r^2 var(c)) / c`` by the delta method, where ``h`` and ``c`` are the means of
        ``last - b (before - mean(before))`` and ``b`` is the slope within the groups; None with fewer than two of
        either, or where ``c`` is not above 0.

    Example:
        >>> last, before = torch.tensor([3.0, 5.0, 2.0, 4.0, 9.0]), torch.tensor([1.0, 2.0, 1.0, 2.0, 7.0])
        >>> group = torch.tensor([1.0, 1.0, 2.0, 2.0, 0.0])
        >>> ratio, error = compare_held_back(last, before, group, visits=group)
        >>> round(ratio, 3), round(error, 3)
        (1.333, 0.0)
    """

    def met(which: float, fewest_visits: int) -> Tensor:
        found = []
        for part in parts(len(last)):
            values = torch.stack([before[part], last[part]])
            are_met = (group[part] == which) & (visits[part] >= fewest_visits) & ~values.isnan().any(0)
            found.append(values.index_select(1, places(are_met)))
        return torch.cat(found, 1).double()

    (x_held, y_held), (x_control, y_control) = met(HELD_BACK, 1), met(CONTROL, TRIAL_PASSES)
    if min(len(x_held), len(x_control)) < 2:
        return None, None
    x = torch.cat([x_held - x_held.mean(), x_control - x_control.mean()])
    y = torch.cat([y_held - y_held.mean(), y_control - y_control.mean()])
    slope = (x @ y) / (x @ x).clamp(min=torch.finfo(x.dtype).tiny)
    centre = torch.cat([x_held, x_control]).mean()
    h, c = y_held - slope * (x_held - centre), y_control - slope * (x_control - centre)
    if not bool(c.mean() > 0):
        return None, None
    ratio = h.mean() / c.mean()
    variance = h.var() / len(h) + ratio**2 * c.var() / len(c)
    return float(ratio), float(variance.sqrt() / c.mean())
