"""What a tensor was made from: walks along its autograd graph."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

Input: TypeAlias = Tensor | GradientEdge


def edge_of(tensor: Tensor) -> GradientEdge | None:
    """Where a tensor is in the graph; it stays there if the tensor is written to afterwards. None: without gradient.

    Example:
        >>> loss = torch.ones(3, requires_grad=True).sum()
        >>> before = edge_of(loss)
        >>> loss *= 2
        >>> derivatives(loss, [before])
        [tensor(2.)]
    """
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def derivatives(of: Tensor, by: Sequence[Input], *, again: bool = False) -> list[Tensor | None]:
    """The derivative of a one-element tensor by others, None where it does not depend on them.

    The walk ends at ``by``: it reaches no parameter, and sets off no gradient hook of one.

    Args:
        of: what is differentiated.
        by: tensors, or their places in the graph.
        again: whether the derivatives have a graph of their own.
    """
    ones = torch.ones_like(of)
    inputs: Any = by  # torch takes a mixture of both, but its types do not say so
    return list(torch.autograd.grad(of, inputs, ones, retain_graph=True, create_graph=again, allow_unused=True))


def reached(start: Node | None, ends: Container[Node]) -> set[Node]:
    """The nodes among ``ends`` that are met first on the ways back from a node, itself included.

    Example:
        >>> a = torch.ones(3, requires_grad=True) + 1
        >>> b = a * 2
        >>> reached(b.sum().grad_fn, {a.grad_fn, b.grad_fn}) == {b.grad_fn}
        True
    """
    met: set[Node] = set()
    seen: set[Node] = set()
    todo = [start]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in ends:
            met.add(node)
        else:
            todo += [before for before, _ in node.next_functions]
    return met


def leads_only_to(start: Node | None, ends: Container[Node]) -> bool:
    """Whether all ways back from a node lead to ``ends``, and none to a parameter or another leaf.

    Example:
        >>> a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
        >>> end = a.sum()
        >>> leads_only_to((2 * end + 1).grad_fn, {end.grad_fn}), leads_only_to((end * b).grad_fn, {end.grad_fn})
        (True, False)
    """
    seen: set[Node] = set()
    todo = [start]
    while todo:
        node = todo.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        if not node.next_functions:
            return False
        todo += [before for before, _ in node.next_functions]
    return True
