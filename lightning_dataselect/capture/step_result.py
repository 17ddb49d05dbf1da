"""What the samples of one step lose, added up root by root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_dataselect.capture import classes
from lightning_dataselect.capture.loops import turns_in
from lightning_dataselect.capture.losses import Classes
from lightning_dataselect.capture.outputs import Outputs, find_outputs, shows_outputs
from lightning_dataselect.capture.recorder import Recorder
from lightning_dataselect.capture.reprobe import Unknown
from lightning_dataselect.capture.shares import Parts, weigh
from lightning_dataselect.capture.terms import Key
from lightning_dataselect.capture.unknown_reductions import unknown_reductions

Summarize = Callable[[Outputs], Tensor | None]


@dataclass(frozen=True)
class Captured:
    """What one batch's samples lost.

    Attributes:
        losses: (B,) float32, without a graph, on the loss's device; NaN where nothing is known.
        logits: (B, C), without a graph, of a classification loss; else None.
        targets: (B,) int64 class indices, or (B, C) soft ones, that belong to the logits.
        outputs: what `LossCapture.summarize` made of the model's outputs; None where it saw none.
        known: False where the step took a way that no probe had seen, or returned no loss.
    """

    losses: Tensor
    logits: Tensor | None = None
    targets: Tensor | None = None
    outputs: Tensor | None = None
    known: bool = True


@dataclass
class PrimaryTerms:
    """Of several terms, those with the greatest coefficients in the first probe.

    Attributes:
        classes: the term whose logits and targets count.
        outputs: the term whose outputs count.
    """

    classes: Key | None = None
    outputs: Key | None = None

    def choose(self, parts: Parts, recorder: Recorder) -> None:
        """Settle what is not settled yet."""
        showing = {key for key, name, arguments in recorder.calls if shows_outputs(name, arguments)}
        ranked = sorted(parts, key=lambda part: -float(torch.as_tensor(part[1]).abs().max()))
        self.classes = self.classes or next((t.key for t, _ in ranked if t.classes is not None), None)
        self.outputs = self.outputs or next((t.key for t, _ in ranked if t.key in showing), None)


@dataclass(eq=False)
class StepResult:
    """The roots of one step.

    Attributes:
        recorder: holds the step's terms.
        mains: which of several terms' logits and outputs count.
        summarize: makes of the outputs what is kept; None: they are not looked for.
        roots: the terms of each, with their factors.
        unknown: what else each root was put together from (see `unknown_reductions`); None where nobody can tell.
        lost: the step has gone an unknown way, so that terms may be missing.
        partial: some samples lack a term that others have, and nobody knows which.
    """

    recorder: Recorder
    mains: PrimaryTerms
    summarize: Summarize | None
    roots: list[Parts] = field(default_factory=list)
    unknown: Unknown | None = ()
    lost: bool = False
    partial: bool = False
    _losses: Tensor | None = None
    _classes: Classes | None = None
    _outputs: Tensor | None = None
    _device: torch.device | None = None

    def add(self, parts: Parts, loss: Tensor, constant: Tensor | None = None) -> None:
        """Add what the samples lose by one root: by its terms, each with its factor (see `shares.scale`).

        Args:
            parts: its terms.
            loss: the root.
            constant: 0-dim, what it holds besides; None for nothing.
        """
        recorder = self.recorder
        self.roots.append(parts)
        if recorder.compiled:
            self.unknown = None  # compiled code shows one node for all that is in it
        elif self.unknown is not None:
            nodes = {turn.node for term, _ in parts for turn in turns_in(term)}
            self.unknown = (*self.unknown, unknown_reductions(loss.grad_fn, nodes))
        self._device = loss.device
        if not parts:
            return
        losses = weigh(parts, recorder)
        if constant is not None:
            losses = losses + constant
        self._losses = losses if self._losses is None else self._losses + losses
        if self._classes is None:
            asked = loss if loss.requires_grad and not recorder.compiled else None
            self._classes = find_classes(recorder, parts, self.mains, asked)
        if self._outputs is None:
            self._outputs = summary(recorder, parts, self.mains, self.summarize)

    def way(self) -> frozenset[Key]:
        """The terms of all roots."""
        return frozenset(term.key for parts in self.roots for term, _ in parts)

    def captured(self) -> Captured:
        """All of it."""
        if self._losses is None or self.lost:
            nothing = torch.full((self.recorder.batch_size,), torch.nan, device=self._device)
            return Captured(nothing, known=False)
        logits, targets = self._classes or (None, None)
        return Captured(self._losses, logits, targets, self._outputs)


def find_classes(recorder: Recorder, parts: Parts, mains: PrimaryTerms, loss: Tensor | None) -> Classes | None:
    """The logits and targets of the terms, or else of the unreduced losses that the loss starts from."""
    size = recorder.batch_size
    return classes.of_terms(parts, size, mains.classes) or classes.of_sources(recorder.sources, size, loss)


def summary(recorder: Recorder, parts: Parts, mains: PrimaryTerms, summarize: Summarize | None) -> Tensor | None:
    """What is kept of the outputs that the step has shown so far."""
    if summarize is None:
        return None
    keys = sorted((term.key for term, _ in parts), key=lambda key: key != mains.outputs)
    outputs = find_outputs(recorder.calls, keys, recorder.batch_size, recorder.facts.strided)
    return None if outputs is None else summarize(outputs)
