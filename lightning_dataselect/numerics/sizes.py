"""The number of samples that a share, or whole batches, come to."""

import math
from fractions import Fraction

from lightning_dataselect.utils.errors import InvalidArgumentError


def whole_size(size: int, at_most: int, unit: int) -> int:
    """Round ``size`` up to a multiple of ``unit``; where ``at_most`` does not suffice, down to one, if there is any.

    Example:
        >>> whole_size(11, 40, unit=8), whole_size(11, 13, unit=8), whole_size(11, 13, unit=16)
        (16, 8, 11)
    """
    whole = -(-size // unit) * unit
    return whole if whole <= at_most else at_most // unit * unit or min(size, at_most)


def check_keeps_some(prune_ratio: float, n: int, *, by_budget: bool = False) -> None:
    """Refuse to drop all of ``n`` samples.

    Args:
        prune_ratio: Share that is dropped.
        n: Number of samples.
        by_budget: True if the user gave the rest of it, as a budget.

    Raises:
        InvalidArgumentError: If ``(1 - prune_ratio) * n`` rounds to 0.

    Example:
        >>> check_keeps_some(0.9, 4)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: prune_ratio=0.9 leaves 0 of 4 samples: nothing is ...
    """
    if round((1 - prune_ratio) * n) < 1:
        given, fitting = f"prune_ratio={prune_ratio}", f"at most {(n - 1) / n:.3g}"
        if by_budget:
            given, fitting = f"budget={1 - prune_ratio:g}", f"at least {1 / n:.3g}"
        raise InvalidArgumentError(f"{given} leaves 0 of {n} samples: nothing is left to train on. Give {fitting}.")


def keep_count(n: int, prune_ratio: float) -> int:
    """Return how many of ``n`` samples stay when the share ``prune_ratio`` is dropped.

    ``(1 - prune_ratio) * n`` rounded half up, where the ratio is taken as it is written (0.9 is
    nine tenths, not the nearest binary number). At least 1, so that an epoch is never empty; 0 for
    n = 0.

    Args:
        n: Number of samples.
        prune_ratio: Share that is dropped, in [0, 1].

    Returns:
        The number of samples kept, between ``min(n, 1)`` and ``n``.

    Raises:
        ValueError: If ``n`` is negative or ``prune_ratio`` is outside [0, 1].

    Example:
        >>> keep_count(5, 0.9), keep_count(1000, 0.3), keep_count(3, 1.0)
        (1, 700, 1)
    """
    if n < 0:
        raise InvalidArgumentError(f"n must be 0 or more, not {n}.")
    if not 0 <= prune_ratio <= 1:
        raise InvalidArgumentError(f"prune_ratio must lie in [0, 1], not {prune_ratio}.")
    kept = math.floor((1 - Fraction(repr(float(prune_ratio)))) * n + Fraction(1, 2))
    return min(n, max(kept, 1))
