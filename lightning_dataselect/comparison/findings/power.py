"""Statistical power of a few seeds: when a paired difference is significant, and the smallest that can be detected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import t as student

from lightning_dataselect.comparison.plans.numbers import Spread

RISK = 0.05
POWER = 0.8
_MOST_SEEDS = 1000


def pooled(family: Sequence[Spread]) -> tuple[float, int]:
    """Return the standard deviation pooled over all methods, and its degrees of freedom; NaN and 0 of single seeds."""
    several = [each for each in family if each.n > 1]
    freedom = sum(each.n - 1 for each in several)
    if not freedom:
        return math.nan, 0
    return math.sqrt(sum((each.n - 1) * each.std**2 for each in several) / freedom), freedom


def is_clear(difference: Spread, family: Sequence[Spread]) -> bool:
    """Return whether chance alone is an unlikely reason: a t-test, corrected for how many are tried.

    With few seeds a method's own spread can be small by luck, so it counts for no less than the spread pooled over all
    methods.

    Args:
        difference: Of one method.
        family: Those of all methods that are tried.
    """
    std, freedom = pooled(family)
    if difference.n < 2 or not freedom:
        return False
    error = max(difference.std, std) / math.sqrt(difference.n)
    return abs(difference.mean) > float(student.ppf(1 - RISK / 2 / len(family), freedom)) * error


def detectable(std: float, n: int, n_methods: int) -> float:
    """Return the true difference that `is_clear` finds in seven to eight cases out of ten.

    Args:
        std: Of the paired differences over seeds.
        n: Seeds.
        n_methods: How many are tried.

    Example:
        >>> round(detectable(1.0, 3, 1), 1), round(detectable(1.0, 12, 1), 1)
        (3.1, 0.9)
    """
    freedom = (n - 1) * n_methods
    return float(student.ppf(1 - RISK / 2 / n_methods, freedom) + student.ppf(POWER, freedom)) * std / math.sqrt(n)


def seeds_for(difference: float, std: float, n_methods: int) -> int | None:
    """Return how many seeds show a true difference of that size, as `detectable` means it; None beyond a thousand.

    Example:
        >>> seeds_for(1.0, 1.0, 1), seeds_for(0.001, 1.0, 1)
        (10, None)
    """
    return next((n for n in range(2, _MOST_SEEDS) if detectable(std, n, n_methods) <= difference), None)
