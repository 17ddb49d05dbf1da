"""Find out whose rows are whose, and if each sample has losses of its own."""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import Anchor, Input, derivatives, reached
from lightning_dataselect.capture.loss.reductions import by_sample
from lightning_dataselect.capture.loss.refusals import OWN_LOSS
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Term
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.utils.errors import CaptureError

# In a smaller batch, the targets of a few classes may count up by chance.
_LEAST_PAIRS = 8


def mixes(
    term: Term,
    anchors: Mapping[Node, Sequence[Anchor]],
    batch_size: int,
    constants: Sequence[Tensor] = (),
    views: Container[int] = (),
) -> bool | None:
    """Tell if the loss of a sample depends on other samples, as a contrastive loss does.

    Args:
        term: A term whose elements have their graph.
        anchors: Activations, by their places in the graph. The latest ones that the term was made from are asked, if
            they have as many rows as the batch or the term, or as several views of the batch.
        batch_size: The number of samples.
        constants: Numbers taken over the batch that only normalise; what goes by them is left out.
        views: How many views of the batch, one after the other, went through the model at once.

    Returns:
        None if no activation with a row a sample can tell.

    Example:
        >>> from lightning_dataselect.capture.loss.graph import Anchor, edge_of
        >>> h = torch.ones(3, 2, requires_grad=True) + 1
        >>> pairs, own = (h @ h.T).exp(), h.square()
        >>> terms = [Term(("", 0), e.mean(), e, None, False) for e in (pairs, own)]
        >>> [mixes(term, {h.grad_fn: [Anchor(edge_of(h), h.shape)]}, 3) for term in terms]
        [True, False]
    """
    rows = by_sample(term.elements, batch_size, term.strided)
    asked = _telling(rows)
    latest = sorted(reached(term.elements.grad_fn, anchors), key=lambda node: -node._sequence_nr())
    met = list(chain(*(anchors[node] for node in latest)))
    found: bool | None = None
    for i in asked:
        verdict = _row_mixes(term, rows[i].sum(), i, met, batch_size, constants, views)
        if verdict:
            return True
        found = found if verdict is None else verdict
    return found


