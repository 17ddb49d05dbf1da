"""Notice steps that give their loss functions something else than before: other outputs, or targets of another make.

A loss of the same shape, from the same call, may be that of other rows all the same: sorted, drawn anew, compared with
the rest of the batch. Where that is done to the model's outputs, their autograd graph shows it. Where it is done to the
samples before the model sees them, their targets are not those of the batch any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor
from torch.autograd.graph import Node

Make: TypeAlias = tuple[Hashable, Hashable]  # the graph, and where the targets are; None for what a step does not show

_DEPTH = 6  # of calls that are held against what they were made from: rows are put into another order so near the loss
_MOST_NODES = 512
_MOST_STRIDES = 64
_MOST_ALARMS = 8  # kinds of steps that were looked at for nothing, as where layers are left out at random
_MOST_TRIES = 3  # to meet one of them in a step that is looked at, which compiled code is not

_NOWHERE: tuple[Any, ...] = ()

# What leaves all entries in their order, and copies them or not, as the memory happens to lie.
_LAYING_OUT = {
    f"{name}Backward{n}"
    for name in (
        "Alias", "Clone", "Expand", "Permute", "ReshapeAlias", "Slice", "Split", "Squeeze", "T", "ToCopy", "Transpose",
        "Unsqueeze", "UnsafeView", "View",
    )
    for n in range(3)
}  # fmt: skip


class Lineage:
    """Know what the losses of a step are computed from, and notice a step in which that is something else.

    Most steps are told by two things that cost next to nothing: between the same place in two of them as many nodes
    have joined the autograd graph as ever, and the targets are the very tensor of the batch that they used to be. Only
    where that is not so the graph is walked. No value is looked at, and nothing waits for the device.

    Example:
        >>> import torch
        >>> lineage, batch = Lineage(), [torch.ones(3), torch.zeros(3)]
        >>> out = 2 * batch[0].requires_grad_()
        >>> _ = lineage.learn([out.grad_fn], batch[1], batch, is_sound=True)
        >>> lineage.knows([out.grad_fn], batch[1], batch)
        True
        >>> lineage.knows([out.grad_fn], batch[1].flip(0), batch), lineage.knows([out.flip(0).grad_fn], batch[1], batch)
        (False, False)
    """

    def __init__(self) -> None:
        self._graphs: set[Hashable] = {None}
        self._places: set[Hashable] = {None}
        self._unsound: set[Make] = set()
        self._usual = _NOWHERE  # the way to the targets in the batch
        self._strides: set[int] = set()
        self._turn = 0
        self._has_met = False  # whether a step was met that was not looked at: compiled code takes another way there
        self._alarms: dict[Make, int] = {}

    def knows(self, nodes: Sequence[Node], targets: Tensor | None, batch: Any) -> bool:
        """Tell if all of it was met before, in a step that was read soundly.

        Args:
            nodes: Where in the graph the terms of a loss were made from; none in a pass without gradients.
            targets: What the model's outputs are compared with; None where that is not known.
            batch: What holds the tensors of the batch; empty where that is not known.
        """
        stride, is_usual = 0, not self._unsound
        if nodes:
            turn = nodes[-1]._sequence_nr()
            stride, self._turn = turn - self._turn, turn
            is_usual = is_usual and stride in self._strides
        if is_usual and (targets is None or not self._usual or _is_at(self._usual, targets, batch)):
            return True
        make = self._make_of(nodes, targets, batch)
        if make in self._unsound:
            return False
        graph, place = make
        if nodes and not self._has_met:
            self._has_met = True
            self._graphs.add(graph)
        if graph in self._graphs and place in self._places:
            if nodes:
                self._keep_stride(stride)
            return True
        if len(self._alarms) >= _MOST_ALARMS or self._alarms.get(make, 0) >= _MOST_TRIES:
            return True
        self._alarms[make] = self._alarms.get(make, 0) + 1
        return False

    def is_unsound(self, nodes: Sequence[Node], targets: Tensor | None, batch: Any) -> bool:
        """Tell if no losses of samples were found where a step was made of the same (see `knows`)."""
        return bool(self._unsound) and self._make_of(nodes, targets, batch) in self._unsound

    def n_probes(self) -> int:
        """Return how many steps to probe in order to meet one like the unknown step.

        Several kinds of step may alternate: if two probes did not meet it, more are needed.
        """
        return int(2 ** max([1, *self._alarms.values()]))

    def learn(self, nodes: Sequence[Node], targets: Tensor | None, batch: Any, *, is_sound: bool) -> bool:
        """Take note of what a step that was looked at in full has made its loss of.

        Args:
            nodes: See `knows`.
            targets: See `knows`.
            batch: See `knows`.
            is_sound: False if no losses of samples were found in it.

        Returns:
            False if none were found, and steps like it have been read all the same.
        """
        graph, place = make = self._make_of(nodes, targets, batch)
        if not is_sound:
            self._unsound.add(make)
            return self._alarms.pop(make, None) is None
        self._unsound.discard(make)
        self._graphs.add(graph)
        self._places.add(place)
        if isinstance(place, tuple):
            self._usual = self._usual or place
        if make in self._alarms:
            self._alarms[make] = 0
        return True

    def _keep_stride(self, stride: int) -> None:
        if len(self._strides) == _MOST_STRIDES:
            self._strides.clear()
        self._strides.add(stride)

    def _make_of(self, nodes: Sequence[Node], targets: Tensor | None, batch: Any) -> Make:
        graph = _names(nodes) if nodes else None
        return graph, None if targets is None else next(_ways_to(targets, batch), _NOWHERE)


def _names(nodes: Sequence[Node]) -> frozenset[tuple[str, str]]:
    """Return which calls the nodes nearest to the loss were, each with one that it was made from; not how often.

    Further back, where layers may be left out at random, only the calls themselves.
    """
    names, seen = set[tuple[str, str]](), set[tuple[str, Node]]()
    level = [("", node) for node in nodes]
    for _ in range(_DEPTH):
        later = []
        for after, node in level:
            if (after, node) in seen or len(seen) == _MOST_NODES:
                continue
            seen.add((after, node))
            before = [made_from for made_from, _ in node.next_functions if made_from is not None]
            name = node.name()
            if name in _LAYING_OUT:
                level += [(after, made_from) for made_from in before]
            elif before:  # and no parameter
                names.add((after, name))
                later += [(name, made_from) for made_from in before]
        level = later
    behind = {node for _, node in seen}
    todo = deque(node for _, node in level)
    while todo and len(behind) < _MOST_NODES:
        node = todo.popleft()
        before = [made_from for made_from, _ in node.next_functions if made_from is not None]
        if node in behind or not before:
            continue
        behind.add(node)
        todo += before
        if node.name() not in _LAYING_OUT:
            names.add(("", node.name()))
    return frozenset(names)


def _ways_to(targets: Tensor, batch: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the indices and keys that lead to the memory of targets in a batch."""
    if isinstance(batch, Tensor):
        if _shares(batch, targets):
            yield _NOWHERE
    elif isinstance(batch, Mapping):
        yield from ((key, *way) for key, part in batch.items() for way in _ways_to(targets, part))
    elif isinstance(batch, list | tuple):
        yield from ((i, *way) for i, part in enumerate(batch) for way in _ways_to(targets, part))


def _is_at(way: tuple[Any, ...], targets: Tensor, batch: Any) -> bool:
    try:
        for step in way:
            batch = batch[step]
    except (LookupError, TypeError):
        return False
    return batch is targets or (isinstance(batch, Tensor) and _shares(batch, targets))


def _shares(a: Tensor, b: Tensor) -> bool:
    """Tell if one of two tensors is the other, or a view of it, or both are views of one."""
    if a is b:
        return True
    of_a, of_b = (a if a._base is None else a._base), (b if b._base is None else b._base)
    return of_a is of_b
