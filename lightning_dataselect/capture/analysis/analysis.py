"""Find the terms that make a loss from its autograd graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.analysis.divisors import with_divisor
from lightning_dataselect.capture.analysis.groups import are_groups
from lightning_dataselect.capture.analysis.independence import are_turns, find_rows, is_of_pairs, refuse_unseen
from lightning_dataselect.capture.analysis.inner import count_divisors, is_divided_by, is_inner, is_share_of
from lightning_dataselect.capture.analysis.nonlinear import is_cut_off, is_nonlinear_in, keep_linear
from lightning_dataselect.capture.analysis.remainder import leave_out
from lightning_dataselect.capture.analysis.unread import refuse_across, refuse_picked, unlike_batch
from lightning_dataselect.capture.loss.folds import find_folds
from lightning_dataselect.capture.loss.graph import Anchor, reached, walk
from lightning_dataselect.capture.loss.reductions import foldable
from lightning_dataselect.capture.loss.refusals import (
    CUT_OFF,
    DRAWN,
    FOLDED,
    GROUPS,
    JUDGED,
    OTHER_SAMPLES,
    PAIRS,
    PICKED,
    QUOTIENT,
    SCALE,
    nothing_found,
)
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import (
    Loop,
    Parts,
    Term,
    coefficients,
    first_turn,
    incomplete,
    loops_of,
    turns_in,
)
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.capture.recording.picks import IndexPick
from lightning_dataselect.utils.errors import CaptureError

Anchors = Mapping[Node, Sequence[Anchor]]


def analyze_loss(
    loss: Tensor, terms: Sequence[Term], probe: Probe, batch_size: int, spec: StepSpec
) -> tuple[Parts, StepSpec]:
    """Find the terms that a loss is soundly made of.

    Args:
        loss: The step's loss.
        terms: All that the probe has seen, with their graphs.
        probe: Has watched the step.
        batch_size: The number of samples.
        spec: The findings so far, which have met the terms.

    Returns:
        The terms that count, with their coefficients; the findings about them.

    Raises:
        CaptureError: If none counts, if those that do are next to nothing of the loss, or if one of them cannot be
            given back to the samples.
    """
    if not loss.requires_grad:
        raise CaptureError(
            "The step's loss has no gradient (requires_grad is False): return it as it was computed, without detach(),"
            " item() or torch.no_grad()."
        )
    if spec.refusal is not None:
        raise CaptureError(spec.refusal)
    anchors = probe.anchors
    own = [term for term in terms if not (term.from_parameters or spec.of(term.key).is_fixed)]
    fixed = coefficients(loss, [term for term in terms if spec.of(term.key).is_fixed])
    parts = coefficients(loss, own)
    parts, foreign, spec = _without_foreign(parts, spec)
    if foreign and not parts:
        return [], spec
    for term, _ in parts:
        refusal = spec.of(term.key).refusal
        # a sample's part in a quotient of sums does not depend on how they are divided
        if refusal is not None and (len(parts) == 1 or not is_nonlinear_in(loss, term, parts, anchors)):
            raise CaptureError(refusal)
    spec = replace(spec, loops=spec.loops | (_find_loops(parts, probe, batch_size) - spec.no_loops))
    if words := incomplete(parts, spec.loops, batch_size):
        raise CaptureError(words)
    loops = loops_of(parts, spec.loops, batch_size)
    spec = replace(spec, first_turns={**spec.first_turns, **{loop.key[0]: first_turn(loop) for loop, _ in loops}})
    parts = [(term, slope) for term, slope in parts if term.key[0] not in spec.loops]
    unseen = [(t, slope) for t, slope in parts if not spec.of(t.key).is_witnessed and t.key[0] not in spec.no_groups]
    if are_groups(loss, unseen, anchors, probe.divisions.numbers(), batch_size):
        raise CaptureError(GROUPS)
    refuse_picked(loss, parts, probe, batch_size, spec)
    parts = [(term, slope) for term, slope in parts if not term.by_hand or foldable(term.elements.shape, batch_size)]
    for term, _ in parts:
        if not foldable(term.elements.shape, batch_size):
            raise CaptureError(unlike_batch(term, parts, probe, batch_size))
    turns = [turn for loop, _ in loops for turn in loop.turns]
    means_of_turns = [term for term, _ in parts if term.by_hand and reached(term.node, _nodes(turns))]
    kept = [(term, slope) for term, slope in parts if term not in means_of_turns and not _aggregates(term, parts)]
    inner = [term for term, _ in kept if is_inner(term, loss, kept)]
    kept = [(term, slope) for term, slope in kept if term not in inner]
    count_divisors(loss, terms, probe)
    sound: Parts = []
    for term, slope in kept:
        if spec.of(term.key).is_witnessed and not probe.recorder.tells_others_apart(term):
            refuse_unseen(term, probe, batch_size)
        else:
            own_inner = [number for number in inner if is_divided_by(term, number, probe)]
            normalisers = [number.value for number in own_inner] if len(own_inner) == 1 else []
            if len(kept) == 1 and normalisers and is_share_of(term, own_inner[0], probe):
                del probe.recorder.counts[own_inner[0].key]  # else all samples would lose the same
            if is_of_pairs(term, spec, batch_size):
                continue
            strided, before = find_rows(term, probe, batch_size, normalisers), spec.of(term.key)
            if strided is None:
                continue
            term.strided = before.layout.strided if probe.sizes.has_equal_axes and before.enters else strided
        if term.picked_at != spec.of(term.key).picked_at:  # what fitted its earlier rows says nothing about these
            spec = spec.with_term(term.key, picked_at=term.picked_at, readings=())
        sound.append((term, slope))
    folds, others, spec, is_bent = _find_folds(loss, [*turns, *(term for term, _ in sound)], probe, batch_size, spec)
    foreign += others
    of_folds = _nodes(fold for fold, _ in folds)
    kept = [part for part in kept if part in sound or not reached(part[0].elements.grad_fn, of_folds)]
    refused = [(fold.key, refusal) for fold, _ in folds if (refusal := spec.of(fold.key).refusal) is not None]
    shown = [part for part in folds if spec.of(part[0].key).is_witnessed and part[0].key not in dict(refused)]
    kept, sound = kept + shown, sound + shown
    if inner and kept and not (sound or loops) and all(is_nonlinear_in(loss, term, kept, anchors) for term, _ in kept):
        raise CaptureError(QUOTIENT)
    if kept and not sound and not loops:
        is_drawn = any(_takes_again(term, probe) for term, _ in kept)
        has_pairs = any(is_of_pairs(term, spec, batch_size) for term, _ in kept)
        raise CaptureError(DRAWN if is_drawn else PAIRS if has_pairs else OTHER_SAMPLES)
    reasons = []
    if len(sound) < len(kept):
        reasons.append(f"{len(kept) - len(sound)} of {len(kept)} loss terms depend on several samples at once")
    sound += loops
    refuse_across(sound, spec)
    for turn, key in [(turn, term.key) for term, _ in sound for turn in turns_in(term)]:
        if not spec.of(key).is_witnessed and reached(turn.elements.grad_fn, probe.slopes_of_means):
            raise CaptureError(SCALE)
    if not sound and reached(loss.grad_fn, probe.picked):
        raise CaptureError(PICKED)
    if not sound and (folds or is_bent):
        raise CaptureError(refused[0][1] if refused else FOLDED if folds else QUOTIENT)
    if not sound and any(node.name().startswith("SortBackward") for node in walk(loss.grad_fn, anchors)):
        raise CaptureError(JUDGED)
    if not sound:
        raise CaptureError(nothing_found(batch_size, len(terms), len(parts)))
    n_sound, (sound, nonlinear) = len(sound), keep_linear(loss, sound, anchors)
    if any(is_cut_off(loss, term, anchors, probe.limited) for term, _ in sound):
        raise CaptureError(CUT_OFF)
    if len(sound) < n_sound:
        n_left, shown = n_sound - len(sound), [part for part in shown if part in sound]
        reasons.append(f"{n_left} of {n_sound} loss terms enter a quotient or product over the whole batch")
    if _reaches_besides(loss, anchors, _nodes([*turns, *(term for term, _ in [*kept, *foreign, *fixed])])):
        reasons.append(
            "A part of the loss depends on the batch through something other than a mean or a sum over its samples,"
            " such as a standard deviation or a fused kernel"
        )
    if reasons and tuple(reasons) not in spec.warned:
        known = spec.is_resumed or all(spec.of(term.key).enters for term, _ in sound)
        leave_out(reasons, loss, sound, terms, [*foreign, *fixed], known=known)
        spec = replace(spec, warned=spec.warned | {tuple(reasons)})
    found = dict(spec.terms)
    found |= {term.key: replace(spec.of(term.key), enters=spec.of(term.key).enters or False) for term, _ in parts}
    found |= {term.key: replace(spec.of(term.key), enters=True) for term, _ in sound}
    found |= {fold.key: replace(found[fold.key], is_folded=True) for fold, _ in shown}
    found |= {key: replace(found[key], enters=False) for key, _ in refused}
    for term in nonlinear:
        found[term.key] = replace(found[term.key], is_nonlinear=True)
    spec = replace(spec, terms=found)
    for term, slope in sound:
        if not spec.of(term.key).is_witnessed:
            is_only = len(sound) == 1
            of_means = isinstance(term, Loop) and any(not mean.is_sum for mean in means_of_turns)
            spec = with_divisor(spec, term, slope, loss, probe, batch_size, is_only=is_only, of_means=of_means)
    return sound, spec


def _without_foreign(parts: Parts, spec: StepSpec) -> tuple[Parts, Parts, StepSpec]:
    """Take away the terms in which none of the samples has a share that are measured.

    Returns:
        The other terms, those that were taken away, and the findings, with what was found of them.

    Raises:
        CaptureError: If nobody knows of a term whose samples have a share in it.
    """
    own: Parts = []
    foreign: Parts = []
    for term, slope in parts:
        found = spec.of(term.key)
        if term.origin is None or term.origin.is_own:
            own.append((term, slope))
        elif found.is_foreign or term.origin.is_foreign:
            foreign.append((term, slope))
            spec = spec.with_term(term.key, enters=found.enters or False, is_foreign=True)
        elif found.is_witnessed:
            own.append((term, slope))
        else:
            raise CaptureError(
                f"{term.name} is computed from the samples of several train loaders at once, and running the step on"
                " fewer samples of the named loader has not shown which losses belong to it. Compute the loss of that"
                " loader's samples from its own batch, with one call of the model per loader."
            )
    return own, foreign, spec


def _find_loops(parts: Parts, probe: Probe, batch_size: int) -> set[Hashable]:
    """Find the places where a term is computed for each sample in turn."""
    by_place: dict[Hashable, list[Term]] = {}
    for term, _ in parts:
        by_place.setdefault(term.key[0], []).append(term)
    return {place for place, own in by_place.items() if are_turns(own, probe.anchors, batch_size)}


def _find_folds(
    loss: Tensor, terms: Sequence[Term], probe: Probe, batch_size: int, spec: StepSpec
) -> tuple[Parts, Parts, StepSpec, bool]:
    """Find what is reduced over the samples first, and weighed output by output afterwards.

    Returns:
        The folds that the loss is a weighted sum of, those in which none of the samples has a share that are measured,
        the findings, with what was found of them, and True if it is another function of further ones.

    Raises:
        CaptureError: If one of them cannot be read.
    """
    folds, is_bent = find_folds(loss, probe.recorder.folds.values(), probe.anchors, _nodes(terms))
    folds, foreign, spec = _without_foreign(folds, spec)
    refuse_picked(loss, folds, probe, batch_size, spec)
    return folds, foreign, spec, is_bent


def _nodes(terms: Iterable[Term]) -> set[Node]:
    return {term.node for term in terms}


def _reaches_besides(loss: Tensor, anchors: Anchors, terms: set[Node]) -> bool:
    """Tell if a loss depends on activations by other ways than its terms.

    What parameters are applied to after the terms, as learned weights are to a vector of them, is no activation.
    """
    ends = {*anchors, *terms}
    while met := reached(loss.grad_fn, ends) - terms:
        after = {node for node in met if reached(node, terms)}
        if after != met:
            return True
        ends -= after
    return False


def _takes_again(term: Term, probe: Probe) -> bool:
    """Tell if an index of the step's own has picked the rows of a term, some samples more than once."""
    pick = None if term.picked_at is None else probe.recorder.picks.get(term.picked_at)
    return isinstance(pick, IndexPick) and len(pick.index) == 1 and len(pick.mask.unique()) < pick.n_rows


def _aggregates(term: Term, parts: Parts) -> bool:
    """Tell if a mean or sum is taken over the results of loss functions, and not over samples' losses."""
    others = _nodes(other for other, _ in parts if not other.by_hand)
    return term.by_hand and bool(reached(term.node, others))
