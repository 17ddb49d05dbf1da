"""The state of a run in a checkpoint, looked through before it is taken up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.utils.errors import CheckpointMismatchError

_OF_RUN = ("n", "identity", "columns", "fit", "ranks", "samples", "first_epoch")
_OF_RANK = ("method", "store", "waiting")
_OF_FIT, _OF_PLAN = ([field.name for field in fields(kind)] for kind in (FitState, EpochPlan))


def check_saved(state: Any, method: str) -> Mapping[str, Any]:
    """Return the state of a run as `RunState.state_dict` writes it; an empty one is of a run that has not begun.

    Args:
        state: From a checkpoint.
        method: Name of the method, for messages.

    Raises:
        CheckpointMismatchError: If it is made otherwise.

    Example:
        >>> check_saved({"n": 100}, "InfoBatch")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.CheckpointMismatchError: The checkpoint's state of InfoBatch cannot be...
    """
    if (fault := next(_faults(state), None)) is not None:
        raise CheckpointMismatchError(
            f"The checkpoint's state of {method} cannot be taken up: {fault}. Another version of lightning-dataselect"
            " has written it, or it was changed since. Resume with that version, or load the weights alone into a new"
            " fit."
        )
    checked: Mapping[str, Any] = state
    return checked


def _faults(state: Any) -> Iterator[str]:
    if isinstance(state, Mapping) and not state:
        return
    yield from _fault_of_entries("it", state, _OF_RUN)
    yield from _fault_of_entries("'fit'", state["fit"], _OF_FIT)
    yield from _fault_of_entries("'plan'", state["fit"]["plan"], _OF_PLAN)
    for of_rank in state["ranks"]:
        yield from _fault_of_entries("'ranks'", of_rank, _OF_RANK)
    if not isinstance(state["columns"], Mapping):
        yield f"'columns' is no mapping, but {type(state['columns']).__name__}"
    for name, column in state["columns"].items():
        if len(column) != state["n"]:
            yield f"its column {name!r} is of {len(column)} samples, and the data set has {state['n']}"


def _fault_of_entries(what: str, found: Any, names: Collection[str]) -> Iterator[str]:
    if not isinstance(found, Mapping):
        yield f"{what} is no mapping, but {type(found).__name__}"
    elif missing := [name for name in names if name not in found]:
        yield f"{what} lacks {', '.join(map(repr, missing))}"
    elif unknown := [name for name in found if name not in names]:
        yield f"{what} has {', '.join(map(repr, unknown))}, which this version does not know"
