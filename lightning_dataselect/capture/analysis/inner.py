"""Tell which means and sums only serve to compute the rows of others, which may be divided by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.graph import adds, derivatives, reached
from lightning_dataselect.capture.loss.reductions import foldable
from lightning_dataselect.capture.loss.terms import Parts, Term
from lightning_dataselect.capture.probing.probe import Probe

_SAME = 1e-3  # of a number and what it would be, but for rounding


def is_inner(term: Term, loss: Tensor, parts: Parts) -> bool:
    """Tell if a mean or a sum only serves to compute the rows of another one.

    Args:
        term: One that the loss depends on.
        loss: The step's loss.
        parts: All of these.
    """
    others = [other for other, _ in parts if other is not term and other.by_hand]
    if not (term.by_hand and any(reached(other.elements.grad_fn, {term.node}) for other in others)):
        return False
    return not adds(loss.grad_fn, term.node)


def is_divided_by(term: Term, number: Term, probe: Probe) -> bool:
    """Tell if rows are nothing but divided by a number that is made of all of them and has a gradient.

    Args:
        term: One that the loss is made of, with its graph.
        number: A mean or a sum, likewise.
        probe: Has watched the step.
    """
    stops = {number.node, *probe.anchors}
    edges = [division.edge.node for division in probe.divisions.made if division.by == number.key]
    if number.key not in probe.recorder.counts or not reached(term.elements.grad_fn, {*edges, *stops} - {term.node}):
        return False
    rows, value = term.elements.flatten(), number.value.detach()
    for weights in (torch.ones_like(rows), torch.linspace(0.5, 2, len(rows), dtype=rows.dtype, device=rows.device)):
        total = (rows * weights).sum()
        slope = derivatives(total, [number.value])[0]
        if slope is None or bool((slope * value + total).abs() > _SAME * (rows.detach() * weights).abs().sum()):
            return False
    return True


def is_share_of(term: Term, number: Term, probe: Probe) -> bool:
    """Tell if rows are divided by their own mean or sum, so that each of them alone comes to a constant.

    Args:
        term: One that the loss is made of, with its graph.
        number: A mean or a sum, likewise.
        probe: Has watched the step.
    """
    made = [division.edge.node for division in probe.divisions.made if division.by == number.key]
    return any(node is term.made_from and node.next_functions[0][0] is number.made_from for node in made)


def count_divisors(loss: Tensor, terms: Sequence[Term], probe: Probe) -> None:
    """Count what divides something and has a gradient, but is no term of the loss, with what has none.

    Args:
        loss: The step's loss.
        terms: All that the probe has seen.
        probe: Has watched the step.
    """
    divide = {key for division in probe.divisions.made for key in (division.by, *division.maybe)}
    size = probe.recorder.batch_size
    own = [term for term in terms if term.by_hand and term.edge is not None and foldable(term.elements.shape, size)]
    met = reached(loss.grad_fn, {term.node for term in own})
    for term in own:
        if term.key in divide and term.node not in met and not term.from_parameters:
            probe.recorder.counts[term.key] = count = term.detached()
            count.elements = count.elements.float()
