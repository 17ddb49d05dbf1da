"""Add up the samples' losses in one step, root by root, with the logits, targets and outputs found on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.graph import Unknown, unknown_reductions
from lightning_dataselect.capture.loss.loss_functions import Classes
from lightning_dataselect.capture.loss.terms import Key, Parts, turns_in
from lightning_dataselect.capture.reading.outputs import Outputs, classes_of_sources, classes_of_terms, find_outputs
from lightning_dataselect.capture.reading.scaling import weigh
from lightning_dataselect.capture.recording.record import Record

Summarize = Callable[[Outputs], Tensor | None]


@dataclass(frozen=True)
class Captured:
    """Hold what one batch's samples lost.

    Attributes:
        losses: (B,) float32, without a graph, on the loss's device; NaN where nothing is known.
        logits: (B, C), without a graph, of a classification loss; else None.
        targets: (B,) int64 class indices, negative for a sample that the loss ignores, or (B, C) soft ones; they belong
            to the logits.
        outputs: What `LossCapture.summarize` made of the model's outputs; None where it saw none.
        known: False where the step took a way that no probe had seen, or returned no loss.
        is_own: True if nothing else writes into the memory of the losses, as a compiled module may with its next batch.
    """

    losses: Tensor
    logits: Tensor | None = None
    targets: Tensor | None = None
    outputs: Tensor | None = None
    known: bool = True
    is_own: bool = False


@dataclass
class PrimaryTerms:
    """Remember, of several terms, those with the greatest coefficients in the first probe.

    Attributes:
        classes: The term whose logits and targets count.
        outputs: The term whose outputs count.
    """

    classes: Key | None = None
    outputs: Key | None = None

    def choose(self, parts: Parts, record: Record) -> None:
        """Settle what is not settled yet."""
        showing = {key for key, loss, arguments in record.calls if loss.shows_outputs(arguments)}
        ranked = sorted(parts, key=lambda part: -float(torch.as_tensor(part[1]).abs().max()))
        self.classes = self.classes or next((t.key for t, _ in ranked if t.classes is not None), None)
        self.outputs = self.outputs or next((t.key for t, _ in ranked if t.key in showing), None)


@dataclass(eq=False)
class StepResult:
    """Add up the roots of one step.

    Attributes:
        record: Holds the step's terms.
        mains: Which of several terms' logits and outputs count.
        summarize: Makes of the outputs what is kept; None: they are not looked for.
        roots: The terms of each, with their factors.
        unknown: What else each root was put together from (see `graph.unknown_reductions`); None where nobody can tell.
        lost: The step has gone an unknown way, so that terms may be missing.
        partial: Some samples lack a term that others have, and nobody knows which.
        way: The terms of all roots.
    """

    record: Record
    mains: PrimaryTerms
    summarize: Summarize | None
    roots: list[Parts] = field(default_factory=list)
    unknown: Unknown | None = ()
    lost: bool = False
    partial: bool = False
    way: frozenset[Key] = frozenset()
    _losses: Tensor | None = None
    _classes: Classes | None = None
    _outputs: Tensor | None = None
    _device: torch.device | None = None

    def add(self, parts: Parts, loss: Tensor, constant: Tensor | None = None) -> None:
        """Add what the samples lose by one root: by its terms, each with its factor (see `scale`).

        Args:
            parts: Its terms.
            loss: The root.
            constant: 0-dim, what it holds besides; None for nothing.
        """
        record = self.record
        self.roots.append(parts)
        self.way = self.way.union([term.key for term, _ in parts])
        if record.compiled:
            self.unknown = None  # compiled code shows one node for all that is in it
        elif self.unknown is not None:
            nodes = {turn.edge.node for term, _ in parts for turn in turns_in(term) if turn.edge is not None}
            nodes |= record.nodes_of_others() if record.beside else set()
            others = () if loss.grad_fn in nodes else unknown_reductions(loss.grad_fn, nodes)
            self.unknown = (*self.unknown, others)
        self._device = loss.device
        if not parts:
            return
        losses = weigh(parts, record)
        if constant is not None:
            losses = losses + constant
        self._losses = losses if self._losses is None else self._losses + losses
        if self._classes is None:
            asked = loss if loss.requires_grad and not record.compiled else None
            self._classes = find_classes(record, parts, self.mains, asked)
        if self._outputs is None and self.summarize is not None:
            self._outputs = summary(record, parts, self.mains, self.summarize)

    def captured(self) -> Captured:
        """Return all of it."""
        if self._losses is None or self.lost:
            return nothing_known(self.record.batch_size, self._device)
        logits, targets = self._classes or (None, None)
        return Captured(self._losses, logits, targets, self._outputs)


def nothing_known(batch_size: int, device: torch.device | None) -> Captured:
    """Return the result for samples whose losses are not known."""
    return Captured(torch.full((batch_size,), torch.nan, device=device), known=False)


def find_classes(record: Record, parts: Parts, mains: PrimaryTerms, loss: Tensor | None) -> Classes | None:
    """Return the logits and targets of the terms, or else of the unreduced losses that the loss starts from."""
    found = classes_of_terms(parts, mains.classes)
    if found is None and record.sources:
        mixed = record.spec.has_foreign
        asked = _own_share(parts) if mixed and loss is not None else loss
        found = classes_of_sources(record.sources, record.batch_size, asked, any_may_do=not mixed)
    return found


def _own_share(parts: Parts) -> Tensor:
    """Return the share of a loss that the terms make up, with its graph."""
    own = [(turn.value.float().reshape(()), factor) for term, factor in parts for turn in turns_in(term)]
    return torch.stack([value * factor if torch.as_tensor(factor).dim() == 0 else value for value, factor in own]).sum()


def summary(record: Record, parts: Parts, mains: PrimaryTerms, summarize: Summarize) -> Tensor | None:
    """Return what is kept of the outputs that the step has shown so far."""
    keys = sorted((term.key for term, _ in parts), key=lambda key: key != mains.outputs)
    outputs = find_outputs(record.calls, keys, record.batch_size, record.spec)
    return None if outputs is None else summarize(outputs)
