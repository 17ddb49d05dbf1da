"""Undo the last change to a loss, made once the samples' losses were combined, and apply it to each of them instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SHIFTING = {"AddBackward0", "SubBackward0"}
_BOUNDING = {"ClampBackward0", "ClampBackward1", "ClampMaxBackward0", "ClampMinBackward0", "HardtanhBackward0"}
_COMPARING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "MaximumBackward0": torch.maximum,
    "MinimumBackward0": torch.minimum,
}


@dataclass(frozen=True)
class Outer:
    """Hold what was done last, which a batch of one sample would have done to that sample's loss.

    Attributes:
        change: What was done, but for a number that was added in the end.
        shift: That number, 0-dim, without a graph.
    """

    change: Callable[[Tensor], Tensor]
    shift: Tensor

    def __call__(self, losses: Tensor) -> Tensor:
        """Return losses as a step would have changed them."""
        return self.change(losses) + self.shift


def without_outer(loss: Tensor) -> tuple[Tensor, Outer | None]:
    """Return what a loss was before it was cut off at a bound, or its size was taken, and what was done to it.

    So a batch beyond the bound shows its samples' losses like any other, and each of them is cut off separately.

    Args:
        loss: Of a step, with its graph.

    Returns:
        The loss as it is, and None, if there was no such change.

    Example:
        >>> losses = torch.tensor([1.0, 5.0], requires_grad=True)
        >>> inner, outer = without_outer(losses.mean().clamp(max=2.0))
        >>> inner.item(), outer(losses.detach()).tolist()
        (3.0, [1.0, 2.0])
        >>> inner, outer = without_outer(0.5 * losses.mean().clamp(max=2.0))
        >>> inner.item(), outer(losses.detach()).tolist()
        (3.0, [0.5, 1.0])
        >>> inner, outer = without_outer((losses.mean() - 4).abs() + 4)
        >>> inner.item(), outer(losses.detach() - 4).tolist()
        (-1.0, [7.0, 5.0])
    """
    node: Any = loss.grad_fn
    if node is not None and node.name() in _SHIFTING:
        before = [of for of, _ in node.next_functions if of is not None]
        node = before[0] if len(before) == 1 else None
    if node is None or loss.dim() > 0:
        return loss, None
    try:
        node, factor = _unscaled(node)
        inner, change = _undone(node) if node is not None else (None, None)
    except RuntimeError:  # what was saved for a backward pass that has been made is gone
        return loss, None
    if inner is None or change is None or inner.dim() > 0 or not inner.requires_grad:
        return loss, None
    bounded = change
    if factor is not None:
        by = factor

        def change(losses: Tensor) -> Tensor:
            return bounded(losses) * by.to(losses.dtype)

    return inner, Outer(change, (loss - change(inner)).detach())


def _unscaled(node: Any) -> tuple[Any, Tensor | None]:
    """Return what came before a constant factor, if there is one last, and that factor."""
    name, before = node.name(), [of for of, _ in node.next_functions]
    if name == "NegBackward0":
        return before[0], torch.tensor(-1.0)
    if name not in ("MulBackward0", "DivBackward0") or sum(of is not None for of in before) != 1:
        return node, None
    own = next(i for i, of in enumerate(before) if of is not None)
    if name == "DivBackward0":
        return (before[0], 1 / node._saved_other) if own == 0 else (node, None)
    factor = node._saved_other if own == 0 else node._saved_self
    return before[own], factor if isinstance(factor, Tensor) else torch.tensor(float(factor))


def _undone(node: Any) -> tuple[Tensor | None, Callable[[Tensor], Tensor] | None]:
    """Return what a node of the graph was given, and what it has done with it; None for any other kind of node."""
    name = node.name()
    if name == "AbsBackward0":
        return node._saved_self, torch.abs
    if name in _BOUNDING:
        bounds = [getattr(node, f"_saved_{which}", None) for which in ("min", "max")]
        least, most = bounds if name != "HardtanhBackward0" else [node._saved_min_val, node._saved_max_val]
        if any(isinstance(bound, Tensor) and (bound.requires_grad or bound.dim()) for bound in (least, most)):
            return None, None
        return node._saved_self, lambda losses: losses.clamp(least, most)
    if name in _COMPARING:
        both = node._saved_self, node._saved_other
        given = [value for value in both if value.requires_grad]
        bound = next((value for value in both if not value.requires_grad), None)
        if len(given) == 1 and bound is not None and bound.dim() == 0:
            compare, limit = _COMPARING[name], bound
            return given[0], lambda losses: compare(losses, limit.to(losses.dtype))
    return None, None
