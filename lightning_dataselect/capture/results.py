"""Add up what the samples of one step lose, root by root, and gather what comes along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.graph import Unknown, derivatives, unknown_reductions
from lightning_dataselect.capture.interception import Call, Recorder
from lightning_dataselect.capture.loss_functions import Classes, Loss
from lightning_dataselect.capture.reductions import (
    Key,
    Loop,
    Parts,
    Scale,
    Source,
    Term,
    by_sample,
    fold,
    foldable,
    turns_in,
)
from lightning_dataselect.capture.specs import Divisor, StepSpec, TermSpec


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
        >>> from lightning_dataselect.capture.loss_functions import LOSSES
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


_MOST_DOUBTS = 3  # looks that a coefficient is worth which changes, until it is taken for one that is drawn or learned


def scale(term: Term, slope: Scale, recorder: Recorder) -> Scale:
    """Return the factor of a term in the loss of a batch of one sample.

    A coefficient is the same for it. What the whole batch's sum was divided by is not: see `Divisor`. Where several
    divisors have fitted so far, this step's coefficient tells them apart, without a look at its value.
    """
    spec = recorder.spec.of(term.key)
    if spec.is_nonlinear:
        return 1.0
    if spec.is_even:
        recorder.doubts.rows(term.key, by_sample(term.elements, recorder.batch_size, term.strided))
    is_loop = isinstance(term, Loop)
    watches = (spec.is_witnessed or is_loop) and spec.n_doubts < _MOST_DOUBTS
    if watches and spec.n_rows and spec.picked_at is None and not is_loop:
        shape, size = term.elements.shape, recorder.batch_size
        if shape and shape[0] != size and term.elements.numel() != spec.n_rows * size:
            recorder.doubts.note(term.key)
    if len(spec.readings) < 2:
        if spec.divided_elementwise:
            return slope
        product = slope if spec.divisor is None else slope * _total(term, spec.divisor, recorder)
        if watches and spec.readings and (isinstance(product, Tensor) or product != spec.readings[0][1]):
            watched = torch.as_tensor(product).mean() if is_loop else product
            recorder.doubts.coefficient(term.key, [spec.readings[0][1]], [watched])
        return product
    products = [slope * _total(term, divisor, recorder) for divisor, _ in spec.readings]
    found = [product for _, product in spec.readings]
    if watches:
        recorder.doubts.coefficient(term.key, found, products)
    term.choice = recorder.claims.choose(term.key, found, products, term.elements.device)
    chosen = torch.stack([torch.as_tensor(product, device=term.elements.device).float() for product in products])
    return chosen.reshape(-1).index_select(0, term.choice).squeeze(0)


def losses(term: Term, recorder: Recorder) -> Tensor:
    """Return what each sample loses by a term, but for its factor: (batch_size,) float32."""
    spec, own = recorder.spec.of(term.key), term.losses(recorder.batch_size)
    if term.choice is None:
        return own if spec.divisor is None else _divided(term, own, spec, spec.divisor, recorder)
    divisors = [divisor for divisor, _ in spec.readings]
    ways = [own if d is None else _divided(term, own, spec, d, recorder) for d in divisors]
    return torch.stack(ways).index_select(0, term.choice).squeeze(0)


def _divided(term: Term, own: Tensor, spec: TermSpec, divisor: Divisor, recorder: Recorder) -> Tensor:
    if spec.divided_elementwise:
        own = own * _total(term, divisor, recorder)
    share = _shares(term, divisor, recorder)
    return own if share is None else torch.where(share == 0, own, own / share)


def _shares(term: Term, divisor: Divisor, recorder: Recorder) -> Tensor | None:
    """Return what each sample has in a divisor, (batch_size,); None for 1, or where it was not counted."""
    size = recorder.batch_size
    if divisor in ("samples", "one over samples"):
        return None
    if isinstance(divisor, str):
        counted = term.counts if divisor == "counts" else term.elements != 0
        return None if counted is None else fold(counted.float(), None, size, is_sum=True, strided=term.strided)
    number = recorder.counts.get(divisor)
    return None if number is None else number.losses(size)


def _total(term: Term, divisor: Divisor | None, recorder: Recorder) -> Scale:
    """Return what a term is divided by, of the whole batch; 1 for nothing.

    Where it is 0, as the number of the objects in images without any, the step has divided by 1, if at all:
    ``max(1, n)``.
    """
    if divisor is None:
        return 1.0
    if divisor == "samples":
        return float(recorder.batch_size)
    if divisor == "one over samples":
        return 1.0 / recorder.batch_size
    if isinstance(divisor, str):
        share = _shares(term, divisor, recorder)
        total = None if share is None else share.sum()
    else:
        found = recorder.counts.get(divisor)
        total = None if found is None else found.weighted(None)
        if total is not None and recorder.spec.of(term.key).divided_by_mean:
            total = total / recorder.batch_size
    return 1.0 if total is None else torch.where(total == 0, 1, total)


def weigh(parts: Parts, recorder: Recorder) -> Tensor:
    """Add up what each sample loses by each term with its factor: (batch_size,) float32."""
    total: Tensor | None = None
    for term, factor in parts:
        each = losses(term, recorder)
        if isinstance(factor, Tensor) or factor != 1.0:
            each = each * factor
        total = each if total is None else total + each
    assert total is not None
    return total.float()


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
    """

    losses: Tensor
    logits: Tensor | None = None
    targets: Tensor | None = None
    outputs: Tensor | None = None
    known: bool = True


