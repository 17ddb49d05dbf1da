"""The state of a run in a checkpoint, validated before it is used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.store import Identity, ScoreStore
from lightning_dataselect.state.training_set import TrainingSet
from lightning_dataselect.state.waiting import Waiting
from lightning_dataselect.utils.errors import CheckpointMismatchError

_OF_RANK = ("method", "store", "waiting", "loaders")


@dataclass(frozen=True)
class SavedRun:
    """Hold the state of a run until it is used.

    Attributes:
        n: Number of samples of the data set.
        identity: What identified the samples.
        columns: The columns of the store.
        fit: The position of the fit.
        ranks: The state that only each rank had; empty for none.
        samples: A fingerprint of a few samples.
        keys: int64 (n,), hashes of the keys of a map-style data set; None if it has no keys.
        first_epoch: The epoch that the selector began with; None for the first in the history.
    """

    n: int
    identity: Identity
    columns: Mapping[str, Tensor]
    fit: Mapping[str, Any]
    ranks: Sequence[Mapping[str, Any]]
    samples: dict[int, dict[str, int]]
    keys: Tensor | None
    first_epoch: int | None

    @classmethod
    def of(
        cls,
        store: ScoreStore,
        fit: FitState,
        training_set: TrainingSet,
        ranks: Sequence[Mapping[str, Any]],
        first_epoch: int | None,
        *,
        copies: bool,
    ) -> SavedRun:
        """Take down the state of a run.

        Args:
            store: The columns.
            fit: The position of the fit.
            training_set: What is remembered of the data set.
            ranks: The state that only each rank has; empty for none.
            first_epoch: The epoch that the selector began with; None for the first in the history.
            copies: Whether columns are copied, so that they do not change while the fit continues.
        """
        return cls(
            n=store.n,
            identity=store.identity,
            columns=store.state_dict() if copies else store.shared_state(),
            fit=fit.state_dict(store.n),
            ranks=ranks,
            samples=training_set.fingerprint,
            keys=training_set.key_hashes,
            first_epoch=first_epoch,
        )

    @property
    def n_epochs(self) -> int:
        """The number of epochs that had begun or ended."""
        return int(self.fit["plan"]["epoch"]) + 1

    def as_state(self) -> dict[str, Any]:
        """Return the entries of a checkpoint, which :func:`check_saved` reads."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"identity": self.identity.value}

    def restore(self, store: ScoreStore, training_set: TrainingSet, rank: int) -> FitState:
        """Restore the columns and the memory of the data set; return the position of the fit, as ``rank`` counts it."""
        store.load_state_dict(self.columns)
        training_set.fingerprint, training_set.key_hashes = self.samples, self.keys
        fit = FitState.from_state_dict(self.fit, store.n, store.memory)
        fit.leave_counts_to_first(rank)
        return fit

    def loaders_of(self, rank: int, world_size: int) -> Sequence[Any]:
        """Return where the loaders of a rank were; empty if that is not known, or if there were not as many ranks."""
        return self.ranks[rank]["loaders"] if len(self.ranks) == world_size else ()

    def load_rank(self, rank: int, policy: SelectionPolicy, store: ScoreStore, waiting: Waiting | None) -> None:
        """Restore a rank's own state; if there are more ranks than before, the new ones get that of another rank."""
        if not self.ranks:
            return
        own = self.ranks[rank % len(self.ranks)]
        if own["method"]:
            policy.load_rank_state(own["method"])
        if own["store"]:
            store.load_rank_state(own["store"])
        if own["waiting"] and waiting is not None:
            waiting.load_state_dict(own["waiting"])


def rank_state(
    policy: SelectionPolicy, store: ScoreStore | None, waiting: Waiting | None, loaders: Sequence[Any]
) -> dict[str, Any]:
    """Return what a checkpoint holds of one rank alone, for :meth:`SavedRun.load_rank`; empty if there is nothing.

    Args:
        policy: The method, with state of its own.
        store: Has columns that do not merge; None before a fit has begun.
        waiting: The chosen samples that are still to be trained on, if there are any.
        loaders: Where the train loaders of this rank are; empty if Lightning saves it for all ranks there are.
    """
    state = {
        "method": policy.rank_state(),
        "store": {} if store is None else store.rank_state(),
        "waiting": {} if waiting is None else waiting.state_dict(),
        "loaders": list(loaders),
    }
    return state if any(state.values()) else {}


_OF_RUN, _OF_FIT, _OF_PLAN = ([field.name for field in fields(kind)] for kind in (SavedRun, FitState, EpochPlan))


def check_saved(state: Any, method: str) -> SavedRun | None:
    """Return the state of a run as `RunState.state_dict` writes it; None if it is empty, since the run had not begun.

    Args:
        state: The state in a checkpoint.
        method: Name of the method, for messages.

    Raises:
        CheckpointMismatchError: If it has another structure.

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
    if not state:
        return None
    return SavedRun(**{**state, "identity": Identity(state["identity"]), "samples": dict(state["samples"])})


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
