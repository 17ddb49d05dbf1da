"""Watch every torch call of a step to find what makes its loss."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from lightning_dataselect.capture.divisions import Divisions
from lightning_dataselect.capture.graph import Anchor, reached
from lightning_dataselect.capture.interception import Interceptors, Observer, Recorder, site
from lightning_dataselect.capture.origin import Origin, Origins
from lightning_dataselect.capture.picks import IndexPick, Pick, Picks, covers
from lightning_dataselect.capture.reductions import ENDINGS, FOLDING, Key, ends, folds_samples


def compiler_in_use() -> bool:
    """Tell if some code may be compiled; to import the compiler for nothing takes seconds."""
    return "torch._dynamo" in sys.modules


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Let no compiled code run: a mode cannot look into it."""
    return torch.compiler.set_stance("force_eager") if compiler_in_use() else contextlib.nullcontext()


_DIFFERENTIATING = {torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward}


_SORTING = {"sort", "argsort", "msort", "topk"}


# The argument that says along which axis a call ranks, and what that is without it; None: all entries.
_RANKING: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("sort", "argsort"), (1, -1)),
    **dict.fromkeys(("topk", "kthvalue"), (2, -1)),
    **dict.fromkeys(("median", "nanmedian"), (1, None)),
    **dict.fromkeys(("quantile", "nanquantile"), (2, None)),
    "msort": (1, 0),
}


_COMPARING = {
    name for of in ("ge", "gt", "le", "lt") for name in (of, f"__{of}__", f"{of}_")
} | {"greater_equal", "greater", "less_equal", "less"}  # fmt: skip


def _order_of_rows(name: str, args: tuple[Any, ...], batch_size: int) -> Any:
    """Return by what index or mask a call takes rows out of a tensor with one for each sample; None if it does not."""
    if name == "__getitem__":
        index = args[1]
        if isinstance(index, tuple) and index and all(isinstance(part, slice) for part in index[1:]):
            index = index[0]
    elif name == "index_select" and len(args) == 3 and args[1] == 0:
        index = args[2]
    else:
        return None
    if not isinstance(args[0], Tensor) or args[0].shape[:1] != (batch_size,) or batch_size == 1:
        return None
    if not isinstance(index, Tensor | np.ndarray | list):
        return None
    try:
        index = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):  # a list of slices, say
        return None
    is_index = index.dim() == 1 and not index.is_floating_point()
    return index if is_index and (index.dtype != torch.bool or len(index) == batch_size) else None


def _moves(index: Tensor) -> bool:
    """Tell if rows that an index or a mask takes are not the first ones, in their order.

    Example:
        >>> [_moves(torch.tensor(index)) for index in ([0, 1, 2], [1, 0], [True, False], [False, True])]
        [False, True, False, True]
    """
    taken = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
    return bool((taken != torch.arange(len(taken), device=taken.device)).any())


_RESHAPING = {"reshape", "view", "flatten"}


_LAYING = {"cat", "concat", "concatenate", "vstack", "stack", "repeat", "tile"}


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(_tensors(value))
    return found


