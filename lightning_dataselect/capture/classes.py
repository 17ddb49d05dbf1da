"""The logits and the targets that come along with a classification loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.graph import derivatives
from lightning_dataselect.capture.losses import Classes
from lightning_dataselect.capture.shares import Parts, Scale
from lightning_dataselect.capture.terms import Source

Weighted = tuple[Classes, Scale]


def mix(group: Sequence[Weighted]) -> Classes:
    """Several losses of the same logits: the targets averaged by the share of each, as mixup's.

    Args:
        group: ((logits (B, C), targets (B,) or (B, C)), factor () or (B,)), of one logits tensor.

    Returns:
        The logits, and the targets: as they came if there is one set, else (B, C).

    Example:
        >>> logits = torch.zeros(1, 2)
        >>> a, b = torch.tensor([0]), torch.tensor([1])
        >>> mix([((logits, a), 0.75), ((logits, b), 0.25)])[1].tolist()
        [[0.75, 0.25]]
    """
    logits, targets = group[0][0]
    if len(group) == 1:
        return logits.detach(), targets.detach()
    mixed, total = torch.zeros_like(logits), torch.zeros_like(logits[:, :1])
    for (_, target), factor in group:
        share = torch.as_tensor(factor, dtype=logits.dtype, device=logits.device).reshape(-1, 1)
        mixed, total = mixed + share * soft(target, logits), total + share
    return logits.detach(), (mixed / total).detach()


def soft(targets: Tensor, logits: Tensor) -> Tensor:
    """Class targets as one-hot rows; soft ones, and rows of an ignored class (0), as they are."""
    if targets.is_floating_point():
        return targets
    return (torch.arange(logits.shape[1], device=logits.device) == targets.unsqueeze(1)).to(logits.dtype)


def of_terms(parts: Parts, batch_size: int, main: object = None) -> Classes | None:
    """The logits of the term with the key ``main``, or else of the first that has some."""
    having = [
        (t.classes, scale, t.key) for t, scale in parts if t.classes is not None and t.classes[0].shape[0] == batch_size
    ]
    if not having:
        return None
    first = next((classes for classes, _, key in having if key == main), having[0][0])
    return mix([(classes, scale) for classes, scale, _ in having if classes[0] is first[0]])


def of_sources(sources: Sequence[Source], batch_size: int, loss: Tensor | None) -> Classes | None:
    """The logits of losses that were left unreduced, as hand-written ones start from."""
    sources = [s for s in sources if s.classes[0].shape[0] == batch_size == s.losses.numel()]
    if not sources:
        return None
    if len(sources) == 1 or loss is None:
        return mix([(sources[0].classes, 1.0)])
    slopes = derivatives(loss, [source.losses for source in sources])
    used = [(s.classes, c) for s, c in zip(sources, slopes, strict=True) if c is not None]
    return mix([(c, k) for c, k in used if c[0] is used[0][0][0]]) if used else None
