"""What a fit leaves in a checkpoint, and how the next one goes on from there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_dataselect.state.fit_state import FitState, check_same_samples
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import Method
from lightning_dataselect.state.results import Results
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.utils.errors import CheckpointMismatchError, InvalidArgumentError

_STATE_PREFIX = "lightning_dataselect."


class Resumable(Method, Results):
    """The per-sample columns of a fit and where it stands, from the first batch, or a checkpoint, to the next one."""

    balance: str | None
    _restored: Mapping[str, Any] | None  # of a checkpoint, until the number of samples is known
    _rank: int

    @property
    def state_key(self) -> str:
        """Where the state lies in a checkpoint."""
        return _STATE_PREFIX + type(self).__qualname__

    @property
    def first_epoch(self) -> int:
        """The 0-based epoch that the selector began with; 0 before a fit."""
        if self._state is None:
            return 0
        return self.history[0]["epoch"] if self.history else self.state.plan.epoch

    def open_state(self, n: int, world_size: int, epoch: int, plan: Callable[[int], EpochPlan]) -> FitState:
        """Begin or go on with the per-sample columns of ``n`` samples.

        Args:
            n: number of samples of the training set.
            world_size: number of ranks that write.
            epoch: 0-based epoch to come.
            plan: makes the plan of an epoch; asked for that of a selector's first one once the columns are there.

        Returns:
            Where the fit stands.

        Raises:
            ValueError: if the columns that there are belong to another data set, or nothing would be kept.
        """
        check_same_samples(
            n,
            fit=None if self._store is None else self._store.n,
            checkpoint=None if self._restored is None else self._restored["n"],
        )
        if round((1 - self.prune_ratio) * n) < 1:
            raise InvalidArgumentError(
                f"prune_ratio={self.prune_ratio} leaves 0 of {n} samples: nothing is left to train"
                f" on. Give at most {(n - 1) / n:.3g}."
            )
        if self._store is None:
            columns = self.columns() | ({"class": math.nan} if self.balance else {})
            self._store = SampleHistoryStore(n, columns, world_size, score_is_loss=self.ranks_by_loss)
        if self._restored is not None:
            self._store.load_state_dict(self._restored["columns"])
            self._state = FitState.from_state_dict(self._restored["fit"], n)
            self._state.leave_counts_to_first(self._rank)
            self._restored = None
        if self._state is None:
            self._state = FitState(EpochPlan(epoch, torch.arange(n)))
            self._state.plan = plan(epoch)
        return self._state

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed fit needs to be the same fit."""
        if self._store is None or self._state is None:
            return {}
        return {
            "n": self._store.n,
            "columns": self._store.state_dict(),
            "fit": self._state.state_dict(self._store.n),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the loader, and with it the number of samples, is known."""
        self._restored = state_dict or None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what all ranks have seen: only the first rank's state is written."""
        if self._store is not None and self._store.world_size > 1:
            self._store.merge()
            self.state.sum_over_ranks(self._store)
            checkpoint["callbacks"][self.state_key] = self.state_dict()
            self.state.leave_counts_to_first(self._rank)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse the checkpoint of another method."""
        found = [key for key in checkpoint.get("callbacks", {}) if str(key).startswith(_STATE_PREFIX)]
        if found and self.state_key not in found:
            other = ", ".join(key.removeprefix(_STATE_PREFIX) for key in found)
            raise CheckpointMismatchError(
                f"The checkpoint was written by {other}, but this Trainer has {type(self).__name__}: the selection"
                f" cannot go on. Resume with {other}, or load the weights alone into a new fit."
            )
