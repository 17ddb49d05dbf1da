"""Walk the autograd graph from a tensor to what it was computed from, and build graphs unnoticed."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils.checkpoint import checkpoint

from lightning_dataselect.utils.errors import CaptureError

Input: TypeAlias = Tensor | GradientEdge
Unknown: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Anchor:
    """An activation to tell samples apart by: where it is in the graph, and its shape."""

    edge: GradientEdge
    shape: torch.Size


def edge_of(tensor: Tensor) -> GradientEdge | None:
    """Return a tensor's place in the graph, which outlives writes to the tensor; None without gradient.

    Example:
        >>> loss = torch.ones(3, requires_grad=True).sum()
        >>> before = edge_of(loss)
        >>> loss *= 2
        >>> derivatives(loss, [before])
        [tensor(2.)]
    """
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def derivatives(of: Tensor, by: Sequence[Input], *, again: bool = False) -> list[Tensor | None]:
    """Return the derivative of a one-element tensor by others, None where it does not depend on them.

    The walk ends at ``by``: it reaches no parameter, and sets off no gradient hook of one.

    Args:
        of: What is differentiated.
        by: Tensors, or their places in the graph.
        again: True if the derivatives have a graph of their own.

    Raises:
        CaptureError: The graph is gone, as the step has back-propagated the tensor itself.
    """
    ones = torch.ones_like(of)
    inputs: Any = by  # torch takes a mixture of both, but its types do not say so
    try:
        return list(torch.autograd.grad(of, inputs, ones, retain_graph=True, create_graph=again, allow_unused=True))
    except RuntimeError as error:
        if "through the graph a second time" not in str(error):
            raise
        raise CaptureError(
            "The step has called loss.backward() itself, after which nothing shows what the loss was made of. With"
            " manual optimization, call self.manual_backward(loss) in place of loss.backward()."
        ) from error


def walk(start: Node | None, ends: Container[Node] = ()) -> Iterator[Node]:
    """Yield the nodes on the ways back from a node, itself included, but none beyond ``ends``.

    Example:
        >>> x = torch.ones(3, requires_grad=True)
        >>> product = 2 * x
        >>> [node.name() for node in walk(product.sum().grad_fn, {product.grad_fn})]
        ['SumBackward0', 'MulBackward0']
    """
    seen: set[Node] = set()
    todo = [start]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if node not in ends:
            todo += [before for before, _ in node.next_functions]


def reached(start: Node | None, ends: Container[Node]) -> set[Node]:
    """Return the nodes among ``ends`` that are met first on the ways back from a node, itself included.

    Example:
        >>> a = torch.ones(3, requires_grad=True) + 1
        >>> b = a * 2
        >>> reached(b.sum().grad_fn, {a.grad_fn, b.grad_fn}) == {b.grad_fn}
        True
    """
    return {node for node in walk(start, ends) if node in ends}


def leads_only_to(start: Node | None, ends: Container[Node]) -> bool:
    """Tell if all ways back from a node lead to ``ends``, and none to a parameter or another leaf.

    Example:
        >>> a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
        >>> end = a.sum()
        >>> leads_only_to((2 * end + 1).grad_fn, {end.grad_fn}), leads_only_to((end * b).grad_fn, {end.grad_fn})
        (True, False)
    """
    return all(node in ends or node.next_functions for node in walk(start, ends))


_MOST = 32  # nodes that are looked at: a new term is added near the end of the step


def unknown_reductions(start: Node | None, known: Container[Node]) -> tuple[str, ...]:
    """Return the reductions to one number that a loss is put together from, but for known ones.

    The graph is walked back through numbers, and vectors that are made of numbers, so it costs some microseconds. No
    value is looked at, and nothing waits for the device.

    Args:
        start: Where the loss is in the graph.
        known: The nodes of the terms that are known.

    Returns:
        The kinds of their nodes, sorted; those of parameters that are numbers are left out.

    Example:
        >>> import torch
        >>> x = torch.ones(3, requires_grad=True)
        >>> term = x.sum()
        >>> loss = 0.5 * term + torch.stack([x.norm(), x.mean()]).sum()
        >>> unknown_reductions(loss.grad_fn, {term.grad_fn})
        ('LinalgVectorNormBackward0', 'MeanBackward0')
    """
    met: list[str] = []
    seen: set[Node] = set()
    todo = deque([start])
    while todo and len(seen) < _MOST:
        node = todo.popleft()
        if node is None or node in seen or node in known:
            continue
        seen.add(node)
        made_of = [before for before, _ in node.next_functions if before is not None]
        grouped = [before for before in made_of if not _is_number(before)]
        if all(_is_of_numbers(vector) for vector in grouped):
            todo.extend(made_of)
        else:
            met.append(node.name())
    return tuple(sorted(met))


def adds(start: Node | None, number: Node) -> bool:
    """Tell if a number goes into a loss by numbers alone, and by nothing that has a row for each sample.

    Example:
        >>> losses = torch.ones(3, requires_grad=True)
        >>> mean = losses.mean()
        >>> adds((losses.sum() + 2 * mean).grad_fn, mean.grad_fn), adds((losses - mean).sum().grad_fn, mean.grad_fn)
        (True, False)
    """
    seen: set[Node] = set()
    todo = [start]
    while todo:
        node = todo.pop()
        if node is number:
            return True
        if node is not None and node not in seen and (_is_number(node) or _is_of_numbers(node)):
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
    return False


def _is_number(node: Node) -> bool:
    return all(len(result.shape) == 0 for result in node._input_metadata)


def _is_of_numbers(node: Node) -> bool:
    """Tell if a vector is stacked from numbers, or one number repeated."""
    made_of = [before for before, _ in node.next_functions if before is not None]
    return bool(made_of) and all(map(_is_number, made_of))


# Private, and newer than torch 2.7.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
_CHECKPOINTS = inspect.unwrap(checkpoint).__code__.co_filename


def saving_is_noted() -> bool:
    """Tell if someone, such as a checkpoint, takes note of every tensor that is saved for the backward pass."""
    if torch.compiler.is_dynamo_compiling():
        return False
    if _top_hooks is None:
        return within_checkpoint()
    hooks = _top_hooks(False)
    return hooks is not None and hooks[0] is not _number


def within_checkpoint() -> bool:
    """Tell the same by the stack, on which nobody but torch's own checkpoint is found."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _CHECKPOINTS:
        frame = frame.f_back
    return frame is not None


