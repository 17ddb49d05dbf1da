"""The per-sample state and the position of a fit: everything that outlives it, or is saved in a checkpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.numerics.placement import placement_in
from lightning_dataselect.numerics.sizes import check_keeps_some
from lightning_dataselect.state.bad_losses import BadLosses
from lightning_dataselect.state.compute_budget import ComputeBudget
from lightning_dataselect.state.fit_state import FitState
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.running_mean import RunningMean
from lightning_dataselect.state.same_samples import check_same_identity, check_same_samples
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.saved_state import SavedRun, check_saved, rank_state
from lightning_dataselect.state.store import Identity
from lightning_dataselect.state.stream_store import stream_store
from lightning_dataselect.state.training_set import TrainingSet
from lightning_dataselect.state.waiting import Waiting
from lightning_dataselect.utils.errors import NoFitYetError

_BYTES_OF_CHOICE = 28  # a sample: two plans with weights, and the order of an epoch, or the sort keys of its selection


class RunState:
    """Hold the per-sample columns and the position of a fit, from its first epoch, or a checkpoint, to the next fit.

    Args:
        owner: Name of the method, for messages.

    Example:
        >>> run = RunState("InfoBatch")
        >>> hasattr(run, "store")
        False
    """

    def __init__(self, owner: str) -> None:
        self.rank = 0
        """This process's rank in the fit."""
        self.world_size = 1
        """Number of processes of the fit."""
        self.train_loss = RunningMean()
        """The mean loss, without weights, of the samples that this rank has trained on in the current epoch so far."""
        self.subset: Tensor | None = None
        """int64 (m,), the samples that ``select`` is choosing among; None: all."""
        self.compute: ComputeBudget | None = None
        """The compute that the fit may spend; None if no budget ends it, and before the train loader is known."""
        self.training_set = TrainingSet()
        """The memory of the data set."""
        self.waiting: Waiting | None = None
        """The chosen samples that are still to be trained on; None if all are trained on at once."""
        self.saved_by: int | None = None
        """Number of ranks that saved the checkpoint that the fit resumes from, if they have state of their own; else 1.

        None if it resumes from none."""
        self.has_ended_loader = False
        """True if one of the train loaders had come to its end when the checkpoint was saved."""
        self.bad_losses = BadLosses(0)
        """A count of the losses that were not finite, on this rank."""
        self._owner = owner
        self._first_epoch: int | None = None  # of the known state, if an earlier data set's was dropped
        self._store: SampleHistoryStore | None = None
        self._fit: FitState | None = None
        self._saved: SavedRun | None = None  # from a checkpoint, until the number of samples is known

    # ---- what is known -------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """True once the number of samples is known, and the columns exist."""
        return self._fit is not None

    @property
    def store(self) -> SampleHistoryStore:
        """The per-sample columns of the fit.

        Raises:
            NoFitYetError: If there is no fit yet.
        """
        if self._store is None:
            raise NoFitYetError(
                f"{self._owner} has no per-sample state before a fit has begun: call trainer.fit first. That of a fit"
                " whose processes the Trainer started (ddp_spawn, ddp_fork, ddp_notebook) ended with them: read it in a"
                " callback's on_train_end, or from a checkpoint."
            )
        return self._store

    @property
    def fit(self) -> FitState:
        """The position of the fit.

        Raises:
            NoFitYetError: If there is no fit yet.
        """
        if self._fit is None:
            raise NoFitYetError(f"{self._owner} has selected nothing before a fit has begun: call trainer.fit first.")
        return self._fit

    @property
    def first_epoch(self) -> int:
        """The 0-based epoch that the selector began with; 0 before a fit."""
        if self._fit is None:
            return 0
        if self._first_epoch is not None:
            return self._first_epoch
        return self._fit.history[0]["epoch"] if self._fit.history else self._fit.plan.epoch

    def spent_before(self, epoch: int) -> float:
        """Return the compute that a fit with a budget has spent when ``epoch`` begins, in samples trained on."""
        assert self.compute is not None
        history, begun = ([], epoch) if self._fit is None else (self._fit.history, self._fit.plan.epoch)
        return self.compute.spent_before(epoch, history, begun)

    @property
    def share_spent(self) -> float | None:
        """The share of the compute of training on everything that a fit with a budget has spent, once it has run."""
        if self.compute is None or not self.compute.full_fit or self._fit is None or not self._fit.history:
            return None
        return self.spent_before(self._fit.history[-1]["epoch"] + 1) / self.compute.full_fit

    def progress(self, spent: float) -> float:
        """Return how far a fit with a budget is once so much compute is spent, in samples trained on: 1 at its end."""
        assert self.compute is not None
        fit = self._fit
        shortened_at, early_end = (0.0, 0.0) if fit is None else (fit.shortened_at, fit.early_end)
        return self.compute.progress(spent, shortened_at, early_end)

    def column(self, name: str) -> Tensor:
        """Return the column ``name`` of the samples that ``select`` is choosing among, float32, on the CPU."""
        column = self.store.column(name)
        return column if self.subset is None else column[self.subset]

    @contextlib.contextmanager
    def restricted_to(self, subset: Tensor) -> Iterator[None]:
        """Restrict :meth:`column` to the samples ``subset``, int64 (m,)."""
        self.subset = subset
        try:
            yield
        finally:
            self.subset = None

    # ---- from fit to fit -----------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Forget everything from an earlier fit, since a new one begins."""
        self._store = self._fit = self._first_epoch = self.waiting = self.saved_by = None
        self.training_set = TrainingSet()
        self.has_ended_loader = False

    def discard_checkpoint(self) -> None:
        """Discard a checkpoint's state that was loaded but never used."""
        self._saved = None

    def restart_epoch(self) -> None:
        """Restart the epoch, as Lightning does after Ctrl-C; a checkpoint still to be loaded takes precedence."""
        if self._fit is not None:
            self._fit.batches_done = 0
            self._fit.scheduler_calls = []  # schedulers are made anew, too

    @property
    def known_n(self) -> int | None:
        """The number of samples with known state, in this fit or in a checkpoint."""
        if self._saved is not None:
            return self._saved.n
        return None if self._store is None else self._store.n

    @property
    def known_epochs(self) -> int:
        """The number of epochs that have begun or ended, in this fit or in a checkpoint."""
        if self._saved is not None:
            return self._saved.n_epochs
        return 0 if self._fit is None else self._fit.plan.epoch + 1

    @property
    def known_samples(self) -> dict[int, dict[str, int]]:
        """A fingerprint of a few known samples."""
        return self.training_set.fingerprint if self._saved is None else self._saved.samples

    @property
    def has_saved_keys(self) -> bool:
        """True if there is a checkpoint, not used yet, whose keys match samples wherever they are."""
        return self._saved is not None and self._saved.keys is not None

    def start_anew(self, policy: SelectionPolicy, n: int, epoch: int) -> None:
        """Forget the state of the samples, since others have taken their places, and start again with ``epoch``."""
        before = self.store
        self.make_store(policy, n, before.world_size)
        self.to(before.device)
        self._first_epoch = epoch
        self.fit.plan = EpochPlan.everything(epoch, n, self.store.memory)

    def make_store(self, policy: SelectionPolicy, n: int, world_size: int) -> None:
        """Create the columns of ``n`` samples that nothing is known about, on the CPU."""
        columns = policy.columns() | ({"class": math.nan} if policy.balance else {})
        memory, by_loss = placement_in(policy.scratch_dir), policy.ranks_by_loss
        self._store = SampleHistoryStore(n, columns, world_size, score_is_loss=by_loss, memory=memory)
        self.bad_losses = BadLosses(n, memory)
        memory.check_room(n * _BYTES_OF_CHOICE, f"choosing among {n} samples")

    def open(self, policy: SelectionPolicy, n: int, world_size: int, epoch: int) -> bool:
        """Create, or continue with, the per-sample columns of ``n`` samples.

        Args:
            policy: Defines the columns.
            n: Number of samples of the training set.
            world_size: Number of ranks that write.
            epoch: 0-based epoch to come.

        Returns:
            True if the fit begins here, so that its first epoch must still be planned.

        Raises:
            CheckpointMismatchError: If the existing columns belong to another data set.
            InvalidArgumentError: If no sample would be kept.
        """
        store, saved = self._store, self._saved
        self._check_identity(Identity.INDEX)
        check_same_samples(n, fit=None if store is None else store.n, checkpoint=None if saved is None else saved.n)
        check_keeps_some(policy.largest_ratio, n, by_budget=policy.chosen_by == "budget")
        if self._store is None:
            self.make_store(policy, n, world_size)
        return self._go_on(policy, EpochPlan.everything(epoch, n, self.store.memory), world_size)

    def open_stream(self, policy: SelectionPolicy, world_size: int, epoch: int) -> bool:
        """Begin, or continue, a fit on samples that have no index.

        Args:
            policy: The method.
            world_size: Number of ranks.
            epoch: 0-based epoch to come.

        Returns:
            True if the fit begins here.

        Raises:
            CheckpointMismatchError: If the existing state belongs to samples that are identified in another way.
        """
        store = stream_store(
            policy.sample_id, policy.history_size, policy.columns(), score_is_loss=policy.ranks_by_loss
        )
        self._check_identity(store.identity)
        if self._store is None:
            self._store, self.bad_losses = store, BadLosses(None)
        return self._go_on(policy, EpochPlan(epoch, torch.empty(0, dtype=torch.int64)), world_size)

    def _go_on(self, policy: SelectionPolicy, first: EpochPlan, world_size: int) -> bool:
        """Resume from a checkpoint, if there is one; return whether the fit begins with the plan ``first``."""
        self.world_size = world_size
        if (saved := self._saved) is not None:
            self._fit = saved.restore(self.store, self.training_set, self.rank)
            self._first_epoch = saved.first_epoch
            saved.load_rank(self.rank, policy, self.store, self.waiting)
            self.saved_by = max(len(saved.ranks), 1)
            self._saved = None
        begins = self._fit is None
        if begins:
            self._fit = FitState(first)
        return begins

    def _check_identity(self, identity: Identity) -> None:
        before = None if self._store is None else self._store.identity
        check_same_identity(identity, before if self._saved is None else self._saved.identity)

    def rank_state(self, policy: SelectionPolicy, loaders: Sequence[Any] = ()) -> dict[str, Any]:
        """Return the state that only this rank has; see :func:`~.saved_state.rank_state`."""
        return rank_state(policy, self._store, self.waiting, loaders)

    def state_dict(self, ranks: list[dict[str, Any]], *, copies: bool = True) -> dict[str, Any]:
        """Return everything that a fit needs to be resumed exactly.

        Args:
            ranks: The state that only each rank has, see :meth:`rank_state`; empty for none.
            copies: Whether columns are copied, so that they do not change while the fit continues.
        """
        if self._store is None or self._fit is None:
            return {}
        known = self.training_set
        return SavedRun.of(self._store, self._fit, known, ranks, self._first_epoch, copies=copies).as_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state until the loader, and with it the number of samples, is known.

        Raises:
            CheckpointMismatchError: If it was not written by :meth:`state_dict`.
        """
        self._saved = check_saved(state, self._owner)

    def to(self, device: torch.device) -> None:
        """Move everything that is written batch by batch to ``device``."""
        self.store.to(device)
        self.bad_losses.to(self.store.device)
