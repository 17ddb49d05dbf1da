"""Computing something inside a checkpoint that its second run need not find again."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

# Private, so it may be gone one day: then a loss inside a checkpoint is refused by torch itself.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def is_needed() -> bool:
    """Whether somebody, such as a checkpoint, takes note of every tensor that is saved for the backward pass."""
    return _top_hooks is not None and not torch.compiler.is_dynamo_compiling() and _top_hooks(False) is not None


def saving() -> contextlib.AbstractContextManager[Any]:
    """Save tensors for the backward pass so that nobody takes note.

    Example:
        >>> x, noted = torch.ones(2, requires_grad=True), []
        >>> with torch.autograd.graph.saved_tensors_hooks(noted.append, lambda none: x):
        ...     with saving():
        ...         _ = x.exp()
        >>> noted
        []
    """
    if not is_needed():
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, _as_it_is)


def _as_it_is(saved: Tensor) -> Tensor:
    return saved
