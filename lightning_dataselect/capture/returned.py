"""Find the loss in what a step returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def loss_of(out: Any) -> Any:
    """Return the loss in what a step returned, or whatever stands in its place.

    Example:
        >>> loss_of({"loss": 1.5, "n": 3})
        1.5
    """
    if isinstance(out, Tensor):  # a short step would pay for asking an abstract class
        return out
    return out.get("loss") if isinstance(out, Mapping) else out


def with_loss(out: Any, loss: Tensor) -> Any:
    """Return what a step returned, with another loss in it.

    Example:
        >>> import torch
        >>> with_loss({"loss": torch.tensor(1.0), "n": 3}, torch.tensor(2.0))
        {'loss': tensor(2.), 'n': 3}
    """
    if loss is loss_of(out):
        return out
    return {**out, "loss": loss} if isinstance(out, Mapping) else loss


def described(out: Any) -> str:
    """Say in words what a step returned.

    Example:
        >>> described({"logits": 1}), described(None), described(3)
        ("a mapping with the keys ['logits']", 'None', 'a int')
    """
    if isinstance(out, Mapping):
        return f"a mapping with the keys {sorted(map(str, out))}"
    return "None" if out is None else f"a {type(out).__name__}"
