"""Tell what a sample loses beside others from what it loses beside fewer of them, where nothing else explains it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.refusals import ANOTHER_LOSS, BESIDE, MIXED_INSIDE, OTHER_WAY
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.witness.in_turn import happens_alike
from lightning_dataselect.capture.witness.mixed import rows_of
from lightning_dataselect.capture.witness.sample_rows import are_close, possible_layouts

# Of the size of what is compared. Whatever rounds otherwise for another number of samples, as TF32 does, stays below.
_LOSSES_APART, _APART = 0.01, 0.03
_LITTLE = 1e-4  # of the loss


def unexplained(whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> list[Key]:
    """Return the terms that samples have other rows of alone than among others, if that was no reason to refuse them.

    Args:
        whole: Of several samples.
        singles: Of each of them alone, in order.
        spec: The findings, with those of single samples.
    """
    if spec.refusals() or whole.normalises or whole.is_in_half:
        return []
    return [key for key in whole.terms if _is_unexplained(key, whole, singles, spec)]


def _is_unexplained(key: Key, whole: Shown, singles: Sequence[Shown], spec: StepSpec) -> bool:
    (term, slope), found = whole.terms[key], spec.of(key)
    is_read = whole.spec.of(key).enters and not (found.is_witnessed or found.is_foreign or found.is_fixed)
    is_one = key not in whole.of_folds and key[0] not in spec.loops and all(key in one.terms for one in singles)
    if not (is_read and is_one and happens_alike(key[0], [whole, *singles])):
        return False
    is_little = (slope * term.elements).abs().max() <= _LITTLE * whole.loss.abs()  # if it is more than rounding
    if bool(is_little):
        return False
    own = [one.terms[key][0].elements.flatten() for one in singles]
    layouts = [layout.rows(term.elements, whole.size) for layout in possible_layouts(term, whole, agrees=False)]
    fitting = [rows for rows in layouts if rows is not None and all(rows[0].shape == one.shape for one in own)]
    return bool(fitting) and not any(are_close(rows, torch.stack(own), _LOSSES_APART) for rows in fitting)


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
        fewer: Of some of them, by their turns, likewise.
        spec: The findings so far.
        draws: True if the step has drawn random numbers.
    """
    for key in keys:
        shown = [(turns, some) for turns, some in fewer if len(some.outputs.get(key, ())) == len(whole.outputs[key])]
        singles = [some for turns, some in shown if len(turns) == 1]
        n_outputs = len(whole.outputs[key])
        if len(singles) < whole.size or not n_outputs:
            continue
        pairs = [(whole.outputs[key][n], [one.outputs[key][n] for one in singles]) for n in range(n_outputs)]
        alike = [(pair, _way_alike(*pair)) for pair in pairs]
        changed, ways = [pair for pair, way in alike if way is None], [way for _, way in alike if way is not None]
        if any(_are_others(among, alone) for among, alone in changed):
            spec = spec.with_term(key, refusal=BESIDE)
        elif changed and not draws and not any(_is_own_in_the_middle(among, alone) for among, alone in changed):
            spec = spec.with_term(key, refusal=MIXED_INSIDE)
        elif not changed and not all(_is_multiple(key, whole, turns, some, ways) for turns, some in shown):
            spec = spec.with_term(key, refusal=ANOTHER_LOSS)
    return spec


def refuse_twins(twins: Shown, one: Shown, spec: StepSpec) -> StepSpec:
    """Refuse the terms that a sample has beside itself, and not alone: the step has asked what else the batch holds.

    Args:
        twins: Of one sample, twice.
        one: Of it alone.
        spec: The findings so far.
    """
    if spec.refusals() or spec.loops:
        return spec
    known = {key[0] for key in one.terms}
    for key, (term, _) in twins.terms.items():
        if key[0] not in known and twins.spec.of(key).enters:
            spec = spec.with_term(key, refusal=OTHER_WAY.format(term.name))
    return spec


def _way_alike(among: Tensor, alone: Sequence[Tensor]) -> str | None:
    """Return in which way an output's rows lie if samples have alone what they have among others (see `rows_of`)."""
    fitting = _fitting(among, alone).items()
    return next((way for way, (rows, own) in fitting if are_close(rows, own, _APART)), None)


def _is_own_in_the_middle(among: Tensor, alone: Sequence[Tensor]) -> bool:
    """Tell if the sample in the middle is as it is alone: mixup with samples turned round mixes it with itself."""
    middle = len(alone) // 2
    return any(are_close(rows[middle], own[middle], _APART) for rows, own in _fitting(among, alone).values())


def _fitting(among: Tensor, alone: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the ways in which rows may lie, each with those of samples alone."""
    own = [one.float().flatten() for one in alone]
    ways = rows_of(among, len(alone)).items()
    return {way: (rows, torch.stack(own)) for way, rows in ways if all(one.shape == rows[0].shape for one in own)}


def _are_others(among: Tensor, alone: Sequence[Tensor]) -> bool:
    """Tell if samples have outputs that are not their own, but each those that another one has alone.

    Example:
        >>> alone = [torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0]])]
        >>> [_are_others(torch.tensor(rows)[:, None], alone) for rows in ([3.0, 1.0, 2.0], [1.5, 2.5, 2.0])]
        [True, False]
    """
    for rows, own in _fitting(among, alone).values():
        n_blocks = max(rows.shape[1] // max(among[0].numel(), 1), 1)
        for block, block_alone in zip(rows.chunk(n_blocks, 1), own.chunk(n_blocks, 1), strict=True):
            is_of = [[are_close(row, one) for one in block_alone] for row in block]
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
