"""Tell what a sample loses beside others from what it loses beside fewer of them, where nothing else explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.refusals import ANOTHER_LOSS, BESIDE, MIXED_INSIDE, OTHER_WAY
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import Layout, StepSpec
from lightning_dataselect.capture.loss.terms import Key, Term
from lightning_dataselect.capture.witness.in_turn import happens_alike
from lightning_dataselect.capture.witness.mixed import rows_of
from lightning_dataselect.capture.witness.sample_rows import are_close, possible_layouts, row_alone

# Of the size of what is compared. Whatever rounds otherwise for another number of samples, as TF32 does, stays below.
_LOSSES_APART, _APART = 0.01, 0.03
_LITTLE = 1e-4  # of the loss

_Ways: TypeAlias = dict[str, tuple[Tensor, Tensor]]


def unexplained(whole: Shown, alone: Mapping[int, Shown], spec: StepSpec) -> list[Key]:
    """Return the terms that samples have other rows of alone than among others, if that was no reason to refuse them.

    Args:
        whole: Of several samples.
        alone: Of some of them alone, by their turns.
        spec: The findings, with those of single samples.
    """
    if spec.refusals() or whole.normalises or whole.is_in_half:
        return []
    return [key for key in whole.terms if _is_unexplained(key, whole, alone, spec)]


def _is_unexplained(key: Key, whole: Shown, alone: Mapping[int, Shown], spec: StepSpec) -> bool:
    (term, slope), found = whole.terms[key], spec.of(key)
    is_read = whole.spec.of(key).enters and not (found.divided_elementwise or found.is_foreign or found.is_fixed)
    is_one = key not in whole.of_folds and key[0] not in spec.loops and all(key in one.terms for one in alone.values())
    if not (is_read and is_one and happens_alike(key[0], [whole, *alone.values()])):
        return False
    if bool((slope * term.elements).abs().max() <= _LITTLE * whole.loss.abs()):  # no more than rounding
        return False
    layouts = [found.layout] if found.is_witnessed else possible_layouts(term, whole, agrees=False)
    own = {turn: one.terms[key][0] for turn, one in alone.items()}
    met = [pairs for layout in layouts if (pairs := _met(layout, term, own, whole.size)) is not None]
    return bool(met) and not any(are_close(*pairs, _LOSSES_APART) for pairs in met)


def _met(layout: Layout, term: Term, alone: Mapping[int, Term], size: int) -> tuple[Tensor, Tensor] | None:
    """Return the rows of some samples among others, and alone; None where they cannot lie in this way."""
    rows = layout.rows(term.elements, size)
    if rows is None:
        return None
    rows = rows[list(alone)]
    own = [row_alone(layout, term, one, row) for one, row in zip(alone.values(), rows, strict=True)]
    fitting = [one for one in own if one is not None and one.shape == rows[0].shape]
    return (rows.float(), torch.stack(fitting).float()) if len(fitting) == len(own) else None


def refuse_beside(
    keys: Sequence[Key], whole: Shown, fewer: Sequence[tuple[Sequence[int], Shown]], spec: StepSpec, *, draws: bool
) -> StepSpec:
    """Refuse terms of which a sample loses something else beside others than beside fewer.

    A factor that is made of the batch, as class weights of its counts are, changes a sample's loss and its slope alike,
    and a number that is subtracted changes no slope: a sample's loss keeps both as they are in the batch. Whatever a
    step draws is part of a loss, too.

    Args:
        keys: See `unexplained`.
        whole: Of several samples, with slopes.
        fewer: Of some of them, by their turns, likewise, also of single ones.
        spec: The findings so far.
        draws: True if the step has drawn random numbers.
    """
    for key in keys:
        shown = [(turns, some) for turns, some in fewer if len(some.outputs.get(key, ())) == len(whole.outputs[key])]
        alone = {turns[0]: some.outputs[key] for turns, some in shown if len(turns) == 1}
        if not alone or not whole.outputs[key]:
            continue
        pairs = [
            _fitting(among, {turn: own[n] for turn, own in alone.items()}, whole.size)
            for n, among in enumerate(whole.outputs[key])
        ]
        alike = [(pair, _way_alike(pair)) for pair in pairs]
        changed, ways = [pair for pair, way in alike if way is None], [way for _, way in alike if way is not None]
        if any(map(_are_others, changed)):
            spec = spec.with_term(key, refusal=BESIDE)
        elif changed and not draws and not any(map(_is_own_in_the_middle, changed)):
            spec = spec.with_term(key, refusal=MIXED_INSIDE)
        elif not changed and not all(_is_multiple(key, whole, turns, some, ways) for turns, some in shown):
            spec = spec.with_term(key, refusal=ANOTHER_LOSS)
    return spec


def refuse_additions(whole: Shown, alone: Mapping[int, Shown], spec: StepSpec) -> StepSpec:
    """Refuse the terms that samples have among others only: the step has asked how many there are, or which.

    Args:
        whole: Of several samples, or of one that is there twice.
        alone: Of some of them alone, by their turns.
        spec: The findings so far.
    """
    if spec.refusals() or spec.loops:
        return spec
    known = {key[0] for one in alone.values() for key in one.terms}
    for key, (term, _) in whole.terms.items():
        rows = [layout.rows(term.elements, whole.size) for layout in possible_layouts(term, whole, agrees=False)]
        is_theirs = all(bool(each[list(alone)].any()) for each in rows if each is not None)
        if key[0] not in known and whole.spec.of(key).enters and is_theirs:
            spec = spec.with_term(key, refusal=OTHER_WAY.format(term.name))
    return spec


def _fitting(among: Tensor, alone: Mapping[int, Tensor], size: int) -> _Ways:
    """Return the ways in which the rows of an output may lie, each with the rows of some samples, and those alone."""
    own = [one.float().flatten() for one in alone.values()]
    ways = rows_of(among, size).items()
    fitting = [(way, rows) for way, rows in ways if all(one.shape == rows[0].shape for one in own)]
    return {way: (rows[list(alone)], torch.stack(own)) for way, rows in fitting}


def _way_alike(ways: _Ways) -> str | None:
    """Return in which way an output's rows lie if samples have alone what they have among others (see `rows_of`)."""
    return next((way for way, (rows, own) in ways.items() if are_close(rows, own, _APART)), None)


