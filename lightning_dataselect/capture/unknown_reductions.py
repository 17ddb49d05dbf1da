"""What a loss is put together from besides the terms that are known: the sign that it has got another one."""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from torch.autograd.graph import Node

_MOST = 32  # nodes that are looked at: a new term is added near the end of the step


def unknown_reductions(start: Node | None, known: Container[Node]) -> tuple[str, ...]:
    """The reductions to one number that a loss is put together from, but for known ones.

    The graph is walked back through numbers, and vectors that are made of numbers, so it costs some microseconds. No
    value is looked at, and nothing waits for the device.

    Args:
        start: where the loss is in the graph.
        known: the nodes of the terms that are known.

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


def _is_number(node: Node) -> bool:
    return all(len(result.shape) == 0 for result in node._input_metadata)


def _is_of_numbers(node: Node) -> bool:
    """Whether a vector is stacked from numbers, or one number repeated."""
    made_of = [before for before, _ in node.next_functions if before is not None]
    return bool(made_of) and all(map(_is_number, made_of))