def _ranks_rows(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell if a call ranks what lies along the first axis, as the losses of samples and unlike a sample's logits.

    Example:
        >>> logits = torch.ones(4, 3)
        >>> _ranks_rows("topk", (logits, 2), {}), _ranks_rows("topk", (logits, 2), {"dim": 0})
        (False, True)
        >>> _ranks_rows("argsort", (logits[:, 0],), {}), _ranks_rows("quantile", (logits, 0.5), {})
        (True, True)
    """
    if name not in _RANKING:
        return False
    place, default = _RANKING[name]
    dim = kwargs.get("dim", args[place] if len(args) > place else default)
    given = args[0] if args else kwargs["input"]
    return given.dim() < 2 or not isinstance(dim, int) or dim % given.dim() == 0


def _is_one_of_many(number: Tensor, inputs: Iterable[Tensor]) -> bool:
    """Tell if many values are compared with one, as losses with their mean."""
    return number.numel() == 1 and any(tensor.numel() > 1 for tensor in inputs)


def _picks(name: str, args: tuple[Any, ...], out: Tensor, batch_size: int) -> bool:
    """Tell if a call picks rows out of a tensor, as many as there happen to be."""
    if name == "masked_select":
        return True
    if name in ("index_select", "take", "take_along_dim"):
        return out.dim() > 0 and len(out) != batch_size
    index = _tensors([args[1]]) if name == "__getitem__" and out.dim() > 0 else []
    return any(
        covers(part, batch_size) if part.dtype == torch.bool else part.dim() == 1 and len(out) != batch_size
        for part in index
    )


def _caller(frame: FrameType | None, func: Any) -> FrameType:
    """Return the frame that has called a function of torch's which is written in Python, or which is not."""
    own = getattr(func, "__code__", None)
    while frame is not None and (frame.f_globals.get("__name__") == "torch.overrides" or frame.f_code is own):
        frame = frame.f_back
    assert frame is not None
    return frame


_SETITEM = torch._C.TensorBase.__setitem__


class Watch(TorchFunctionMode):
    """Hand every loss function and every mean or sum of a step to the recorder.

    Costs some microseconds for each torch call, so it stays only where no patch sees the call.
    """

    def __init__(self, recorder: Recorder, interceptors: Interceptors) -> None:
        super().__init__()
        self.recorder = recorder
        self._known = interceptors.known
        self._picks = Picks(recorder.batch_size)

    def __enter__(self) -> Watch:
        """Begin a step."""
        self._picks = Picks(self.recorder.batch_size)
        super().__enter__()
        return self

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call the function, or what stands for it."""
        kwargs = kwargs or {}
        if not self.recorder.listens():
            return func(*args, **kwargs)
        if func in self._known:  # by its interceptor, where it names itself while that is installed
            return self.loss(self._known[func][1], args, kwargs)
        out = func(*args, **kwargs)
        if func in ENDINGS and ends(args, kwargs, out):
            where = None if torch.compiler.is_dynamo_compiling() else site(_caller(sys._getframe(1), func), func)
            out = self.reduction(func, where, args, kwargs, out)
        elif torch.compiler.is_dynamo_compiling():
            pass  # compiled code has no place to know what follows by
        elif func in FOLDING and folds_samples(args, kwargs, out, self.recorder.batch_size):
            self.fold(func, site(sys._getframe(1), func), args, out)
        elif (pick := self._picks.find(func, args, kwargs, out)) is not None:
            self.follow(self.recorder.pick(site(sys._getframe(1), func), pick), pick, out)
        self.note(func, args, kwargs, out)
        return out

    def loss(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Take a loss function that no patch has seen."""
        return self.recorder.loss(self._known[func][0], func, args, kwargs)

    def reduction(self, func: Any, where: Hashable, args: tuple[Any, ...], kwargs: Any, out: Tensor) -> Tensor:
        """Take a mean or a sum to one number."""
        ending = ENDINGS[func]
        given = ending.given(args, kwargs)
        if args and given is not args[0]:  # a dot product's: the step might as well have multiplied and summed
            self.note(torch.mul, tuple(_tensors([*args, *kwargs.values()])), {}, given)
        return self.recorder.reduction(where, ending, given, out)

    def fold(self, func: Any, where: Hashable, args: tuple[Any, ...], out: Tensor) -> None:
        """Take a mean or a sum over the samples that leaves another axis."""
        self.recorder.fold(where, ENDINGS[func], args[0], out)

    def follow(self, where: Key, pick: Pick, out: Any) -> None:
        """Take what an index, or a mask, has picked."""

    def note(self, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
        """Take any other result."""


class Probe(Watch, Observer):
    """Watch a step, and find out how to do without a `Watch`.

    Attributes:
        names: The namespaces and names by which unseen loss functions were called.
        sites: Place -> the mean or sum that was called there.
        anchors: The results of calls that had parameters, or normalised the batch, by their places in the graph.
        foreign: Likewise the results of code that no mode looks into, as of a scripted module.
        divisions: What the step divides its losses by.
        picked: How many rows were picked out of a tensor by a mask or an index, by the places of the results.
        doubtful: The places where the mask was made of the model's outputs, maybe of all samples'.
        has_equal_axes: True if another axis has as many entries as there are samples, and nothing tells them apart.
        sorts: True if something was sorted, or rows of the samples were taken by an index or a mask.
        reorders: True if that was in another order before.
        differentiates: True if the step takes derivatives of its own.
        origins: Knows what was made from which samples; None where all of a batch are measured.
        views: How many parts were laid one after the other, each a batch.
        unreachable: The terms that only a mode sees: loss functions by no name that can be patched,
            means and sums in compiled code (where a mode costs nothing).
    """

    def __init__(self, recorder: Recorder, interceptors: Interceptors, module: nn.Module | None) -> None:
        super().__init__(recorder, interceptors)
        self.names: list[tuple[dict[str, Any], str]] = []
        self.sites: dict[Hashable, Any] = {}
        self.unreachable: list[Key] = []
        self.anchors: dict[Node, list[Anchor]] = {}  # a node may have several results
        self.foreign: dict[Node, list[Anchor]] = {}
        self._made: set[Node] = set()  # the places of all results
        self.divisions = Divisions()
        self.picked: dict[Node, int] = {}
        self.doubtful: set[Hashable] = set()
        self.has_equal_axes = False
        self._picked_at: dict[Node, Key] = {}
        self._picked_data: dict[int, tuple[Tensor, Key]] = {}  # likewise of what has no graph
        self._filtered: dict[int, tuple[Tensor, Hashable]] = {}  # data without the samples that a mask leaves out
        self._filtered_at: dict[Node, Hashable] = {}  # what was made of it with a graph
        self._judgements: dict[int, Tensor] = {}  # what the model's outputs decide, as masks and ranks
        self._ranks: set[int] = set()  # those of them that came of an order
        self._judged: set[Node] = set()  # the places of what they have changed
        self._ranked: set[Node] = set()
        self._module = module
        self._from_parameters: dict[int, Tensor] = {}  # holds them, so that no id comes twice
        self._leading: set[tuple[int, int]] = set()  # the first two sizes of every tensor of data
        self.views: set[int] = set()
        self.sorts = self.reorders = self.differentiates = False
        self.origins: Origins | None = None

    def note(self, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
        """Follow what is made of parameters alone, and what the samples lie along."""
        self.differentiates |= func in _DIFFERENTIATING
        self.came_of(func, [*args, *kwargs.values()], out)
        inputs, size = _tensors([*args, *kwargs.values()]), self.recorder.batch_size
        made = [isinstance(t, nn.Parameter) or id(t) in self._from_parameters for t in inputs]
        if made and all(made):
            self._from_parameters.update((id(t), t) for t in _tensors([out]))
            return
        data = [t for t, from_parameters in zip(inputs, made, strict=True) if not from_parameters]
        for tensor in data:
            if tensor.grad_fn is not None and tensor.grad_fn not in self._made and tensor.dim() > 0:
                self.foreign[tensor.grad_fn] = [Anchor(get_gradient_edge(tensor), tensor.shape)]
        self._made.update(t.grad_fn for t in _tensors([out]) if t.grad_fn is not None)
        for tensor in _tensors([*data, out]):
            if tensor.dim() > 1:
                self._leading.add((tensor.shape[0], tensor.shape[1]))
        if func.__name__ in _RESHAPING and data and data[0].shape[:1] == (size,):
            self._leading.add((size, out.shape[:1].numel() // size))
        if func.__name__ in _SORTING:
            self.sorts = True
            order = _tensors([out])[-1:]
            self.reorders |= any(bool((o.diff(dim=-1) < 0).any()) for o in order if o.dim() > 0)
        elif (taken := _order_of_rows(func.__name__, args, size)) is not None:
            self.sorts = True
            self.reorders |= _moves(taken)
        self._judge(func.__name__, args, kwargs, _tensors([args[0] if func is _SETITEM else out]))
        for where in {self._filtered[id(t)][1] for t in inputs if id(t) in self._filtered}:
            for tensor in _tensors([out]):
                if tensor.grad_fn is None:
                    self._filtered.setdefault(id(tensor), (tensor, where))
                else:
                    self._filtered_at[tensor.grad_fn] = where
        for picked, where in [self._picked_data[id(t)] for t in inputs if id(t) in self._picked_data]:
            for tensor in _tensors([out]):
                if tensor.shape[:1] != picked.shape[:1]:
                    continue
                if tensor.grad_fn is None:
                    self._picked_data.setdefault(id(tensor), (tensor, where))
                else:
                    self._picked_at.setdefault(tensor.grad_fn, where)
        self.divisions.note(func.__name__, [*args, *kwargs.values()], out)
        if isinstance(out, Tensor) and out.grad_fn is not None and _picks(func.__name__, args, out, size):
            self.picked[out.grad_fn] = out.shape[0]
        for tensor in _tensors([out]):
            anchor = any(made) or func.__name__ == "batch_norm"  # which mixes, with or without parameters
            if anchor and tensor.dim() > 0 and tensor.grad_fn is not None:
                self.anchors.setdefault(tensor.grad_fn, []).append(Anchor(get_gradient_edge(tensor), tensor.shape))
            if func.__name__ in _LAYING and any(t.shape[:1] == (size,) for t in data):
                rows = tensor.shape[0] * (tensor.shape[1] if func is torch.stack else 1)
                self.views.add(rows // size)

    def _judge(self, name: str, args: tuple[Any, ...], kwargs: Any, outs: Sequence[Tensor]) -> None:
        """Follow what the model's outputs decide, to what it changes."""
        inputs = _tensors([*args, *kwargs.values()])
        judgements = {id(tensor) for tensor in inputs} & self._judgements.keys()
        if not judgements and not any(tensor.requires_grad for tensor in inputs):
            return
        is_ranked = _ranks_rows(name, args, kwargs) or bool(judgements & self._ranks)
        is_ranked |= name in _COMPARING and any(id(t) in judgements and _is_one_of_many(t, inputs) for t in inputs)
        for out in outs:
            if not out.requires_grad:
                self._judgements[id(out)] = out
                self._ranks |= {id(out)} if is_ranked else set()
            elif judgements and out.grad_fn is not None:
                self._judged.add(out.grad_fn)
                self._ranked |= {out.grad_fn} if is_ranked else set()

    def judged(self, values: Iterable[Any]) -> tuple[bool, bool]:
        """Tell if the model's outputs have decided on tensors among the values, and if it was by their order."""
        tensors = _tensors(values)
        judgements = {id(tensor) for tensor in tensors} & self._judgements.keys()
        # what decides within the model, as a router of experts does, picks no samples
        ends = self._judged | self.anchors.keys()
        nodes = {node for tensor in tensors for node in reached(tensor.grad_fn, ends)}
        return (
            bool(judgements) or not nodes.isdisjoint(self._judged),
            bool(judgements & self._ranks) or not nodes.isdisjoint(self._ranked),
        )

    def came_of(self, func: Any, values: Iterable[Any], out: Any) -> None:
        """Follow what comes from which samples, where a batch has others than those that are measured."""
        if self.origins is not None:
            self.origins.follow(func, _tensors(values), _tensors([out]))

    def origin(self, values: Iterable[Any]) -> Origin | None:
        """Return what tensors among the values were made from; None where all samples of a batch are measured."""
        return None if self.origins is None else self.origins.of(_tensors(values))

    def has_seen(self, *sizes: int) -> bool:
        """Tell if there was a tensor of data with these two leading sizes."""
        return sizes in self._leading

    def from_parameters(self, values: Iterable[Any]) -> bool:
        """Tell if every tensor among the values was made of parameters alone."""
        tensors = _tensors(values)
        return bool(tensors) and all(isinstance(t, nn.Parameter) or id(t) in self._from_parameters for t in tensors)

    def strided(self, shape: torch.Size, batch_size: int) -> bool:
        """Tell if rows of this shape lie ``batch_size`` apart for one sample.

        So they do where there were tensors of (k, batch_size, ...) and none of
        (batch_size, k, ...), as with time-major tokens, and where k batches were concatenated.
        """
        if not shape or shape[0] % batch_size or shape[0] == batch_size:
            return False
        k = shape[0] // batch_size
        time_major = (k, batch_size) in self._leading and (batch_size, k) not in self._leading
        return time_major or k in self.views

    def meet_equal_axes(self) -> None:
        """Take note that another axis of something has as many entries as there are samples."""
        self.has_equal_axes = True

    def number(self, value: Tensor, key: Key) -> None:
        """Take a number without gradient that was added up over the batch."""
        self.divisions.start(value, key)

    def loss(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Take a loss function, and find the name it was called by."""
        caller: FrameType | None = sys._getframe(1)
        while caller is not None and (
            caller.f_globals.get("__name__") in (__name__, "torch.overrides") or caller.f_code is func.__code__
        ):
            caller = caller.f_back
        named = caller is not None and self._find(func, caller)
        before = len(self.recorder.terms)
        out = super().loss(func, args, kwargs)
        if out.grad_fn is not None:
            self._made.add(out.grad_fn)
        self.came_of(func, [*args, *kwargs.values()], out)
        if not named:
            self.unreachable += [term.key for term in self.recorder.terms[before:]]
        return out

    def fold(self, func: Any, where: Hashable, args: tuple[Any, ...], out: Tensor) -> None:
        """Take a mean or a sum over the samples that leaves another axis, and note the place."""
        self.sites[where] = func
        super().fold(func, where, args, out)

    def follow(self, where: Key, pick: Pick, out: Any) -> None:
        """Note the place where rows of samples were picked, to find it again from what is made of them."""
        size, rows = self.recorder.batch_size, _tensors([out])[0]
        by_numbers = isinstance(pick, IndexPick)
        if by_numbers and pick.n_rows == size and not _moves(pick.mask.sort().values):
            return  # one row of each sample, in some order
        if not (by_numbers or covers(pick.mask, size)):
            return
        if pick.mask.shape in ((size, 1), (size, size)) and bool(pick.mask.all()):
            return  # as many of each: no pieces, but rows or steps that were laid one after the other
        if rows.grad_fn is not None:
            self._picked_at[rows.grad_fn] = where
            self.doubtful |= {where} if any(id(part) in self._judgements for part in pick.decided_by) else set()
        elif not by_numbers and pick.mask.shape == (size,):
            self._filtered[id(rows)] = rows, where
        else:
            self._picked_data[id(rows)] = rows, where

    def filters(self, rows: Tensor) -> set[Hashable]:
        """Return the places where samples were left out of what a model then made of them."""
        return {self._filtered_at[node] for node in reached(rows.grad_fn, self._filtered_at)}

    def picked_at(self, rows: Tensor) -> Key | None:
        """Return where a mask has picked what rows were made of; None if none has."""
        places = {self._picked_at[node] for node in reached(rows.grad_fn, self._picked_at)}
        return places.pop() if len(places) == 1 else None

    def _find(self, func: Any, caller: FrameType) -> bool:
        spaces = [caller.f_globals]
        if self._module is not None:
            spaces += [vars(module) for module in self._module.modules()]
        found = [(space, name) for space in spaces for name in caller.f_code.co_names if space.get(name) is func]
        self.names += [pair for pair in found if not any(_same(pair, old) for old in self.names)]
        return bool(found)

    def reduction(self, func: Any, where: Hashable, args: tuple[Any, ...], kwargs: Any, out: Tensor) -> Tensor:
        """Take a mean or a sum to one number, and note the place."""
        self.sites[where] = func
        before = len(self.recorder.terms)
        out = super().reduction(func, where, args, kwargs, out)
        if compiler_in_use() and _compiled(sys._getframe(1)):
            self.unreachable += [term.key for term in self.recorder.terms[before:]]
        return out


def _compiled(frame: FrameType | None) -> bool:
    """Tell if a frame belongs to code that is compiled, but for a probe."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch._dynamo.eval_frame":
            return True
        frame = frame.f_back
    return False


def _same(a: tuple[dict[str, Any], str], b: tuple[dict[str, Any], str]) -> bool:
    return a[0] is b[0] and a[1] == b[1]
