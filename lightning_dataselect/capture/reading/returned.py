"""Find the loss in what a step returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lightning_dataselect.capture.loss.terms import Term
from lightning_dataselect.utils.errors import CaptureError, NoLossError


def loss_of(out: Any) -> Any:
    """Return the loss in what a step returned, or whatever stands in its place.

    Example:
        >>> loss_of({"loss": 1.5, "n": 3})
        1.5
    """
    if isinstance(out, Tensor):  # a short step would notice a check against an abstract class
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
    """Describe in words what a step returned.

    Example:
        >>> described({"logits": 1}), described(None), described(3)
        ("a mapping with the keys ['logits']", 'None', 'a int')
    """
    if isinstance(out, Mapping):
        return f"a mapping with the keys {sorted(map(str, out))}"
    return "None" if out is None else f"a {type(out).__name__}"


def check_is_one_number(loss: Tensor) -> None:
    """Refuse a loss that nothing can be trained on, as each sample has its own.

    Raises:
        CaptureError: If it has several elements.

    Example:
        >>> import torch
        >>> check_is_one_number(torch.zeros(32))
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.CaptureError: The step returned a loss of shape (32,) in place of a single ...
    """
    if loss.numel() != 1:
        raise CaptureError(
            f"The step returned a loss of shape {tuple(loss.shape)} in place of a single number: return its mean, as"
            " without a callback. What each sample loses is found out from that."
        )


def missing_loss(out: Any, terms: Iterable[Term]) -> CaptureError:
    """Return the error that says that a step has neither returned nor back-propagated a loss.

    Args:
        out: What the step returned.
        terms: What it computed. If there is a loss in it, a step that returns None did not skip the batch on purpose.
    """
    is_skipped = out is None and not any(map(_shows_a_loss, terms))
    return (NoLossError if is_skipped else CaptureError)(
        f"The step returned {described(out)} in place of a loss, and back-propagated none. Return the loss, or a dict"
        " with the key 'loss'; with manual optimization, call self.manual_backward(loss) in place of loss.backward()."
    )


def _shows_a_loss(term: Term) -> bool:
    """Tell if a step that computed this and returned None has forgotten to return it."""
    return term.value.requires_grad and bool(term.value.isfinite())