def _is_own_in_the_middle(ways: _Ways) -> bool:
    """Tell if the sample in the middle is as it is alone: mixup with samples turned round mixes it with itself."""
    return any(are_close(rows[len(rows) // 2], own[len(rows) // 2], _APART) for rows, own in ways.values())


def _are_others(ways: _Ways) -> bool:
    """Tell if samples have outputs that are not their own, but each those that another one has alone.

    Example:
        >>> alone, rolled = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[3.0], [1.0], [2.0]])
        >>> [_are_others({"in turn": (rows, alone)}) for rows in (rolled, (alone + rolled) / 2)]
        [True, False]
    """
    for rows, own in ways.values():
        for n_blocks in (1, 2):  # as of two views one after the other
            for block, alone in zip(rows.chunk(n_blocks, 1), own.chunk(n_blocks, 1), strict=True):
                is_of = [[are_close(row, one) for one in alone] for row in block]
                if all(map(any, is_of)) and not all(each[i] for i, each in enumerate(is_of)):
                    return True
    return False


def _is_multiple(key: Key, whole: Shown, turns: Sequence[int], some: Shown, ways: Sequence[str]) -> bool:
    """Tell if each loss of samples beside fewer others is a multiple of what it is, and its slopes are the same one."""
    rows = [rows_of(shown.terms[key][0].elements, shown.size).get(ways[0]) for shown in (whole, some)]
    if rows[0] is None or rows[1] is None or rows[0].shape[1] != rows[1].shape[1]:
        return True
    slopes = [_slopes_of(key, shown, ways, rows[0].shape[1]) for shown in (whole, some)]
    if slopes[0] is None or slopes[1] is None:
        return True
    among, beside = slopes[0][list(turns)], slopes[1]
    losses, fewer = rows[0][list(turns)], rows[1]
    least = 1e-4 * torch.linalg.vector_norm(among, dim=2).max()
    shows = (torch.linalg.vector_norm(among, dim=2) > least) & (torch.linalg.vector_norm(beside, dim=2) > least)
    factor = (among * beside).sum(2) / (beside * beside).sum(2)
    rest = torch.linalg.vector_norm(among - factor[:, :, None] * beside, dim=2)
    is_parallel = rest <= _APART * torch.linalg.vector_norm(among, dim=2)
    is_scaled = (losses - factor * fewer).abs() <= _APART * losses.abs().max()
    is_shifted = (factor - 1).abs() <= _APART
    return bool((is_parallel & (is_scaled | is_shifted))[shows].all())


def _slopes_of(key: Key, shown: Shown, ways: Sequence[str], n: int) -> Tensor | None:
    """Return the slopes by which each loss goes by the outputs of its sample: (size, n, m)."""
    found = []
    for slope, way in zip(shown.slopes[key], ways, strict=True):
        if slope is None:
            continue
        is_dense = slope.dim() > 2 and slope.shape[:1] + slope.shape[2:] == shown.terms[key][0].elements.shape
        slope = slope.movedim(1, -1) if is_dense else slope  # the classes last, as the losses have none
        rows = rows_of(slope, shown.size).get(way)
        if rows is None or rows.shape[1] % n:
            return None
        found.append(rows.reshape(shown.size, n, -1))
    return torch.cat(found, 2) if found else None
