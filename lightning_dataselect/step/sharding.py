"""Weights of which each rank holds a part: the strategy gathers them for each layer, and nobody else should."""

from __future__ import annotations

import sys

from torch import Tensor


def is_moved_by_deepspeed(weight: Tensor) -> bool:
    """Return whether DeepSpeed (ZeRO stage 3) puts the weight's data in place before a layer, and takes it away again.

    Example:
        >>> import torch
        >>> is_moved_by_deepspeed(torch.nn.Parameter(torch.ones(2)))
        False
    """
    return hasattr(weight, "ds_id")


def is_sharded(weight: Tensor) -> bool:
    """Return whether a rank holds a part of the weight only: by DeepSpeed (ZeRO stage 3), FSDP, FSDP2 or as a DTensor.

    Example:
        >>> import torch
        >>> is_sharded(torch.nn.Parameter(torch.ones(2)))
        False
    """
    distributed = sys.modules.get("torch.distributed.tensor")  # without it, there can be no DTensor
    if distributed is not None and isinstance(weight, distributed.DTensor):
        return True
    return is_moved_by_deepspeed(weight) or getattr(weight, "_fsdp_flattened", False)
