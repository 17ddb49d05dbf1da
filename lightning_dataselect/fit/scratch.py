"""Refuse fits that cannot keep their per-sample state on disk."""

from __future__ import annotations

import torch
import torch.distributed as dist

from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.utils.errors import TrainerSettingsError


def check_scratch(policy: SelectionPolicy, device: torch.device) -> None:
    """Refuse state on disk, which the CPU reads and writes, if the fit needs it elsewhere.

    Args:
        policy: The method.
        device: The module's device.

    Raises:
        TrainerSettingsError: If it does.

    Example:
        >>> from lightning_dataselect import SelectiveBackprop
        >>> check_scratch(SelectiveBackprop(scratch_dir="."), torch.device("cuda"))
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.TrainerSettingsError: SelectiveBackprop(scratch_dir='.') chooses within...
    """
    if policy.scratch_dir is None or device.type == "cpu":
        return
    given = f"{type(policy).__name__}(scratch_dir={str(policy.scratch_dir)!r})"
    if policy.chooses_within_batches:
        raise TrainerSettingsError(
            f"{given} chooses within each batch, by state that must be on the module's device, {device}, and not on the"
            " disk. Leave scratch_dir out, or take a method that drops samples before an epoch, such as InfoBatch."
        )
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "nccl":
        raise TrainerSettingsError(
            f"{given} has state that the ranks exchange on the CPU, which nccl cannot do. Give the Trainer"
            " strategy=DDPStrategy(process_group_backend='cpu:gloo,cuda:nccl'), or leave scratch_dir out."
        )