@dataclass
class PrimaryTerms:
    """Remember, of several terms, those with the greatest coefficients in the first probe.

    Attributes:
        classes: The term whose logits and targets count.
        outputs: The term whose outputs count.
    """

    classes: Key | None = None
    outputs: Key | None = None

    def choose(self, parts: Parts, recorder: Recorder) -> None:
        """Settle what is not settled yet."""
        showing = {key for key, loss, arguments in recorder.calls if loss.shows_outputs(arguments)}
        ranked = sorted(parts, key=lambda part: -float(torch.as_tensor(part[1]).abs().max()))
        self.classes = self.classes or next((t.key for t, _ in ranked if t.classes is not None), None)
        self.outputs = self.outputs or next((t.key for t, _ in ranked if t.key in showing), None)


@dataclass(eq=False)
class StepResult:
    """Add up the roots of one step.

    Attributes:
        recorder: Holds the step's terms.
        mains: Which of several terms' logits and outputs count.
        summarize: Makes of the outputs what is kept; None: they are not looked for.
        roots: The terms of each, with their factors.
        unknown: What else each root was put together from (see `graph.unknown_reductions`); None where nobody can tell.
        lost: The step has gone an unknown way, so that terms may be missing.
        partial: Some samples lack a term that others have, and nobody knows which.
        way: The terms of all roots.
    """

    recorder: Recorder
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
        recorder = self.recorder
        self.roots.append(parts)
        self.way = self.way.union([term.key for term, _ in parts])
        if recorder.compiled:
            self.unknown = None  # compiled code shows one node for all that is in it
        elif self.unknown is not None:
            nodes = {turn.edge.node for term, _ in parts for turn in turns_in(term) if turn.edge is not None}
            others = () if loss.grad_fn in nodes else unknown_reductions(loss.grad_fn, nodes)
            self.unknown = (*self.unknown, others)
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
        if self._outputs is None and self.summarize is not None:
            self._outputs = summary(recorder, parts, self.mains, self.summarize)

    def captured(self) -> Captured:
        """Return all of it."""
        if self._losses is None or self.lost:
            nothing = torch.full((self.recorder.batch_size,), torch.nan, device=self._device)
            return Captured(nothing, known=False)
        logits, targets = self._classes or (None, None)
        return Captured(self._losses, logits, targets, self._outputs)


def find_classes(recorder: Recorder, parts: Parts, mains: PrimaryTerms, loss: Tensor | None) -> Classes | None:
    """Return the logits and targets of the terms, or else of the unreduced losses that the loss starts from."""
    found = classes_of_terms(parts, mains.classes)
    if found is None and recorder.sources:
        mixed = recorder.spec.has_foreign
        asked = _own_share(parts) if mixed and loss is not None else loss
        found = classes_of_sources(recorder.sources, recorder.batch_size, asked, any_may_do=not mixed)
    return found


def _own_share(parts: Parts) -> Tensor:
    """Return the share of a loss that the terms make up, with its graph."""
    own = [(turn.value.float().reshape(()), factor) for term, factor in parts for turn in turns_in(term)]
    return torch.stack([value * factor if torch.as_tensor(factor).dim() == 0 else value for value, factor in own]).sum()


def summary(recorder: Recorder, parts: Parts, mains: PrimaryTerms, summarize: Summarize) -> Tensor | None:
    """Return what is kept of the outputs that the step has shown so far."""
    keys = sorted((term.key for term, _ in parts), key=lambda key: key != mains.outputs)
    outputs = find_outputs(recorder.calls, keys, recorder.batch_size, recorder.spec)
    return None if outputs is None else summarize(outputs)
