"""Tell if a batch leaves samples out of its loss that would lose something alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_dataselect.capture.loss.refusals import JUDGED
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import Layout, StepSpec
from lightning_dataselect.capture.loss.terms import Term
from lightning_dataselect.capture.witness.sample_rows import CLOSE, possible_layouts, row_alone


def refuse_mined(batch: Shown, positions: Sequence[int], singles: Sequence[Shown], spec: StepSpec) -> StepSpec:
    """Refuse the terms of which a batch leaves out what a sample alone would lose, as all but the hardest.

    Args:
        batch: Of all samples.
        positions: Of some of them in the batch.
        singles: Of each of these alone.
        spec: The findings so far.
    """
    for key, (term, _) in batch.terms.items():
        alone = [one.terms[key][0] for one in singles if key in one.terms]
        if not term.is_judged or len(alone) < len(singles):
            continue
        found = spec.of(key)
        layouts = [found.layout] if found.is_witnessed else possible_layouts(term, batch, agrees=False)
        if layouts and all(_leaves_out(layout, term, batch.size, positions, alone) for layout in layouts):
            spec = spec.with_term(key, refusal=JUDGED)
    return spec


def refuse_fallback(one: Shown, emptied: Shown, spec: StepSpec) -> StepSpec:
    """Refuse the terms of a step that takes other rows where the model's outputs pick too few.

    Args:
        one: Of one sample alone.
        emptied: Of the same one, when masks that were computed from its outputs have picked nothing.
        spec: The findings so far.
    """
    picked = [key for key, (term, _) in one.terms.items() if term.is_judged]
    for key, (term, slope) in emptied.terms.items():
        is_live = bool(term.elements.any()) and bool(slope.nan_to_num().any())
        if is_live and (key in picked or key not in one.terms):
            for judged in picked:
                spec = spec.with_term(judged, refusal=JUDGED)
    return spec


def _leaves_out(layout: Layout, term: Term, size: int, positions: Sequence[int], alone: Sequence[Term]) -> bool:
    """Tell if a sample's losses are 0 in a batch where they are not alone, or the other way round."""
    rows = layout.rows(term.elements, size)
    has_zeros = rows is not None and bool((rows == 0).any())
    for position, one in zip(positions, alone, strict=True):
        row = None if rows is None else rows[position]
        own = None if row is None else row_alone(layout, term, one, row)
        if row is None or own is None or own.shape != row.shape:
            return False
        least = CLOSE * torch.maximum(own.abs().max(), row.abs().max())
        if bool(((own.abs() > least) & (row == 0)).any()):
            return True
        # where a batch leaves out none at all, samples alone are multiplied by 0 for another reason
        if has_zeros and bool(((row.abs() > least) & (own == 0)).any()):
            return True
    return False
