"""Check the decisions and columns that a method's class must define when a fit begins, not epochs later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real

from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.utils.errors import MethodDefinitionError
from lightning_dataselect.utils.left_open import is_left_open

_DECISIONS = {
    "select": "select(self, epoch, scores, generator) -> Selection",
    "choose": "choose(self, seen, k, generator) -> positions",
}


def check_definition(policy: SelectionPolicy) -> None:
    """Refuse a method that lacks its decision, or whose columns have no initial values.

    Raises:
        MethodDefinitionError: If the method is such a one.

    Example:
        >>> from lightning_dataselect import DataSelector
        >>> class Mine(DataSelector):
        ...     def selects(self, epoch, scores, generator): ...
        >>> check_definition(Mine())
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.MethodDefinitionError: Mine must define select(self, epoch, scores, ...
    """
    cls = type(policy)
    for name, signature in _DECISIONS.items():
        is_missing = is_left_open(getattr(cls, name, None))
        if is_missing and not (name == "select" and policy.largest_ratio == 0):
            raise MethodDefinitionError(f"{cls.__name__} must define {signature}.")
    columns: object = policy.columns()
    if not isinstance(columns, Mapping) or not _are_numbers(columns.values()):
        raise MethodDefinitionError(
            f"{cls.__name__}.columns returned {columns!r}: return a dict of names and initial values, say"
            ' {"seen": 0.0}.'
        )


def _are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, Real) for value in values)
