"""Computing something inside a checkpoint that its second run need not find again."""

from __future__ import annotations

import contextlib
import inspect
import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Private, and newer than torch 2.7.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
_CHECKPOINTS = inspect.unwrap(checkpoint).__code__.co_filename


def is_needed() -> bool:
    """Whether somebody, such as a checkpoint, takes note of every tensor that is saved for the backward pass."""
    if torch.compiler.is_dynamo_compiling():
        return False
    if _top_hooks is None:
        return _within_checkpoint()
    hooks = _top_hooks(False)
    return hooks is not None and hooks[0] is not _number


def _within_checkpoint() -> bool:
    """The same by the stack, on which nobody but torch's own checkpoint is found."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _CHECKPOINTS:
        frame = frame.f_back
    return frame is not None


def saving() -> contextlib.AbstractContextManager[Any]:
    """Save tensors for the backward pass so that nobody takes note.

    Example:
        >>> x, runs = torch.zeros(2, requires_grad=True), []
        >>> def loss(x):
        ...     runs.append("forward" if not runs else "again")
        ...     if runs == ["forward"]:
        ...         with saving():
        ...             print(x.exp().tolist())
        ...     return x.sin().sum()
        >>> checkpoint(loss, x, use_reentrant=False).backward()
        [1.0, 1.0]
        >>> x.grad
        tensor([1., 1.])
    """
    if not is_needed():
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, _as_it_is)


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


_FEW = 1024  # entries that are as good as a number


def saving_numbers_only() -> contextlib.AbstractContextManager[Any]:
    """Build graphs that hold no activations: they tell what a loss was put together from, but not by what gradient.

    Example:
        >>> x = torch.ones(3, 1000, requires_grad=True)
        >>> with saving_numbers_only():
        ...     mean = x.exp().mean()
        ...     loss = 2 * mean.square()
        >>> torch.autograd.grad(loss, mean)[0].item() == 4 * mean.item()
        True
    """
    return torch.autograd.graph.saved_tensors_hooks(_number, _as_it_is)


def _number(saved: Tensor) -> Tensor | None:
    return saved if saved.numel() <= _FEW else None
