"""Run a step on some samples to see what it computes, without learning anything from it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.analysis.roots import constant_in, find_terms
from lightning_dataselect.capture.loss.folds import find_folds
from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import coefficients
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.capture.probing.watch import eagerly
from lightning_dataselect.capture.reading.results import PrimaryTerms, StepResult
from lightning_dataselect.capture.reading.returned import check_is_one_number, loss_of
from lightning_dataselect.capture.reading.scaling import scale
from lightning_dataselect.capture.recording.claims import Claims
from lightning_dataselect.capture.recording.doubts import Doubts
from lightning_dataselect.capture.recording.interception import Interceptors
from lightning_dataselect.capture.recording.recorder import Recorder
from lightning_dataselect.capture.witness.mixed import outputs_before, rows_taken, slopes_before
from lightning_dataselect.utils.errors import CaptureError


def show(
    step: Callable[[], Any],
    batch_size: int,
    probe: Probe,
    recorder: Recorder,
    interceptors: Interceptors,
    *,
    as_known: bool = False,
    with_slopes: bool = False,
) -> Shown:
    """Run a step to compare its terms with those of other batches.

    Args:
        step: Calls the training step on some samples.
        batch_size: Their number.
        probe: Watches it.
        recorder: Records it; what it has found of other steps stays as it was.
        interceptors: Those of the recorder.
        as_known: True to read its loss by what was found of other steps, False by this one alone.
        with_slopes: True to differentiate its terms by what the model gave to them.

    Raises:
        CaptureError: the step returns no loss that has a gradient, or one of several numbers.
    """
    known, claims, doubts = recorder.spec, recorder.claims, recorder.doubts
    recorder.spec = known if as_known else StepSpec(tables=known.tables, n_each=known.n_each)
    recorder.claims, recorder.doubts = Claims(), Doubts()
    probe.values = {}
    recorder.start(batch_size)
    try:
        with torch.enable_grad(), eagerly(), interceptors.losses, probe:
            loss = loss_of(step())
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            raise CaptureError("The step returned no loss with a gradient: let it return one.")
        check_is_one_number(loss)
        own = coefficients(loss, [term for term in recorder.terms if not term.from_parameters])
        own += find_folds(loss, recorder.folds.values(), probe.anchors)[0]
        terms = {term.key: (term, torch.as_tensor(slope).detach()) for term, slope in own}
        result, constant = StepResult(recorder, PrimaryTerms(), None), None
        with contextlib.suppress(CaptureError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = find_terms(loss, probe, recorder)
            scaled = [(term, scale(term, slope, recorder)) for term, slope in parts]
            constant = constant_in(loss, parts, recorder)
            result.add(scaled, loss, constant)
        losses = result.captured().losses if result.roots else None
        numbers = {key: term.detached() for key, term in recorder.counts.items()}
        outputs = {key: outputs_before(term, probe) for key, (term, _) in terms.items()}
        slopes = {key: slopes_before(term, probe) for key, (term, _) in terms.items()} if with_slopes else {}
        taken = {key: rows for key, (term, _) in terms.items() if (rows := rows_taken(term, recorder)) is not None}
        folds = {fold.edge.node for fold in recorder.folds.values() if fold.edge is not None}
        of_folds = [key for key, (term, _) in terms.items() if reached(term.elements.grad_fn, folds)]
        terms = {key: (term.detached(), slope) for key, (term, slope) in terms.items()}
        return Shown(
            batch_size,
            loss.detach(),
            terms,
            numbers,
            losses,
            constant,
            recorder.spec,
            divides=bool(probe.divisions.made),
            sorts=probe.orders.sorts,
            reorders=probe.orders.reorders,
            outputs=outputs,
            slopes=slopes,
            taken=taken,
            normalises=probe.normalises,
            picks_by_outputs=bool(probe.doubtful),
            of_folds=of_folds,
            passes=recorder.passes,
            calls=tuple(probe.calls),
            asks_for_loss=bool(probe.exits.of_loss),
            exits=probe.exits.may_matter(),
            decisive=probe.exits.open(),
        )
    finally:
        recorder.stop()
        known = replace(known, tables=known.tables | probe.tables)
        recorder.observer, recorder.spec, recorder.claims, recorder.doubts = None, known, claims, doubts
