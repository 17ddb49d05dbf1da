"""Find the outputs, logits and targets that belong to a step's losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.graph import derivatives
from lightning_dataselect.capture.loss.loss_functions import Classes, Loss
from lightning_dataselect.capture.loss.reductions import by_sample, foldable
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key, Parts, Scale, Source
from lightning_dataselect.capture.recording.record import Call


@dataclass(frozen=True)
class Outputs:
    """Hold what the model put out for the samples of a batch.

    Attributes:
        values: (B, T, C), without a graph: T vectors a sample, such as one a token; else T = 1.
        valid: bool (B, T), False for tokens that the loss ignores; None where all count.
        probabilities: Turns values into probabilities; None where they are no classes' scores.
    """

    values: Tensor
    valid: Tensor | None = None
    probabilities: Callable[[Tensor], Tensor] | None = None


def find_outputs(calls: Sequence[Call], keys: Iterable[Key], batch_size: int, spec: StepSpec) -> Outputs | None:
    """Return the outputs that belong to the first of ``keys`` that shows some, or else to an unreduced loss.

    An unreduced loss may be one of other samples, where there are some.

    Args:
        calls: Of the loss functions in a step.
        keys: The terms of its loss, the most important first.
        batch_size: The number of samples, B.
        spec: The findings about the step.
    """
    for wanted in keys if spec.has_foreign else (*keys, None):
        for key, loss, arguments in calls:
            if key == wanted and loss.shows_outputs(arguments):
                outputs = outputs_of_call(loss, arguments, batch_size, key is not None and spec.of(key).layout.strided)
                if outputs is not None:
                    return outputs
    return None


def outputs_of_call(loss: Loss, arguments: Mapping[str, Any], batch_size: int, strided: bool = False) -> Outputs | None:
    """Lay the outputs that a loss function was given out by sample; None if they are no multiple of the samples.

    Example:
        >>> from lightning_dataselect.capture.loss.loss_functions import LOSSES
        >>> arguments = {"input": torch.zeros(6, 5), "target": torch.tensor([1, 2, -100] * 2)}
        >>> loss = next(loss for loss in LOSSES if loss.name == "cross_entropy")
        >>> outputs = outputs_of_call(loss, arguments, batch_size=2)
        >>> outputs.values.shape, outputs.valid.tolist()
        (torch.Size([2, 3, 5]), [[True, True, False], [True, True, False]])
    """
    of_classes, values = loss.has_class_axis, arguments["input"].detach()
    if values.dim() == 0 or (values.dim() == 1 and of_classes):
        values = values.reshape(1, -1)
    if not foldable(values.shape, batch_size):
        return None
    if of_classes:
        values = values.movedim(1, -1)
    width = values.shape[-1] if values.dim() > 1 else 1
    rows = by_sample(values, batch_size, strided).unflatten(1, (-1, width))
    targets = arguments.get("target")
    valid = None
    if of_classes and rows.shape[1] > 1 and targets is not None and not targets.is_floating_point():
        ignored = arguments.get("ignore_index", -100)
        valid = by_sample(targets, batch_size, strided) != (-100 if ignored is None else ignored)
    return Outputs(rows, valid, loss.probabilities)


Weighted = tuple[Classes, Scale]


def mix(group: Sequence[Weighted]) -> Classes:
    """Join several losses of the same logits: the targets averaged by the share of each, as mixup's.

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
        return logits.detach(), targets.detach() if targets.requires_grad else targets
    mixed, total = torch.zeros_like(logits), torch.zeros_like(logits[:, :1])
    for (_, target), factor in group:
        share = torch.as_tensor(factor, dtype=logits.dtype, device=logits.device).reshape(-1, 1)
        mixed, total = mixed + share * soft(target, logits), total + share
    return logits.detach(), (mixed / total).detach()


def soft(targets: Tensor, logits: Tensor) -> Tensor:
    """Return class targets as one-hot rows; soft ones, and rows of an ignored class (0), as they are."""
    if targets.is_floating_point():
        return targets
    return (torch.arange(logits.shape[1], device=logits.device) == targets.unsqueeze(1)).to(logits.dtype)


def classes_of_terms(parts: Parts, main: object = None) -> Classes | None:
    """Return the logits of the term with the key ``main``, or else of the first that has some."""
    having = [(term.classes, scale, term.key) for term, scale in parts if term.classes]
    if len(having) <= 1:
        return mix([having[0][:2]]) if having else None
    first = next((classes for classes, _, key in having if key == main), having[0][0])
    return mix([(classes, scale) for classes, scale, _ in having if classes[0] is first[0]])


def classes_of_sources(
    sources: Sequence[Source], batch_size: int, loss: Tensor | None, *, any_may_do: bool = True
) -> Classes | None:
    """Return the logits of losses that were left unreduced, as hand-written ones start from.

    Args:
        sources: The losses.
        batch_size: The number of samples.
        loss: What is made of them, as far as it belongs to the samples; None if nobody can tell.
        any_may_do: False if they may be those of other samples.
    """
    sources = [s for s in sources if s.classes[0].shape[0] == batch_size == s.losses.numel()]
    if not sources or (loss is None and not any_may_do):
        return None
    if loss is None or (len(sources) == 1 and any_may_do):
        return mix([(sources[0].classes, 1.0)])
    slopes = derivatives(loss, [source.losses for source in sources])
    used = [(s.classes, c) for s, c in zip(sources, slopes, strict=True) if c is not None]
    return mix([(c, k) for c, k in used if c[0] is used[0][0][0]]) if used else None
