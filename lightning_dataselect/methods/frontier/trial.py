"""The trial of Frontier: what the model loses on samples that a pass has held back, beside others that it trained on.

Pure functions on tensors; `methods/frontier/rule.py` says what a trial is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import places
from lightning_dataselect.numerics.parts import parts

TRIAL_PASSES = 2  # one that holds samples back, and one that measures them
HELD_BACK, CONTROL = 1, 2
_SHARE = 0.1  # of the samples is held back, and as many are the control


def draw_groups(u: Tensor) -> Tensor:
    """Return the group of each sample in a trial, int8 (N,): 1 where it is held back, 2 in the control, else 0.

    Args:
        u: (N,), drawn evenly from [0, 1).

    Example:
        >>> draw_groups(torch.tensor([0.05, 0.15, 0.2]))
        tensor([1, 2, 0], dtype=torch.int8)
    """
    return CONTROL * (u < 2 * _SHARE).to(torch.int8) + (HELD_BACK - CONTROL) * (u < _SHARE).to(torch.int8)


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
        group: (N,), from :func:`draw_groups`.
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

    def met(which: int, fewest_visits: int) -> _Moments:
        def values(part: slice) -> Tensor:
            visited = places((group[part] == which) & (visits[part] >= fewest_visits))
            both = torch.stack([losses[part].index_select(0, visited) for losses in (before, last)])
            return both[:, places(~both.isnan().any(0))].double()

        return _moments(values, len(last))

    held, control = met(HELD_BACK, 1), met(CONTROL, TRIAL_PASSES)
    if min(held.n, control.n) < 2:
        return None, None
    within = held.products + control.products
    slope = float(within[0, 1] / within[0, 0].clamp(min=torch.finfo(torch.float64).tiny))
    centre = float((held.n * held.mean[0] + control.n * control.mean[0]) / (held.n + control.n))
    h, h_variance = held.corrected(slope, centre)
    c, c_variance = control.corrected(slope, centre)
    if not c > 0:
        return None, None
    ratio = h / c
    return ratio, math.sqrt(h_variance / held.n + ratio**2 * c_variance / control.n) / c


@dataclass(frozen=True)
class _Moments:
    """Hold what is known of the losses of a group before a trial, and after it.

    Attributes:
        n: Number of samples.
        mean: float64 (2,).
        products: float64 (2, 2), summed products of the distances from the mean.
    """

    n: int
    mean: Tensor
    products: Tensor

    def corrected(self, slope: float, centre: float) -> tuple[float, float]:
        """Return the mean and the variance of ``last - slope (before - centre)``."""
        (xx, xy), (_, yy) = self.products.tolist()
        x, y = self.mean.tolist()
        return y - slope * (x - centre), max(yy - 2 * slope * xy + slope**2 * xx, 0.0) / (self.n - 1)


def _moments(values: Callable[[slice], Tensor], n: int) -> _Moments:
    """Return the moments of ``values``, float64 (2, k) of each part of ``n`` samples; parts are joined as by Chan."""
    so_far = _Moments(0, torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))
    for part in parts(n):
        found = values(part)
        k = found.shape[1]
        if k == 0:
            continue
        mean = found.mean(1)
        found -= mean[:, None]
        apart, total = mean - so_far.mean, so_far.n + k
        products = so_far.products + found @ found.T + apart.outer(apart) * (so_far.n * k / total)
        so_far = _Moments(total, so_far.mean + apart * (k / total), products)
    return so_far
