"""Compare a model's outputs for several samples, and which of them a step takes, with those for each sample alone."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.graph import derivatives, reached
from lightning_dataselect.capture.loss.reductions import by_sample
from lightning_dataselect.capture.loss.refusals import MIXED_INSIDE
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key, Term
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.capture.recording.picks import IndexPick
from lightning_dataselect.capture.recording.recorder import Recorder
from lightning_dataselect.capture.witness.in_turn import happens_alike

_APART, _APART_IN_HALF = 0.01, 0.1  # of the largest number: kernels round otherwise for another number of samples
_LEAST_SAMPLES = 3  # of two, one may be mixed with the other by being turned round


def outputs_before(term: Term, probe: Probe) -> list[Tensor]:
    """Return the activations that a term was made from, the latest ones first, without a graph."""
    values = probe.values or {}
    return [value for node in _latest_before(term, values) for value in values[node]]


def slopes_before(term: Term, probe: Probe) -> list[Tensor | None]:
    """Return the derivatives of the sum of a term's elements by each of these activations."""
    edges = [anchor.edge for node in _latest_before(term, probe.values or {}) for anchor in probe.anchors[node]]
    return derivatives(term.elements.sum(), edges) if edges else []


def _latest_before(term: Term, values: Container[Node]) -> list[Node]:
    return sorted(reached(term.elements.grad_fn, values), key=lambda node: -node._sequence_nr())


def rows_taken(term: Term, recorder: Recorder) -> Tensor | None:
    """Return how many rows of each sample a term has; None where no index of the step has picked them."""
    pick = None if term.picked_at is None else recorder.picks.get(term.picked_at)
    if not isinstance(pick, IndexPick) or pick.is_flat:
        return None
    return torch.bincount(pick.mask, minlength=recorder.batch_size)


def takes_again(key: Key, whole: Shown, singles: Sequence[Shown]) -> bool:
    """Tell if samples that a term has rows of alone have more or fewer of them among others.

    As many as another one has alone are that one's, in another order.

    Args:
        key: Of the term.
        whole: Of several samples.
        singles: Of each of them alone.
    """
    if key not in whole.taken or whole.taken[key].numel() != len(singles):
        return False
    alone = [int(one.taken.get(key, torch.tensor(one.terms[key][0].elements.shape[:1].numel()))) for one in singles]
    among = whole.taken[key].tolist()
    return sorted(alone) != sorted(among) and any(0 < n != other for n, other in zip(alone, among, strict=True))


def refuse_mixed(whole: Shown, turned: Shown, singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Refuse the terms that a model gives something else for a sample among others than for it alone.

    Layers that normalise a batch by its own statistics are known to do so. Where samples are mixed with those of the
    reverse order, as by mixup, the one in the middle is as it is alone; where other numbers are drawn each time,
    samples in another order have others. Where a sample alone passes a place less often than others do, as a loop over
    tasks that it has no label of, what it computes there is another thing.

    Args:
        whole: Of several samples.
        turned: Of the same ones in the reverse order.
        singles: Of each of them alone, in order.
        spec: The findings so far.
    """
    if whole.size < _LEAST_SAMPLES or whole.normalises:
        return spec
    for key, (term, _) in whole.terms.items():
        if spec.of(key).refusal is not None or not all(key in one.terms for one in [turned, *singles]):
            continue
        if not happens_alike(key[0], [whole, turned, *singles]):
            continue
        if not _are_apart(term.elements, [one.terms[key][0].elements for one in singles], of_each=any):
            continue
        outputs = [shown.outputs[key] for shown in (whole, turned, *singles)]
        if len({len(values) for values in outputs}) > 1:
            continue
        for among, back, *alone in zip(*outputs, strict=True):
            if _are_apart(among, alone, of_each=_of_most) and _is_turned(among, back, whole.size):
                spec = spec.with_term(key, refusal=MIXED_INSIDE)
    return spec


def _are_apart(among: Tensor, alone: Sequence[Tensor], of_each: Callable[[Iterable[bool]], bool]) -> bool:
    """Tell if any samples, or most of them, have other numbers among the others than alone, however they lie.

    Example:
        >>> among = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        >>> _are_apart(among, [among[:1], among[1:]], any), _are_apart(among, [among[:1], among[1:] + 1], any)
        (False, True)
    """
    layouts = rows_of(among, len(alone)).values()
    own = [one.float().flatten() for one in alone]
    pairs = [list(zip(rows, own, strict=True)) for rows in layouts]
    pairs = [rows for rows in pairs if all(row.shape == one.shape for row, one in rows)]
    by = _tolerance(among)
    return bool(pairs) and all(of_each(_differ(row, one, by) for row, one in rows) for rows in pairs)


def _of_most(is_apart: Iterable[bool]) -> bool:
    """Tell if it is so of two samples, and of the one in the middle, which what turns samples round mixes with itself.

    Example:
        >>> _of_most([True, True, False]), _of_most([True, False, True])
        (True, False)
    """
    each = list(is_apart)
    return each[len(each) // 2] and sum(each) > 1


def _is_turned(among: Tensor, back: Tensor, size: int) -> bool:
    """Tell if samples in the reverse order have the same numbers, in that order."""
    if among.shape != back.shape:
        return False
    pairs = zip(rows_of(among, size).values(), rows_of(back, size).values(), strict=True)
    return any(not _differ(rows, turned.flip(0), _tolerance(among)) for rows, turned in pairs)


def rows_of(values: Tensor, size: int) -> dict[str, Tensor]:
    """Return one row a sample, by the ways in which they may lie.

    Args:
        values: With one or more rows of each sample.
        size: The number of samples.

    Example:
        >>> {way: rows.tolist() for way, rows in rows_of(torch.arange(4.0).view(4, 1), 2).items()}
        {'in turn': [[0.0, 1.0], [2.0, 3.0]], 'strided': [[0.0, 2.0], [1.0, 3.0]]}
    """
    rows = values.shape[:1].numel()
    found: dict[str, Tensor] = {}
    if not values.numel() or values.dim() == 0:
        return found
    if rows % size == 0:
        found = {way: by_sample(values, size, way == "strided").float() for way in ("in turn", "strided")}
    if values.dim() > 1 and values.shape[1] == size:
        found["across"] = values.movedim(1, 0).reshape(size, -1).float()
    return found


def _tolerance(values: Tensor) -> float:
    is_half = values.dtype.itemsize < 4 or torch.is_autocast_enabled(values.device.type)
    return _APART_IN_HALF if is_half else _APART


def _differ(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if bool((a.isfinite() != b.isfinite()).any()):  # as the deviation of one sample is none
        return True
    size = torch.maximum(a.nan_to_num().abs().max(), b.nan_to_num().abs().max())
    return bool((a - b).nan_to_num().abs().max() > tolerance * size)
