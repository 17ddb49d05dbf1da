"""A device that is not the CPU and cannot be mixed with it, where there is no GPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
MOVING = {aten._to_copy, aten.copy_, aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.new_empty}
OF_POSITIONS = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # which CUDA takes from the CPU


class Apart(TorchDispatchMode):
    """Refuse to mix tensors on the meta device, which have no values to read, with those on the CPU.

    As on a GPU, one number may lie on the CPU, and so may positions.
    """

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator.overloadpacket not in MOVING | OF_POSITIONS:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim() > 0]
            devices = {tensor.device.type for tensor in tensors}
            if len(devices) > 1:
                raise RuntimeError(f"{operator} was given tensors on different devices: {sorted(devices)}")
        return operator(*args, **(kwargs or {}))
