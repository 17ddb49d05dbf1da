"""Record the results of a batch, in the columns of its samples and in the counts of the epoch."""

from __future__ import annotations

from torch import Tensor

from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import Observation, class_targets


def record(run: RunState, seen: Observation, policy: SelectionPolicy) -> None:
    """Record an observation, in the base's columns and in the method's own; nothing here waits for the device.

    Args:
        run: Holds the columns.
        seen: The observation of a batch, or of a part of one.
        policy: Writes the method's own columns.
    """
    store = run.store
    if seen.indices.device != (device := store.device):  # checked inline: a short step would notice a call
        seen = seen.to(device)
    indices, losses = seen.indices, seen.losses
    store.record_losses(indices, losses)
    run.bad_losses.add(indices, losses)
    if policy.balance:
        store["class"][indices] = class_targets(seen).float()
    if not policy.ranks_by_loss:
        policy.observe(seen, store)
    store.record_logits(seen)
    store.mark_dirty(indices)
    run.fit.n_measured += indices.numel()


def count_step(run: RunState, indices: Tensor) -> None:
    """Count the samples of this rank's training step, int64 (B,)."""
    fit, n = run.fit, indices.numel()
    run.store.count_trained(indices)
    fit.n_trained += n
    fit.n_forward += n
    fit.n_backward += n


def count_trained(run: RunState, indices: Tensor) -> None:
    """Count samples that this rank will train on, int64 (B,)."""
    run.store.count_trained(indices)
    run.fit.n_trained += indices.numel()


def count_dropped(run: RunState, offered: Tensor, taken: Tensor) -> None:
    """Count samples left out of a batch, given all of them, int64 (B,), and those this rank trains on, int64 (b,)."""
    run.store.count_dropped(offered, taken)
    run.fit.n_left_out += offered.numel() - taken.numel()