def saving_unnoticed() -> contextlib.AbstractContextManager[Any]:
    """Save tensors for the backward pass without anyone being told.

    Example:
        >>> x, runs = torch.zeros(2, requires_grad=True), []
        >>> def loss(x):
        ...     runs.append("forward" if not runs else "again")
        ...     if runs == ["forward"]:
        ...         with saving_unnoticed():
        ...             print(x.exp().tolist())
        ...     return x.sin().sum()
        >>> checkpoint(loss, x, use_reentrant=False).backward()
        [1.0, 1.0]
        >>> x.grad
        tensor([1., 1.])
    """
    if not saving_is_noted():
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, _as_it_is)


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


_FEW = 1024  # entries that are as good as a number


def saving_numbers_only() -> contextlib.AbstractContextManager[Any]:
    """Build graphs that hold no activations: they show what a loss was put together from, but give no gradient.

    Example:
        >>> x = torch.ones(3, 1000, requires_grad=True)
        >>> with saving_numbers_only():
        ...     mean = x.exp().mean()
        ...     loss = 2 * mean.square()
        >>> torch.autograd.grad(loss, mean)[0].item() == 4 * mean.item()
        True
    """
    return torch.autograd.graph.saved_tensors_hooks(_number, _as_it_is)


def _number(saved: Tensor) -> Tensor | None:
    return saved if saved.numel() <= _FEW else None
