"""Check the arguments of a constructor: each message quotes the value and names the fix."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any

from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, UnexpectedArgumentError

SET_LEVEL = frozenset({"prune_ratio", "every_n_epochs", "balance", "whole_batches"})
"""Arguments without a meaning for a method that takes every sample in every epoch."""

NEVER_WEIGHTED = "it never weights samples, so both values log the same loss. Leave it out."
"""Says why ``logged_loss`` has no effect."""


def check_share(
    name: str, value: object, what: str = "a share, say 0.5", *, above_zero: bool = False, below_one: bool = False
) -> float:
    """Return ``value`` as a share in [0, 1], without 0 if ``above_zero``, without 1 if ``below_one``.

    Args:
        name: Of the argument.
        value: That was given.
        what: What to give, with an example.
        above_zero: Whether 0 is refused.
        below_one: Whether 1 is refused.

    Raises:
        ArgumentTypeError: If ``value`` is not a number.
        InvalidArgumentError: If it is NaN or outside the interval.

    Example:
        >>> check_share("batch_ratio", 0, above_zero=True)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: batch_ratio=0 is outside (0, 1]: give a share, say 0.5.
    """
    number = check_number(name, value)
    if not 0 <= number <= 1 or (above_zero and number == 0) or (below_one and number == 1):
        interval = f"{'(' if above_zero else '['}0, 1{')' if below_one else ']'}"
        is_percent = 2 <= number < 100 or (number == 100 and not below_one)
        hint = hint_at_percent(f"{number:g}%") if is_percent else ""
        raise InvalidArgumentError(f"{name}={value!r} is outside {interval}: give {what}.{hint}")
    return number


def check_prune_ratio(name: str, value: object) -> float:
    """Return ``value`` as the share of samples that is dropped, in [0, 1).

    Raises:
        ArgumentTypeError: If ``value`` is not a number.
        InvalidArgumentError: If it is NaN or outside the interval.

    Example:
        >>> check_prune_ratio("prune_ratio", 1.5)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: prune_ratio=1.5 is outside [0, 1): give the share ...
    """
    return check_share(name, value, "the share of samples that is dropped, say 0.3", below_one=True)


def check_budget(value: object) -> float:
    """Return ``value`` as a share of the compute of a fit, in (0, 1].

    Raises:
        ArgumentTypeError: If ``value`` is not a number.
        InvalidArgumentError: If it is NaN or outside the interval.

    Example:
        >>> check_budget(0)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: budget=0 is outside (0, 1]: give the share of the ...
    """
    return check_share(
        "budget", value, "the share of the compute of training on everything to spend, say 0.5", above_zero=True
    )


def check_sequence(name: str, value: object, example: str) -> Sequence[Any]:
    """Return ``value``, a list or a tuple.

    Args:
        name: Of the argument.
        value: That was given.
        example: One that could be given.

    Raises:
        ArgumentTypeError: If it is neither.

    Example:
        >>> check_sequence("betas", 0.5, "(0.2, 0.9)")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.ArgumentTypeError: betas=0.5 is not a list or tuple of numbers: give ...
    """
    if not isinstance(value, list | tuple):
        raise ArgumentTypeError(f"{name}={value!r} is not a list or tuple of numbers: give one, say {example}.")
    return value


def check_number(name: str, value: object) -> float:
    """Return ``value`` as a float; NaN and infinity are numbers, too.

    Raises:
        ArgumentTypeError: If ``value`` is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(f"{name}={value!r} is not a number: give a float.{hint_at_percent(value)}")
    return float(value)


def hint_at_percent(value: object) -> str:
    """Return what to write in place of a text that holds something like `"50%"`; nothing for any other value.

    Example:
        >>> hint_at_percent("50 %"), hint_at_percent("half")
        (' For 50 %, write 0.5.', '')
    """
    found = re.search(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    return f" For {found[1]} %, write {float(found[1]) / 100:g}." if found else ""


def check_flag(name: str, value: object) -> bool:
    """Return ``value``, True or False.

    Raises:
        ArgumentTypeError: If it is neither.
    """
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{name}={value!r} is not a bool: give True or False.")
    return value


def check_positive(name: str, value: object) -> float:
    """Return ``value`` as a finite number greater than zero.

    Raises:
        ArgumentTypeError: If ``value`` is not a number.
        InvalidArgumentError: If it is not finite or not greater than zero.
    """
    number = check_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise InvalidArgumentError(f"{name}={value!r} must be a finite number greater than 0.")
    return number


def check_count(name: str, value: object, *, minimum: int = 0) -> int:
    """Return ``value`` as a whole number of at least ``minimum``.

    Raises:
        ArgumentTypeError: If ``value`` is not a whole number.
        InvalidArgumentError: If it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentTypeError(f"{name}={value!r} is not a whole number: give an int of at least {minimum}.")
    if value < minimum:
        raise InvalidArgumentError(f"{name}={value!r} is too small: give an int of at least {minimum}.")
    return int(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        InvalidArgumentError: If it is none of them.
    """
    known = list(choices)
    if value not in known:
        raise InvalidArgumentError(
            f"{name}={value!r} is unknown: give {'one of ' if len(known) > 1 else ''}{', '.join(map(repr, known))}."
        )
    return str(value)


def refuse_arguments(method: str, unused: Set[str], given: Mapping[str, object], reason: str) -> None:
    """Refuse arguments that mean nothing to a method.

    Args:
        method: Its name.
        unused: Arguments without a meaning for it.
        given: Arguments that its user gave.
        reason: Says what the method goes by instead, as a part of a sentence.

    Raises:
        UnexpectedArgumentError: If one of ``unused`` was given.

    Example:
        >>> refuse_arguments("SRD", {"prune_ratio"}, {"prune_ratio": 0.3}, "the number falls by `decay`")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnexpectedArgumentError: SRD has no use for prune_ratio=0.3: the number ...
    """
    for name in sorted(unused & given.keys()):
        raise UnexpectedArgumentError(f"{method} has no use for {name}={given[name]!r}: {reason}. Leave it out.")


def refuse_unused(method: str, unused: Set[str], given: Mapping[str, object], share: str) -> None:
    """Refuse arguments that a method which only chooses within batches cannot heed.

    Args:
        method: Its name.
        unused: Arguments without a meaning for it.
        given: Arguments that its user gave.
        share: Its argument that says how much of a batch is trained on.

    Raises:
        UnexpectedArgumentError: If one of ``unused`` was given.

    Example:
        >>> refuse_unused("EvolvedSampling", SET_LEVEL, {"prune_ratio": 0.3}, "batch_ratio")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnexpectedArgumentError: EvolvedSampling has no use for prune_ratio=0.3: ...
    """
    for name in sorted(unused & given.keys()):
        raise UnexpectedArgumentError(
            f"{method} has no use for {name}={given[name]!r}: it takes every sample in every epoch and chooses within"
            f" each batch, by `{share}`. Take a method that drops samples before an epoch, such as InfoBatch, or ESWP,"
            " which does both."
        )
