"""Follow what the model's outputs decide in a step, such as a mask of the hardest samples, to what it changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.probing.orders import COMPARING, is_one_of_many, ranks_rows, tensors_with_a_say
from lightning_dataselect.capture.recording.picks import tensors_among

_SELECTING = {"topk", "kthvalue", "median", "nanmedian", "quantile", "nanquantile"}


class Judgements:
    """Follow tensors without a gradient that were computed from the model's outputs to the tensors they changed.

    Example:
        >>> import torch
        >>> losses = torch.tensor([1.0, 3.0], requires_grad=True) * 1
        >>> hard = losses > 2
        >>> judgements = Judgements()
        >>> judgements.note("__gt__", (losses, 2), {}, [hard])
        >>> judgements.holds(hard), judgements.of([losses * hard], anchors=())
        (True, (False, False))
        >>> kept = losses * hard
        >>> judgements.note("mul", (losses, hard), {}, [kept])
        >>> judgements.of([kept], anchors=())
        (True, False)
    """

    def __init__(self) -> None:
        self._tensors: dict[int, Tensor] = {}  # holds them, so that no id is reused
        self._ranks: set[int] = set()  # those of them that depend on an order
        self._changed: set[Node] = set()  # the places of what they have changed
        self._changed_by_ranks: set[Node] = set()
        self._comparisons: set[int] = set()  # of one number with a bound
        self._many_have_left = False
        self.have_left = False
        """True if any number that was computed from the model's outputs has been taken out of torch."""
        self.limited: set[Node] = set()
        """The places of numbers that were chosen, of two, by such a comparison."""

    def note(self, name: str, args: tuple[Any, ...], kwargs: Any, outs: Sequence[Tensor]) -> None:
        """Follow one torch call, by its name, to its results."""
        inputs = tensors_with_a_say(name, tensors_among([*args, *kwargs.values()]))
        judgements = {id(tensor) for tensor in inputs} & self._tensors.keys()
        if not judgements and not any(tensor.requires_grad for tensor in inputs):
            return
        is_ranked = ranks_rows(name, args, kwargs) or bool(judgements & self._ranks)
        is_ranked |= self._many_have_left and name in COMPARING and any(map(_is_computed, args))
        is_ranked |= name in COMPARING and any(id(t) in judgements and is_one_of_many(t, inputs) for t in inputs)
        compares = name in COMPARING and all(tensor.numel() == 1 for tensor in inputs) and _with_bound(args, inputs)
        chooses = name == "where" and any(id(tensor) in self._comparisons for tensor in inputs)
        for out in outs:
            self._comparisons |= {id(out)} if compares else set()
            if chooses and out.numel() == 1 and out.grad_fn is not None:
                self.limited.add(out.grad_fn)
            if not out.requires_grad:
                self._tensors[id(out)] = out
                self._ranks |= {id(out)} if is_ranked else set()
            elif (judgements or (is_ranked and name in _SELECTING)) and out.grad_fn is not None:
                self._changed.add(out.grad_fn)
                self._changed_by_ranks |= {out.grad_fn} if is_ranked else set()

    def note_leaving(self, tensor: Tensor) -> None:
        """Note that something has been taken out of torch: a bound may be made of the outputs of all samples there."""
        is_of_outputs = tensor.requires_grad or self.holds(tensor)
        self.have_left |= is_of_outputs
        self._many_have_left |= tensor.numel() > 1 and is_of_outputs

    def holds(self, tensor: Tensor) -> bool:
        """Tell if the model's outputs have decided what is in a tensor without a gradient."""
        return id(tensor) in self._tensors

    def of(self, tensors: Sequence[Tensor], anchors: Collection[Node]) -> tuple[bool, bool]:
        """Tell if the model's outputs have decided on any of the tensors, and if it was by their order.

        Args:
            tensors: Inputs of a term.
            anchors: The places in the graph where parameters were applied. The search ends there: what decides within
                the model, as a router of experts does, picks no samples.
        """
        judgements = {id(tensor) for tensor in tensors} & self._tensors.keys()
        ends = self._changed.union(anchors)
        nodes = {node for tensor in tensors for node in reached(tensor.grad_fn, ends)}
        return (
            bool(judgements) or not nodes.isdisjoint(self._changed),
            bool(judgements & self._ranks) or not nodes.isdisjoint(self._changed_by_ranks),
        )


def _with_bound(args: Sequence[Any], inputs: Sequence[Tensor]) -> bool:
    """Tell if a comparison is one of a loss, and not of a count, such as that of the samples left, with 0."""
    numbers = [arg for arg in args if isinstance(arg, int | float)]
    is_of_loss = all(tensor.is_floating_point() for tensor in inputs) and 0 not in numbers
    return is_of_loss or any(tensor.requires_grad for tensor in inputs)


def _is_computed(bound: Any) -> bool:
    """Tell if a number is none that a user has written down.

    Example:
        >>> [_is_computed(bound) for bound in (0.5, 1e-8, 3, 0.70312345)]
        [False, False, False, True]
    """
    return isinstance(bound, float) and float(f"{bound:.4g}") != bound
