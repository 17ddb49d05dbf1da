"""Save and restore the state of a fit in checkpoints, and refuse checkpoints of other methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.saved_state import check_saved
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.trainer import has_ended, loader_states, set_loader_states
from lightning_dataselect.utils.errors import CheckpointMismatchError

_PREFIX = "lightning_dataselect."


class Checkpointer:
    """Save a run in the checkpoints of its Trainer, and restore it from them.

    Args:
        policy: The method whose class the state belongs to, and which adds its own state.
        run: The columns and the position of the fit.
    """

    def __init__(self, policy: SelectionPolicy, run: RunState) -> None:
        self._policy = policy
        self._run = run

    @property
    def state_key(self) -> str:
        """The key of the state in a checkpoint."""
        of_loader = "" if self._policy.loader is None else f"(loader={self._policy.loader!r})"
        return _PREFIX + type(self._policy).__qualname__ + of_loader

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed fit needs, with this rank's state standing for all ranks.

        With several ranks, the columns are not copied here, since Lightning calls this on every rank;
        :meth:`save_all_ranks` copies them on the ranks that write.
        """
        state = self._run.rank_state(self._policy)
        return self._run.state_dict([state] if state else [], copies=self._run.world_size == 1)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state until the number of samples is known."""
        self._run.load_state_dict(state)

    def save_all_ranks(self, checkpoint: dict[str, Any]) -> None:
        """Put the state of all ranks into ``checkpoint``; usually only the first rank's file is written.

        The checkpoints of the other ranks contain the same columns, not copied, and only their own rank's state, so
        that each rank can resume from its own file if the strategy writes one per rank. All ranks must call it
        together.
        """
        run = self._run
        if (saved := checkpoint["callbacks"].pop(self.state_key, None)) is not None:
            checkpoint["callbacks"][self.state_key] = saved  # as plain types, which can be loaded with weights_only
        if not run.has_begun or run.world_size == 1:
            return
        run.store.merge()
        run.fit.sum_over_ranks(run.world_size, run.store.device)
        states = self._states_of_ranks(loader_states(checkpoint))
        checkpoint["callbacks"][self.state_key] = run.state_dict(states, copies=run.rank == 0)
        run.fit.leave_counts_to_first(run.rank)

    def refuse_others(self, checkpoint: Mapping[str, Any], present: Collection[str] = ()) -> None:
        """Refuse the checkpoint of another method.

        Args:
            checkpoint: The checkpoint.
            present: The keys of all selectors of the Trainer.

        Raises:
            CheckpointMismatchError: If ``checkpoint`` holds the state of a selector, and of none of this class, or that
                of one which the Trainer does not have.
        """
        found = [key for key in checkpoint.get("callbacks", {}) if str(key).startswith(_PREFIX)]
        if found and (self.state_key not in found or not set(found) <= {self.state_key, *map(str, present)}):
            other = ", ".join(key.removeprefix(_PREFIX) for key in found)
            own = ", ".join(str(key).removeprefix(_PREFIX) for key in present) or type(self._policy).__name__
            raise CheckpointMismatchError(
                f"The checkpoint was written by {other}, but this Trainer has {own}: the selection cannot go"
                f" on. Resume with {other}, or load the weights alone into a new fit."
            )

    def place_loaders(self, checkpoint: Mapping[str, Any], rank: int, world_size: int) -> None:
        """Have the train loaders of a rank go on where they were on that rank, and not where the first one's were.

        Ranks read different samples, and may leave out more of them than others, so that they are at different places
        of a stream after as many batches.
        """
        saved = check_saved(checkpoint.get("callbacks", {}).get(self.state_key, {}), type(self._policy).__name__)
        if saved is not None and (states := saved.loaders_of(rank, world_size)):
            set_loader_states(checkpoint, states)
        self._run.has_ended_loader = any(map(has_ended, loader_states(checkpoint)))

    def _states_of_ranks(self, loaders: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the state that each rank saves for itself; on all ranks but the first, only this rank's.

        Args:
            loaders: Where the train loaders of this rank are.
        """
        merges = type(self._run.store).rank_state is ScoreStore.rank_state
        remembers = type(self._policy).rank_state is not SelectionPolicy.rank_state
        if merges and not remembers and self._run.waiting is None and not loaders:
            return []
        own = self._run.rank_state(self._policy, loaders)
        everyone: list[Any] = [own] if self._run.rank else [None] * self._run.world_size
        dist.gather_object(own, None if self._run.rank else everyone)
        return everyone if all(everyone) else []