def _telling(rows: Tensor) -> list[int]:
    """Return up to three samples with a loss to test, since one alone may happen to have a slope of zero.

    Example:
        >>> _telling(torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [0.0, 0.0]]))
        [1, 3, 4]
    """
    live = rows.detach().nan_to_num().ne(0).any(1).nonzero().flatten().tolist() or list(range(len(rows)))
    return sorted({live[0], live[len(live) // 2], live[-1]})


def _row_mixes(
    term: Term,
    loss: Tensor,
    i: int,
    anchors: Sequence[Anchor],
    batch_size: int,
    constants: Sequence[Tensor],
    views: Container[int],
) -> bool | None:
    """Tell if what sample i loses depends on other samples' rows of the activations; None if none can tell."""
    found: bool | None = None
    for anchor, slope in zip(anchors, _slopes(loss, anchors, constants), strict=True):
        across = _lies_across(anchor.shape, term.elements.shape, batch_size)
        layouts = (True,) if across else _layouts(anchor, term, batch_size, views)
        if slope is None or not layouts:
            continue
        slope = slope.flatten(0, 1) if across else slope
        if not any(alone_in(slope, i, batch_size, strided) for strided in layouts):
            return True
        found = False if across or anchor.shape[0] == batch_size else found
    return found


def _lies_across(anchor: torch.Size, elements: torch.Size, batch_size: int) -> bool:
    """Tell if an activation is time-major, (k, batch_size, ...), and a term has a row for each token of it."""
    k, rows = anchor[0], elements[:1].numel()
    return len(anchor) > 2 and anchor[1] == batch_size != k and k * batch_size == rows


def _layouts(anchor: Anchor, term: Term, batch_size: int, views: Container[int]) -> tuple[bool, ...]:
    """Return how a sample's rows of an activation may lie, strided or not; () if it may have none."""
    rows = anchor.shape[0]
    if rows == batch_size:
        return (False,)
    if anchor.shape[:1] == term.elements.shape[:1]:
        return (term.strided,)
    return (False, True) if rows % batch_size == 0 and rows // batch_size in views else ()


def alone_in(slope: Tensor, i: int, batch_size: int, strided: bool = False) -> bool:
    """Tell if a slope by an activation is that of sample i alone.

    Example:
        >>> alone_in(torch.tensor([[0.0, 0.0], [2.0, 1.0]]), 1, batch_size=2)
        True
    """
    # a norm, since abs() would hold a second tensor of that size
    each = torch.linalg.vector_norm(by_sample(slope, batch_size, strided), torch.inf, 1)
    others = torch.cat([each[:i], each[i + 1 :]])
    return not bool((others > 1e-4 * each[i]).any())


def _slopes(loss: Tensor, anchors: Sequence[Anchor], constants: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the slopes of a loss by activations, latest first, each without what goes by a later one of them.

    A variational autoencoder, say, uses its code in one loss directly and, through a decoder that may normalise the
    batch, in another: only the direct way tells of the code's own row.
    """
    slopes: list[Tensor | None] = []  # not rounded: what rounding removes would return through a later anchor
    judged: list[Tensor | None] = []
    for n, anchor in enumerate(anchors):
        slope, noise = _slope(loss, anchor.edge, constants), None
        for later, direct in zip(anchors[:n], slopes, strict=True):
            if slope is None or direct is None or later.edge.node is anchor.edge.node:
                continue
            (through,) = torch.autograd.grad(
                [later.edge], [anchor.edge], [direct], retain_graph=True, allow_unused=True
            )
            if through is not None:
                size = torch.maximum(slope.abs(), through.abs()).amax()
                noise = size if noise is None else torch.maximum(noise, size)
                slope = slope - through
        slopes.append(slope)
        judged.append(slope if slope is None or noise is None else torch.where(slope.abs() > 1e-5 * noise, slope, 0))
    return judged


def _slope(loss: Tensor, anchor: Input, constants: Sequence[Tensor]) -> Tensor | None:
    try:
        slope = derivatives(loss, [anchor])[0]
        for constant in constants:
            by_it = derivatives(loss, [constant])[0]
            if slope is not None and by_it is not None:
                through = derivatives(constant, [anchor])[0]
                slope = slope if through is None else slope - by_it * through
        return slope
    except RuntimeError:  # a reentrant checkpoint, say, that only backward() can pass
        return None


def are_turns(terms: Sequence[Term], anchors: Mapping[Node, Sequence[Anchor]], batch_size: int) -> bool:
    """Tell if terms that are computed at one place are those of the samples, one after the other.

    Args:
        terms: In the order in which they were computed.
        anchors: Activations, by their places in the graph.
        batch_size: The number of samples.
    """
    if len(terms) != batch_size or batch_size == 1:
        return False
    met = [reached(term.elements.grad_fn, anchors) for term in terms]
    if not all(met):
        return False
    if len(set(chain(*met))) == sum(map(len, met)):
        # Each has activations of its own: those of one sample, unless all of them have a row for each.
        before = set(chain(*(_all_reached(term.elements.grad_fn, anchors) for term in terms)))
        return any(anchor.shape[:1] != (batch_size,) for node in before for anchor in anchors[node])
    shared = set.intersection(*met)
    edges = [a.edge for node in shared for a in anchors[node] if a.shape[:1] == (batch_size,)]
    return bool(edges) and all(
        alone_in(slope, i, batch_size)
        for i, term in enumerate(terms)
        for slope in derivatives(term.elements.sum(), edges)
        if slope is not None
    )


def _all_reached(start: Node | None, anchors: Mapping[Node, Sequence[Anchor]]) -> set[Node]:
    """Return all activations on the ways back from a node, and not only the first ones."""
    found: set[Node] = set()
    todo = [start]
    while todo:
        new = reached(todo.pop(), anchors) - found
        found |= new
        todo += [before for node in new for before, _ in node.next_functions]
    return found


def find_rows(term: Term, probe: Probe, batch_size: int, normalisers: Sequence[Tensor]) -> bool | None:
    """Find how a term's rows lie if each is one sample's own.

    Args:
        term: One that the loss is made of, with its graph.
        probe: Has watched the step.
        batch_size: The number of samples.
        normalisers: Numbers taken over the batch that only normalise.

    Returns:
        True if strided (see `reductions.by_sample`), else False; None if samples mix.

    Raises:
        CaptureError: If nothing shows which rows are whose.
    """
    if _compares_with_batch(term, batch_size):
        return None
    anchors = probe.anchors if reached(term.elements.grad_fn, probe.anchors) else probe.foreign
    rows = term.elements.shape[0] if term.elements.dim() else 1
    if batch_size > 1 and rows == batch_size**2 and batch_size in probe.sizes.views:
        raise CaptureError(_unseen(term, batch_size))  # so many batches, or parts of each sample
    mixed = mixes(term, anchors, batch_size, normalisers, probe.sizes.views)
    probe.sizes.has_equal_axes |= _warn_of_equal_axes(term, anchors, batch_size)
    if rows == batch_size or batch_size == 1:
        return None if mixed else term.strided
    if mixed:
        other = replace(term, strided=not term.strided)
        return None if mixes(other, anchors, batch_size, normalisers, probe.sizes.views) else other.strided
    if mixed is None and not term.strided and not probe.sizes.has_seen(batch_size, rows // batch_size):
        raise CaptureError(_unseen(term, batch_size))
    return term.strided


def is_of_pairs(term: Term, spec: StepSpec, batch_size: int) -> bool:
    """Tell if a term has a row for each pair of samples, as of (batch_size, 1) outputs and (batch_size,) targets."""
    each, targets = (batch_size,), term.targets
    is_crossed = batch_size > 1 and targets is not None and (targets.shape, term.elements.shape) == (each, each * 2)
    return is_crossed or spec.of(term.key).is_paired


def refuse_unseen(term: Term, probe: Probe, batch_size: int) -> None:
    """Refuse rows, several of each sample, that lay as they should when single samples showed them, as by chance.

    So it is where samples of different numbers of rows lie one after the other, and the first ones have as many each.

    Args:
        term: One that single samples have shown.
        probe: Has watched the step.
        batch_size: The number of samples.

    Raises:
        CaptureError: If nothing else shows that each sample has as many rows.
    """
    rows = term.elements.shape[0] if term.elements.dim() else 1
    if rows % batch_size or rows == batch_size or batch_size == 1 or term.strided:
        return
    k, anchors = rows // batch_size, probe.anchors if reached(term.elements.grad_fn, probe.anchors) else probe.foreign
    if not probe.sizes.has_seen(batch_size, k) and mixes(term, anchors, batch_size, views=probe.sizes.views) is None:
        raise CaptureError(_unseen(term, batch_size))


def _unseen(term: Term, batch_size: int) -> str:
    return (
        f"{term.name} gave losses of the shape {tuple(term.elements.shape)} for {batch_size} samples, and nothing"
        " shows which rows belong to which sample, as when boxes, nodes or tokens of all samples are concatenated."
        f" {OWN_LOSS}"
    )


def _compares_with_batch(term: Term, batch_size: int) -> bool:
    """Tell if the classes are the samples of the batch: no gradient shows it where one side of the pairs is frozen."""
    if term.classes is None or batch_size < _LEAST_PAIRS:
        return False
    logits, targets = term.classes
    own = torch.arange(batch_size, device=targets.device)
    return logits.shape == (batch_size, batch_size) and bool(torch.equal(targets, own.to(targets.dtype)))


def _warn_of_equal_axes(term: Term, anchors: Mapping[Node, Sequence[Anchor]], batch_size: int) -> bool:
    """Say which axis is taken for that of the samples where another one, as that of the time, has as many entries."""
    both = (batch_size, batch_size)
    is_square = term.elements.shape[:1] == (batch_size**2,) or term.elements.shape[:2] == both or term.is_joined
    if batch_size == 1 or not is_square:
        return False
    met = [anchor for node in reached(term.elements.grad_fn, anchors) for anchor in anchors[node]]
    is_open = any(len(anchor.shape) > 2 and anchor.shape[:2] == both for anchor in met)
    if is_open:
        warnings.warn(
            f"The batch has as many samples, {batch_size}, as its outputs have steps, and nothing shows which axis is"
            f" which: the first axis is taken to be the samples in {term.name}. Another batch_size settles it.",
            stacklevel=2,
        )
    return is_open
