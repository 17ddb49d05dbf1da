"""What a training step is run under, and what it returns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def loss_of(out: Any) -> Any:
    """The loss in what a step returned, or whatever stands in its place.

    Example:
        >>> loss_of({"loss": 1.5, "n": 3})
        1.5
    """
    return out.get("loss") if isinstance(out, Mapping) else out


def with_loss(out: Any, loss: Tensor) -> Any:
    """What a step returned, with another loss in it.

    Example:
        >>> with_loss({"loss": torch.tensor(1.0), "n": 3}, torch.tensor(2.0))
        {'loss': tensor(2.), 'n': 3}
    """
    if loss is loss_of(out):
        return out
    return {**out, "loss": loss} if isinstance(out, Mapping) else loss


def described(out: Any) -> str:
    """What a step returned, in words.

    Example:
        >>> described({"logits": 1}), described(None), described(3)
        ("a mapping with the keys ['logits']", 'None', 'a int')
    """
    if isinstance(out, Mapping):
        return f"a mapping with the keys {sorted(map(str, out))}"
    return "None" if out is None else f"a {type(out).__name__}"


def compiler_in_use() -> bool:
    """Whether some code may be compiled; to import the compiler for nothing takes seconds."""
    return "torch._dynamo" in sys.modules


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Let no compiled code run: a mode cannot look into it."""
    return torch.compiler.set_stance("force_eager") if compiler_in_use() else contextlib.nullcontext()
