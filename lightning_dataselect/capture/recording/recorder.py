"""Record what a step under capture does: its losses, means and sums, and what they were given."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext

from lightning_dataselect.capture.loss.folds import make_fold, over_samples
from lightning_dataselect.capture.loss.graph import edge_of, saving_is_noted, saving_unnoticed
from lightning_dataselect.capture.loss.loss_functions import Loss, once, twice
from lightning_dataselect.capture.loss.reductions import Reduction, foldable, reduce
from lightning_dataselect.capture.loss.specs import UNKNOWN, Layout, TermSpec
from lightning_dataselect.capture.loss.terms import Key, Source, Term, key_of_call
from lightning_dataselect.capture.recording.picks import Pick
from lightning_dataselect.capture.recording.record import Record
from lightning_dataselect.capture.recording.sole_loss import SoleLoss


class Recorder(Record):
    """Take the calls of one step: keep its losses, means and sums, and weigh them."""

    def listens(self) -> bool:
        """Tell if a call is the step's own: made while it runs, in its thread."""
        if torch.compiler.is_dynamo_compiling():
            return not self.busy
        return self._thread == threading.get_ident() and not self.busy

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Compute something within the step that is not part of it."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def loss(self, loss: Loss, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Tensor:
        """Call a loss function unreduced, keep the losses, and reduce them as the caller asked."""
        bound = loss.bind(args, kwargs)
        self.busy = True  # calls inside a loss function are not the step's own
        try:
            if not loss.reduces(bound):
                losses = function(*args, **kwargs)
                self.note_unreduced(loss, bound, losses)
                return losses
            is_sum = bound.get("reduction", "mean") == "sum"
            # see `Loss.call_name`: inline, as a short step would notice a call
            key, spec, enters, weights = self._meet(f"{loss.name} (sum)" if is_sum else loss.name, True)
            given = _given_with_graph(bound)
            if not enters or not (self.scoring or given is not None):
                return function(*args, **kwargs)  # a metric, say
            made_from = None if given is None or torch.compiler.is_dynamo_compiling() else given.grad_fn
            size, observer = self.batch_size, self.observer
            graph = weights is not None or observer is not None
            # A compiler traces it once, and must find no reducing call in its graph, which would call us again by name.
            one = weights is not None or torch.compiler.is_dynamo_compiling()
            split = twice if saving_is_noted() else once if one else loss.split
            value, losses = split(function, bound, graph)
            layout, rows = spec.layout, loss.rows(bound, losses)
            if spec is self.sole_spec and value is not None and rows.shape == (size,):
                is_other = spec.n_classes and loss.has_class_axis and bound["input"].shape[-1] != spec.n_classes
                if not (is_other or loss.weighs_elements(bound)):
                    self.sole = SoleLoss(key, loss, bound, value, rows, edge_of(value), made_from)
                    return value
            pick_at, pick = self._picked(spec, rows) if self.picks else (None, None)
            elements = layout.turned(rows if pick is None else pick.put_back(rows))
            if observer is None and not foldable(elements.shape, size) and key[0] not in self.spec.loops:
                return function(*args, **kwargs) if value is None else value  # unlike in the probe
            units: Tensor | None = None
            counts: Tensor | None = None
            # each sample has one loss, and the mean is known: nothing is divided
            is_plain = value is not None and self.weights is None and observer is None and elements.numel() == size
            if not is_sum and not (is_plain and pick is None and not loss.weighs_elements(bound)):
                units = loss.units(bound)
            if is_sum and (observer is not None or spec.counts_elements):
                counts = loss.counts(bound)
            if pick is not None:
                units = None if is_sum else pick.units(rows) if units is None else pick.put_back(units)
                counts = None if not is_sum else pick.units(rows) if counts is None else pick.put_back(counts)
            if layout.axis:
                units, counts = layout.turned(units), layout.turned(counts)
            strided = layout.strided if observer is None else self._strided(spec, elements)
            if value is None:
                value = reduce(elements, units, is_sum=is_sum, weights=weights, strided=strided)
                if weights is not None:
                    plain = reduce(elements.detach(), units, is_sum=is_sum, strided=strided)
                    value = self._with_value(value, plain)
                weights = None
            if self.keeps_calls:
                self.calls.append((key, loss, bound))
            classes, weighs = loss.classes_of(bound, size), loss.weighs_classes(bound)
            term = Term(key, value, elements, units, is_sum, strided, classes, weighs, counts=counts)
            term.picked_at, term.made_from, term.targets = pick_at, made_from, bound.get("target")
            if observer is not None:
                observer.describe(term, elements, bound)
            self._keep(term, weights)
            return term.value
        finally:
            self.busy = False

    def note_unreduced(self, loss: Loss, bound: dict[str, Any], losses: Tensor) -> None:
        """Record what a loss function has returned unreduced: the step itself may reduce it."""
        if (losses.requires_grad or self.scoring) and not _traced_by_backend():
            if self.keeps_calls:
                self.calls.append((None, loss, bound))
            classes = loss.classes_of(bound, self.batch_size)
            if classes is not None:
                self.sources.append(Source(classes, losses))

    @property
    def passes(self) -> Mapping[Hashable, int]:
        """How often this step has passed each place so far."""
        return dict(self._calls)

    def owns_next(self, where: Hashable) -> bool:
        """Tell if the next call at a place is known to be a term of the samples that are measured."""
        return self.spec.owns(self._key(where, self._calls.get(where, 0)))

    def pass_by(self, where: Hashable) -> None:
        """Count a call that belongs to other samples, recorded beside this."""
        self._calls[where] = self._calls.get(where, 0) + 1

    @property
    def members(self) -> Sequence[Recorder]:
        """The recorder itself, as a `SharedRecorder` has several."""
        return (self,)

    def reduction(self, where: Hashable, ending: Reduction, given: Tensor, value: Tensor) -> Tensor:
        """Record the last step of a hand-written loss: a mean or a sum to one number.

        In compiled code there is no place (None): the call is recognised by its turn in the step.
        """
        if given.dim() == 0:
            return value
        order = self._reductions  # a turn whatever the shape: in a smaller batch more shapes are reduced to one number
        self._reductions += 1
        if self.observer is not None:
            self.order[order] = where
        elif where is None:
            where = self.spec.order.get(order)
        key, spec, enters, weights = self._meet(where, False)
        is_count = key in self.spec.divisors if self.observer is None else not value.requires_grad
        if self.observer is not None and is_count and id(given) in self.folds:
            self.observer.number_out_of_sight(value)
            return value
        layout = self._layout_of_count(key, given.shape) if is_count else spec.layout
        pick_at, pick = (None, None) if is_count else self._picked(spec, given)
        has_fold = not (is_count or torch.compiler.is_dynamo_compiling())  # older compilers cannot ask for an id
        rows, fold = given, self.folds.get(id(given)) if has_fold else None
        made_from = None if torch.compiler.is_dynamo_compiling() else given.grad_fn
        if spec.is_witnessed and not spec.is_joined:
            fold = None  # another axis is as long as the batch
        if fold is not None:
            self.joined[key], made_from = fold.where, fold.made_from
            each = fold.elements.flatten(1)
            given, ending = each.sum(1) if ending.is_sum else each.mean(1), fold.ending
        elif pick is not None:
            given = pick.put_back(given)
        if given.dim() > layout.axis:
            given = layout.turned(given)
        whole = foldable(given.shape, self.batch_size)
        if is_count and whole:
            self.counts[key] = count = self._ended(key, layout.strided, ending, given.detach(), value.detach())
            count.elements = count.elements.float()
            if self.observer is not None:
                self.observer.number(value, key)
                self.layouts[key] = layout
                self.observer.describe(count, rows)
        elif enters and (value.requires_grad or self.scoring):
            if whole or key[0] in self.spec.loops or self.observer is not None:
                term = self._ended(key, self._strided(spec, given), ending, given, value)
                term.is_joined, term.made_from = fold is not None, made_from
                if pick is not None:
                    mask, term.picked_at = layout.turned(pick.units(rows)), pick_at
                    units = mask if term.units is None else term.units * mask
                    term.units, term.counts = (None, mask) if ending.is_sum else (units, None)
                self._keep(term, weights)
                if self.observer is not None:
                    self.observer.number(term.value, key)
                return term.value
        return value

    def pick(self, where: Hashable, pick: Pick) -> Key:
        """Record rows that were picked out of a tensor; return the key of this call."""
        call = self._calls.get(where, 0)
        self._calls[where] = call + 1
        self.picks[where, call] = pick
        return where, call

    def fold(self, where: Hashable, ending: Reduction, given: Tensor, value: Tensor, axes: Sequence[int]) -> Tensor:
        """Record a mean or a sum over the samples, and these further axes, that leaves another axis."""
        key, spec, _, weights = self._meet(over_samples(where), False)
        fold = make_fold(key, where, ending, given, value, axes)
        if self.observer is not None:
            self.observer.describe(fold, given)
            fold.edge = edge_of(value)
        elif spec.enters and (value.requires_grad or self.scoring):
            self._keep(fold, weights)
        self.folds[id(fold.value)] = fold
        return fold.value

    def _picked(self, spec: TermSpec, rows: Tensor) -> tuple[Key | None, Pick | None]:
        """Return where a mask picked the rows that these were computed from, and which; None if no mask did."""
        where = spec.picked_at if self.observer is None else self.observer.picked_at(rows)
        pick = self.picks.get(where) if where is not None else None
        fitting = None if pick is None else pick.of(rows)
        return (None, None) if fitting is None else (where, fitting)

    def _layout_of_count(self, key: Key, shape: torch.Size) -> Layout:
        """Find where the samples lie in what is counted: along the second axis, say, as of time-major tokens."""
        known, size = self.spec.counts.get(key), self.batch_size
        if self.observer is None:
            return known or Layout()
        was_open = key in self.open_counts
        is_open = was_open if size == 1 else shape[:2] == (size, size)  # one sample tells nothing
        if is_open:
            self.observer.meet_equal_axes()
        if known is not None and (is_open or not was_open):
            return known
        self.open_counts = self.open_counts | {key} if is_open else self.open_counts - {key}
        if shape[1:2] == (size,) and not foldable(shape, size):
            return Layout(axis=1)
        return Layout(strided=self.observer.strided(shape, size))

    def _ended(self, key: Key, strided: bool, ending: Reduction, given: Tensor, value: Tensor) -> Term:
        elements, units = ending.elements(given), ending.units(given)
        term = Term(key, value, elements, units, ending.is_sum, strided)
        if self.observer is not None:
            self.observer.describe(term, given)
        return term

    def _meet(self, where: Hashable, by_default: bool) -> tuple[Key, TermSpec, bool, Tensor | None]:
        """Return the key of a new reduction, what is known of it, whether it counts, and the weights on it."""
        call = self._calls.get(where, 0)
        self._calls[where] = call + 1
        key = self._key(where, call) if self.spec.n_each else (where, call)  # no further call in each step
        spec = self.spec.terms.get(key, UNKNOWN)
        # A new loss function counts at once, a new mean or sum only when a probe has judged it.
        enters = by_default if spec is UNKNOWN else spec.enters
        if key[0] in self.spec.loops:
            turn = key[1] - self.spec.first_turns.get(key[0], 0)
            return key, spec, True, None if self.weights is None else self.weights[turn : turn + 1]
        if self.observer is not None:
            enters = True
        return key, spec, enters is not False, self.weights if enters else None

    def _key(self, where: Hashable, call: int) -> Key:
        n_each = self.spec.n_each.get(where, 1)
        return (where, call) if n_each == 1 else key_of_call(where, call, n_each)

    def _strided(self, spec: TermSpec, elements: Tensor) -> bool:
        if self.observer is None or spec.is_witnessed:
            return spec.layout.strided
        return self.observer.strided(elements.shape, self.batch_size)

    def _with_value(self, weighted: Tensor, plain: Tensor) -> Tensor:
        return weighted + (plain - weighted).detach() if self.keeps_value else weighted

    def _keep(self, term: Term, weights: Tensor | None) -> None:
        if weights is not None and saving_is_noted():
            with saving_unnoticed():
                change = term.weighted(weights) - term.weighted(None)
            term.value = self._with_value(term.value + change, term.value)
        elif weights is not None:
            term.value = self._with_value(term.weighted(weights).view_as(term.value), term.value)
        if self.observer is None and term.elements.requires_grad:
            term.elements = term.elements.detach()
        if torch.compiler.is_dynamo_compiling():
            self.compiled = True
        else:
            term.edge = edge_of(term.value)
            if self.beside:
                self.tell_others(term)
        self.terms.append(term)


def _traced_by_backend() -> bool:
    """Tell if a compiler's backend calls by name, so through an interceptor, what one has called unreduced."""
    return not torch.compiler.is_dynamo_compiling() and TracingContext.try_get() is not None


def _given_with_graph(bound: dict[str, Any]) -> Tensor | None:
    """Return the first argument of a call that requires gradients; None if there is none."""
    if torch.is_grad_enabled():
        for value in bound.values():
            if isinstance(value, Tensor) and value.requires_grad:
                return value
    return None
