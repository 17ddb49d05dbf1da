"""Watch every torch call of a step to find what makes its loss."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_dataselect.capture.loss.graph import Anchor, reached
from lightning_dataselect.capture.loss.origin import Origins
from lightning_dataselect.capture.loss.reductions import Reduction
from lightning_dataselect.capture.loss.shown import Answers
from lightning_dataselect.capture.loss.terms import Key, Term
from lightning_dataselect.capture.probing.across import Across
from lightning_dataselect.capture.probing.branches import Branches
from lightning_dataselect.capture.probing.divisions import Divisions
from lightning_dataselect.capture.probing.exits import ASKING, Exits
from lightning_dataselect.capture.probing.judgements import Judgements
from lightning_dataselect.capture.probing.names import Names
from lightning_dataselect.capture.probing.orders import Orders, picks_rows
from lightning_dataselect.capture.probing.picked_rows import PickedRows, picks_some
from lightning_dataselect.capture.probing.sizes import Sizes
from lightning_dataselect.capture.probing.tables import Tables
from lightning_dataselect.capture.probing.watch import Watch, caller_of, is_compiled
from lightning_dataselect.capture.recording.interception import Interceptors, site
from lightning_dataselect.capture.recording.observer import Observer
from lightning_dataselect.capture.recording.picks import (
    GETITEM,
    IndexPick,
    Pick,
    by_numbers,
    covers,
    tensors_among,
    without_rows,
)
from lightning_dataselect.capture.recording.recorder import Recorder

_DIFFERENTIATING = {torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward}
_FINDING = {"nonzero", "argwhere", "unique", "unique_consecutive"}
_SETITEM = torch._C.TensorBase.__setitem__
_WEIGHTS = {"weight", "pos_weight"}  # arguments of loss functions


class Probe(Watch, Observer):
    """Watch a step, and find out how to do without watching.

    Attributes:
        names: By which names it calls loss functions that nothing has seen.
        sites: Place -> the mean or sum that was called there.
        anchors: The results of calls that had parameters, or normalised the batch, by their places in the graph.
        foreign: Likewise the results of code that a mode cannot see into, such as a scripted module.
        divisions: What the step divides its losses by.
        exits: What it takes out of torch, by which it may decide.
        picked: How many rows were picked out of a tensor by a mask or an index, by the places of the results.
        doubtful: The places where the mask was computed from the model's outputs, perhaps those of all samples.
        sizes: What sizes its tensors have.
        orders: Whether it has sorted something, or taken rows of the samples in another order.
        differentiates: True if the step takes derivatives of its own.
        slopes_of_means: The places of derivatives of means over the batch, which are smaller the more samples it has.
        origins: Knows what was computed from which samples; None if all samples of a batch are measured.
        values: The activations themselves, by their places in the graph, where they are kept; else None.
        calls: The names of the functions that were called, but for loss functions, in order.
        normalises: True if a layer has normalised the batch by its own statistics.
        picks_nothing: True if masks that were computed from the model's outputs are to pick no rows.
        unreachable: The terms that only a mode sees: loss functions by no name that can be patched,
            means and sums in compiled code (where a mode costs nothing).
    """

    def __init__(
        self,
        recorder: Recorder,
        interceptors: Interceptors,
        module: nn.Module | None,
        stand_ins: Answers | None = None,
    ) -> None:
        super().__init__(recorder, interceptors)
        self.names = Names(module)
        self.sites: dict[Hashable, Any] = {}
        self.unreachable: list[Key] = []
        self.anchors: dict[Node, list[Anchor]] = {}  # a node may have several results
        self.foreign: dict[Node, list[Anchor]] = {}
        self._made: set[Node] = set()  # the places of all results
        self.divisions = Divisions()
        self.exits = Exits(stand_ins)
        self._branches = Branches()
        self.across = Across(recorder.batch_size)
        self.picked: dict[Node, int] = {}
        self.doubtful: set[Hashable] = set()
        self.slopes_of_means: set[Node] = set()
        self._rows = PickedRows()
        self._judgements = Judgements()
        self._from_parameters: dict[int, Tensor] = {}  # holds them, so that no id is reused
        self.sizes = Sizes(recorder.batch_size)
        self.orders = Orders()
        self.differentiates = self._leaves_torch = False
        self._left_at: float = math.inf  # how far the graph was when a number of the loss was first taken out of torch
        self.origins: Origins | None = None
        self.values: dict[Node, list[Tensor]] | None = None
        self.calls: list[str] = []
        self.normalises = self.picks_nothing = False
        self._tables = Tables(module)

    def __enter__(self) -> Probe:
        """Begin a step with the recorder's number of samples."""
        self.across, self.sizes = Across(self.recorder.batch_size), Sizes(self.recorder.batch_size)
        super().__enter__()
        return self

    @property
    def tables(self) -> frozenset[Hashable]:
        """The places where integers index a table, such as class weights, in this step or an earlier one."""
        return self.recorder.spec.tables | self._tables.places()

    def note(self, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
        """Follow what is made of parameters alone, and what the samples lie along."""
        self.calls.append(func.__name__)
        self.differentiates |= func in _DIFFERENTIATING
        if func is torch.autograd.grad and self._is_of_mean(tensors_among([*args[:1], kwargs.get("outputs")])):
            self.slopes_of_means.update(t.grad_fn for t in tensors_among([out]) if t.grad_fn is not None)
        if func.__name__ in ASKING and isinstance(args[0], Tensor):
            self._leaves_torch |= not (args[0].requires_grad or self._judgements.holds(args[0]))
            self._judgements.note_leaving(args[0])
        self.normalises |= func.__name__ == "batch_norm" and bool(kwargs.get("training", args[5:6] == (True,)))
        self.came_of(func, [*args, *kwargs.values()], out)
        inputs, size = tensors_among([*args, *kwargs.values()]), self.recorder.batch_size
        made = [isinstance(t, nn.Parameter) or id(t) in self._from_parameters for t in inputs]
        if made and all(made):
            self._from_parameters.update((id(t), t) for t in tensors_among([out]))
            return
        data = [t for t, from_parameters in zip(inputs, made, strict=True) if not from_parameters]
        for tensor in data:
            if tensor.grad_fn is not None and tensor.grad_fn not in self._made and tensor.dim() > 0:
                self.foreign[tensor.grad_fn] = [Anchor(get_gradient_edge(tensor), tensor.shape)]
        self._made.update(t.grad_fn for t in tensors_among([out]) if t.grad_fn is not None)
        self.sizes.note(func.__name__, func, data, out)
        if self.sizes.asks(func, args) or self.sizes.multiplies(func.__name__, args):
            self.sizes.note_code(caller_of(sys._getframe(1), func).f_code, out)
        self.orders.note(func.__name__, args, out, size)
        if func is GETITEM and by_numbers(args[1]):
            table = args[0]
            found = {"of_parameters": self.from_parameters([table]), "rows": self._holds_rows(table)}
            self._tables.note(site(sys._getframe(2), func), table, size, **found)
        self._judgements.note(func.__name__, args, kwargs, tensors_among([args[0] if func is _SETITEM else out]))
        self._rows.note(inputs, tensors_among([out]))
        self.across.note(func.__name__, args, kwargs, out)
        self.divisions.note(func.__name__, [*args, *kwargs.values()], out)
        self.exits.note(func, args, inputs, out)
        self._branches.note(func.__name__, [*args, *kwargs.values()], out, self._terms())
        if func.__name__ in _FINDING:
            self.divisions.count_rows(len(tensors_among([out])[0]), func)
        if isinstance(out, Tensor) and out.grad_fn is not None and picks_rows(func.__name__, args, out, size):
            self.picked[out.grad_fn] = out.shape[0]
        for tensor in tensors_among([out]):
            anchor = any(made) or func.__name__ == "batch_norm"  # which mixes, with or without parameters
            if anchor and tensor.dim() > 0 and tensor.grad_fn is not None:
                self.anchors.setdefault(tensor.grad_fn, []).append(Anchor(get_gradient_edge(tensor), tensor.shape))
                if self.values is not None:
                    self.values.setdefault(tensor.grad_fn, []).append(tensor.detach())

    def given(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what a call is made with."""
        return without_rows(func, args, self._judgements.holds) if self.picks_nothing else args

    def answer(self, func: Any, args: tuple[Any, ...], out: Any) -> Any:
        """Return what the step gets as the result of a call, and note which way it takes by it."""
        if not self.exits.is_one(func, args) or self.from_parameters(args):
            return out
        of_loss = self._branches.asks_for_loss(func.__name__, args[0], self._terms())
        if of_loss and func.__name__ != "__bool__":
            self._left_at = min(self._left_at, max(node._sequence_nr() for node in self._made))
        where, of_bound = site(caller_of(sys._getframe(2), func), func), self._branches.asks_for_bound(args[0])
        return self.exits.take(where, out, of_loss=of_loss, of_bound=of_bound)

    def _is_of_mean(self, values: Iterable[Tensor]) -> bool:
        means = {term.node for term in self.recorder.terms if term.edge is not None and not term.is_sum}
        return self.recorder.batch_size > 1 and any(reached(value.grad_fn, means) for value in values)

    def _terms(self) -> set[Node]:
        return {term.edge.node for term in self.recorder.terms if term.edge is not None}

    def may_hold_numbers(self, loss: Tensor) -> bool:
        """Tell if a loss may depend on what the step has taken out of torch: its data, or a part of the loss before."""
        return self._leaves_torch or (loss.grad_fn is not None and loss.grad_fn._sequence_nr() > self._left_at)

    @property
    def limited(self) -> set[Node]:
        """The places of numbers that were chosen, of two, by how the model's outputs compare with a bound."""
        return self._judgements.limited

    def describe(self, term: Term, rows: Tensor, given: Mapping[str, Any] | None = None) -> None:
        """Write down what is known of a term, beside how it is reduced (see `Observer.describe`)."""
        values = [rows] if given is None else [*given.values()]
        made_of = tensors_among(values)
        term.from_parameters = self.from_parameters(made_of)
        term.origin = None if self.origins is None else self.origins.of(made_of)
        term.is_judged, term.is_ranked = self._judgements.of(tensors_among([rows, *values]), self.anchors)
        compared = values if given is None else [v for name, v in given.items() if name not in _WEIGHTS]
        term.is_compared = self.across.compares([rows], compared, self.anchors)
        term.is_shared = self.across.shares([rows], self.anchors)

    def came_of(self, func: Any, values: Iterable[Any], out: Any) -> None:
        """Follow what comes from which samples, where a batch has others than those that are measured."""
        if self.origins is not None:
            self.origins.follow(func, tensors_among(values), tensors_among([out]))

    def meet_loss(self, func: Any, values: Iterable[Any], out: Tensor) -> None:
        """Follow what comes from which samples through a loss function, and take its result for the step's own."""
        self.came_of(func, values, out)
        if out.grad_fn is not None:
            self._made.add(out.grad_fn)

    def from_parameters(self, values: Iterable[Any]) -> bool:
        """Tell if every tensor among the values was made of parameters alone."""
        tensors = tensors_among(values)
        return bool(tensors) and all(isinstance(t, nn.Parameter) or id(t) in self._from_parameters for t in tensors)

    def strided(self, shape: torch.Size, batch_size: int) -> bool:
        """Tell if rows of this shape lie ``batch_size`` apart for one sample (see `Sizes.are_strided`)."""
        return self.sizes.are_strided(shape)

    def meet_equal_axes(self) -> None:
        """Note that some other axis is as long as the batch."""
        self.sizes.has_equal_axes = True

    def number(self, value: Tensor, key: Key) -> None:
        """Take a number without gradient that was added up over the batch."""
        self.divisions.start(value, key)

    def number_out_of_sight(self, value: Tensor) -> None:
        """Take a number without gradient of which nothing shows what each sample has in it."""
        self.divisions.blur(value)

    def loss(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Take a loss function, and find the name it was called by."""
        named = self.names.find(func, caller_of(sys._getframe(1), func))
        before = len(self.recorder.terms)
        out = super().loss(func, args, kwargs)
        self.meet_loss(func, [*args, *kwargs.values()], out)
        if not named:
            self.unreachable += [term.key for term in self.recorder.terms[before:]]
        return out

    def fold(
        self, func: Any, where: Hashable, ending: Reduction, given: Tensor, out: Tensor, axes: Sequence[int]
    ) -> Tensor:
        """Take a mean or a sum over the samples that leaves another axis, and note the place."""
        self.sites[where] = func
        return super().fold(func, where, ending, given, out, axes)

    def follow(self, where: Key, pick: Pick, out: Any) -> None:
        """Note the place where rows of samples were picked, to find it again from what is made of them."""
        size, rows = self.recorder.batch_size, tensors_among([out])[0]
        if not isinstance(pick, IndexPick) and covers(pick.mask, size):
            self.divisions.count_rows(pick.n_rows, where[0])
        if isinstance(pick, IndexPick) and pick.is_flat and (rows.grad_fn is None or not self._holds_rows(rows)):
            return  # a table, say
        if not (picks_some(pick, size) or self.recorder.spec.picks_at(where)):
            return
        is_judged = any(map(self._judgements.holds, pick.decided_by))
        if rows.grad_fn is not None and (is_judged or (pick.is_by_array and self._judgements.have_left)):
            self.doubtful.add(where)
        self._rows.start(where, pick, rows, size)

    def _holds_rows(self, rows: Tensor) -> bool:
        """Tell if rows were made of the model's outputs, and of no table of parameters alone."""
        return bool(reached(rows.grad_fn, self.anchors) or reached(rows.grad_fn, self.foreign))

    def filters(self, rows: Tensor) -> set[Hashable]:
        """Return the places where samples were left out before the model saw them."""
        return self._rows.filtered_at(rows)

    def picked_at(self, rows: Tensor) -> Key | None:
        """Return where a mask has picked what rows were made of, the first of several times; None if none has."""
        places = {where for where in self._rows.picked_at(rows) if where[0] not in self.tables}
        masks = {id(self.recorder.picks[where].mask) for where in places}
        return min(places, key=repr) if len(masks) == 1 else None

    def reduction(self, func: Any, where: Hashable, args: tuple[Any, ...], kwargs: Any, out: Tensor) -> Tensor:
        """Take a mean or a sum to one number, and note the place."""
        self.sites[where] = func
        before = len(self.recorder.terms)
        out = super().reduction(func, where, args, kwargs, out)
        if is_compiled(sys._getframe(1)):
            self.unreachable += [term.key for term in self.recorder.terms[before:]]
        return out
