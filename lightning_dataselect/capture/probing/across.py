"""Follow numbers that are made of a whole batch without the model, as a mean of its targets is, to what they change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.recording.picks import tensors_among

_ADDED_UP = {"sum", "nansum", "mean", "nanmean", "count_nonzero"}
_REDUCING = _ADDED_UP | {
    "std", "var", "median", "nanmedian", "quantile", "nanquantile", "max", "min", "amax", "amin", "norm", "logsumexp",
    "std_mean", "var_mean", "bincount", "histc",
}  # fmt: skip
_SHARING = {"softmax", "log_softmax"}
_RANKING = {"argsort", "cumsum", "cumprod", "logcumsumexp", *_SHARING}
_PICKING = {"__getitem__", "index_select", "gather", "take", "take_along_dim", "arange", "masked_select", "__setitem__"}
_DIVIDING = {"div", "div_", "divide", "true_divide", "__rdiv__", "reciprocal"}
_MULTIPLYING = {"mul", "mul_", "multiply"}
_COMBINING = {"sub", "sub_", "subtract", "rsub", "__rsub__", "add", "add_", "__radd__", "lerp", "dist", "cdist"}


class Across:
    """Tell what is compared with numbers of the whole batch, and what is shared out among its samples.

    What such numbers multiply are weights, which a sample's loss keeps as the whole batch has them.

    Args:
        size: The number of samples.

    Example:
        >>> import torch
        >>> across, y, out = Across(3), torch.tensor([1.0, 2.0, 6.0]), torch.ones(3, requires_grad=True) * 1
        >>> mean = y.mean()
        >>> across.note("mean", (y,), {}, mean)
        >>> centred = y - mean
        >>> across.note("sub", (y, mean), {}, centred)
        >>> error = out - centred
        >>> across.note("sub", (out, centred), {}, error)
        >>> across.compares([error.square()], [], ends=()), across.compares([y], [y], ends=())
        (True, False)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        # All hold the tensors, so that no id is reused.
        self._numbers: dict[int, Tensor] = {}  # of the whole batch
        self._totals: dict[int, Tensor] = {}  # those of them that were added up, by which weights are divided
        self._made: dict[int, Tensor] = {}  # has a row for each sample, and is computed from such a number
        self._shared: dict[int, Tensor] = {}
        self._compared_at: set[Node] = set()
        self._shared_at: set[Node] = set()

    def note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Take a torch call into account: its name, its arguments and its result."""
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if self._size < 2 or not inputs or name in _PICKING:
            return
        outs = tensors_among([out])
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        is_of_batch = inputs[0].shape[:1] == (self._size,)
        if is_of_batch and name in _RANKING and _is_first(dim, inputs[0].dim()):
            self._mark(outs, is_shared=name in _SHARING)
        elif is_of_batch and name in _REDUCING and _holds_first(dim, inputs[0].dim()):
            found = {id(one): one for one in outs if not one.requires_grad}
            self._numbers |= found
            self._totals |= found if name in _ADDED_UP else {}
        elif any(id(value) in known for value in inputs for known in (self._numbers, self._made, self._shared)):
            self._follow(name, inputs, outs)

    def _follow(self, name: str, inputs: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
        is_shared = any(id(value) in self._shared for value in inputs)
        is_made = any(id(value) in self._made for value in inputs)
        numbers = [value for value in inputs if id(value) in self._numbers]
        for out in outs:
            if out.grad_fn is not None:
                if is_shared:
                    self._shared_at.add(out.grad_fn)
                is_with_numbers = bool(numbers) and out.shape[:1] == (self._size,)
                is_target = any(id(value) in self._made and value.numel() > self._size for value in inputs)
                if (is_made or is_with_numbers) and name in _COMBINING:
                    self._compared_at.add(out.grad_fn)
                elif is_target and name in _MULTIPLYING:  # a number of each class is no weight of a sample
                    self._compared_at.add(out.grad_fn)
            elif out.shape[:1] != (self._size,):
                self._numbers[id(out)] = out
                if name not in _COMBINING and all(id(number) in self._totals for number in numbers):
                    self._totals[id(out)] = out
            elif is_shared or is_made:
                self._mark([out], is_shared=is_shared)
            elif not (name in _DIVIDING and all(id(number) in self._totals for number in numbers)):
                self._made[id(out)] = out

    def _mark(self, outs: Iterable[Tensor], *, is_shared: bool) -> None:
        for out in outs:
            if out.grad_fn is not None:
                self._shared_at |= {out.grad_fn} if is_shared else set()
            elif is_shared:
                self._shared[id(out)] = out
            else:
                self._made[id(out)] = out

    def compares(self, made: Iterable[Any], given: Iterable[Any], ends: Collection[Node]) -> bool:
        """Tell if losses compare outputs with what is made of the whole batch.

        Args:
            made: The losses, or what a loss function was given, with their graph.
            given: What a loss function compares.
            ends: The activations; what is before them is the model's own affair.
        """
        stops = self._compared_at | set(ends)
        nodes = {node for tensor in made if isinstance(tensor, Tensor) for node in reached(tensor.grad_fn, stops)}
        return any(id(value) in self._made for value in given) or not nodes.isdisjoint(self._compared_at)

    def shares(self, made: Iterable[Any], ends: Collection[Node]) -> bool:
        """Tell if what losses are multiplied by was shared out among the samples (arguments as of `compares`)."""
        stops = self._shared_at | set(ends)
        nodes = {node for tensor in made if isinstance(tensor, Tensor) for node in reached(tensor.grad_fn, stops)}
        return not nodes.isdisjoint(self._shared_at)


def _is_first(dim: Any, n_dims: int) -> bool:
    return n_dims == 1 if not isinstance(dim, int) else dim % n_dims == 0


def _holds_first(dim: Any, n_dims: int) -> bool:
    if dim is None or isinstance(dim, (Tensor, float, str)):
        return True
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    return not dims or any(isinstance(axis, int) and axis % n_dims == 0 for axis in dims)
