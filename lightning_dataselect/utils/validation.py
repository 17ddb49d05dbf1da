"""Checks of constructor arguments: the message quotes the value and names the fix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real

SET_LEVEL = frozenset({"prune_ratio", "every_n_epochs", "balance"})
"""Arguments that mean nothing for a method that takes every sample in every epoch."""


def check_share(name: str, value: object, *, below_one: bool = False) -> float:
    """A share in [0, 1], or in [0, 1) with ``below_one``.

    Raises:
        TypeError: if ``value`` is not a number.
        ValueError: if it is NaN or outside the interval.

    Example:
        >>> check_share("prune_ratio", 1.5, below_one=True)
        Traceback (most recent call last):
        ...
        ValueError: prune_ratio=1.5 is outside [0, 1): give the share of samples that is dropped, say 0.3.
    """
    number = check_number(name, value)
    if math.isnan(number) or not 0 <= number <= 1 or (below_one and number == 1):
        interval = "[0, 1)" if below_one else "[0, 1]"
        hint = (
            "give the share of samples that is dropped, say 0.3" if name == "prune_ratio" else "give a share, say 0.5"
        )
        raise ValueError(f"{name}={value!r} is outside {interval}: {hint}.")
    return number


def check_number(name: str, value: object) -> float:
    """A real number (NaN and infinity included), as a float.

    Raises:
        TypeError: if ``value`` is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} is not a number: give a float.")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """A finite number greater than zero.

    Raises:
        TypeError: if ``value`` is not a number.
        ValueError: if it is not finite or not greater than zero.
    """
    number = check_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}={value!r} must be a finite number greater than 0.")
    return number


def check_count(name: str, value: object, *, minimum: int = 0) -> int:
    """A whole number of at least ``minimum``.

    Raises:
        TypeError: if ``value`` is not a whole number.
        ValueError: if it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} is not a whole number: give an int of at least {minimum}.")
    if value < minimum:
        raise ValueError(f"{name}={value!r} is too small: give an int of at least {minimum}.")
    return int(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """One of ``choices``.

    Raises:
        ValueError: if it is none of them.
    """
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown: give one of {', '.join(map(repr, known))}.")
    return str(value)


def refuse_unused(method: str, unused: Set[str], given: Mapping[str, object], share: str) -> None:
    """Refuse what a method that chooses within batches alone cannot heed.

    Args:
        method: its name.
        unused: arguments that mean nothing to it.
        given: arguments that its user gave.
        share: its argument that says how much of a batch is trained on.

    Raises:
        TypeError: if one of ``unused`` was given.

    Example:
        >>> refuse_unused("EvolvedSampling", SET_LEVEL, {"prune_ratio": 0.3}, "batch_ratio")
        Traceback (most recent call last):
        ...
        TypeError: EvolvedSampling has no use for prune_ratio=0.3: it takes every sample in every epoch and chooses ...
    """
    for name in sorted(unused & given.keys()):
        raise TypeError(
            f"{method} has no use for {name}={given[name]!r}: it takes every sample in every epoch and chooses within"
            f" each batch, by `{share}`. Take a method that drops samples before an epoch, such as InfoBatch, or ESWP,"
            " which does both."
        )
