"""Find out how a step's loss is read: by probes of whole batches, and by what single samples lose."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lightning_dataselect.capture.analysis.roots import constant_in, find_terms, weighted
from lightning_dataselect.capture.batch_sizes import BatchSizes
from lightning_dataselect.capture.changes import NOT_MEASURED, Changes
from lightning_dataselect.capture.loss.folds import Folded
from lightning_dataselect.capture.loss.graph import reached
from lightning_dataselect.capture.loss.origin import Origins
from lightning_dataselect.capture.loss.refusals import OPEN_BRANCH, OTHER_LOADERS, UNSHOWN
from lightning_dataselect.capture.loss.shown import Answers
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key, Parts, Scale, Term, coefficients
from lightning_dataselect.capture.probing.probe import Probe
from lightning_dataselect.capture.probing.watch import Watch, eagerly
from lightning_dataselect.capture.reading.results import PrimaryTerms, StepResult
from lightning_dataselect.capture.reading.returned import check_is_one_number, loss_of, missing_loss, with_loss
from lightning_dataselect.capture.reading.scaling import scale
from lightning_dataselect.capture.recording.claims import Claims
from lightning_dataselect.capture.recording.interception import Interceptors
from lightning_dataselect.capture.recording.recorder import Recorder
from lightning_dataselect.capture.recording.shared import SharedRecorder
from lightning_dataselect.capture.reprobe import ReprobePolicy
from lightning_dataselect.capture.witness.recall import Recall
from lightning_dataselect.utils.errors import CaptureError

_MOST_UNCLEAR = 8  # batches whose loss is not finite, or made of nothing, which show little, until one is gone by


class Inquiry:
    """Probe a step when that is due, and keep what was found.

    Args:
        module: Searched for loss functions that it holds as attributes.
        interceptors: Those of several captures that read the same steps; None for its own.

    Attributes:
        recorder: Records the steps, and holds the findings about them.
        interceptors: The interceptors that its probes have put in place of functions.
        watch: The mode that steps need; None if they can do without.
        reprobe: Says when to look.
        primary: Which of several terms' logits and outputs count.
        scales: The factors of all terms in the last probe, root by root.
        constants: Likewise, what each root holds besides.
        is_compiled: True if terms are computed in compiled code.
        is_one_term: True if the last loss was a term's value, as it came.
        batch_tensors: See `LossCapture.batch_tensors`.
        changes: Notices steps that have changed since, or that were misread.
        knows_ways: True if single samples have ever shown what would follow from other answers.
        recall: Recognizes steps about which nothing is open.
    """

    def __init__(self, module: nn.Module | None = None, interceptors: Interceptors | None = None) -> None:
        self._module = module
        self.recorder = Recorder()
        if interceptors is None:
            interceptors = Interceptors(self.recorder, module)
        elif isinstance(interceptors.recorder, SharedRecorder):
            interceptors.recorder.add(self.recorder)
        self.interceptors = interceptors
        self.watch: Watch | None = None
        self.recall, self.reprobe = Recall(), ReprobePolicy()
        self.changes = Changes(self.recorder, self.reprobe)
        self.primary = PrimaryTerms()
        self.scales: list[dict[Key, Scale]] = []
        self.constants: list[Tensor | None] = []
        self.is_compiled = self.is_one_term = False
        self.batch_tensors: Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]] | None = None
        self._read_by = StepSpec()  # the findings of the last probe
        self._n_unclear = 0  # consecutive probes of a loss that was not finite
        self._sizes = BatchSizes()
        self._has_seen_epoch = False  # whether an epoch has begun
        self._weights: Tensor | None = None  # while a probe runs, which applies them itself
        self._is_routine = False  # whether the next probe is due for no reason but time
        self.knows_ways = False
        self._unread: list[Term] = []  # of the last probe, what its loss was made of if nothing sound was found

    def forget(self) -> None:
        """Start over, as with a step that was never seen."""
        self.recorder.spec, self.primary = StepSpec(), PrimaryTerms()
        self.recorder.claims = Claims()
        self.recorder.doubts.read()
        self._start_over()
        self.is_one_term = self.is_compiled = self.knows_ways = False
        self._sizes.meet_several(has_several=False)
        self.watch = None

    def _start_over(self) -> None:
        self.recall = Recall()
        self.reprobe.start_over()
        self.changes.start_over()

    def new_probe(self, stand_ins: Answers | None = None) -> Probe:
        """Return a probe that the recorder asks from now on (see `Exits` for what may stand in)."""
        self.recorder.observer = probe = Probe(self.recorder, self.interceptors, self._module, stand_ins)
        if self.batch_tensors is not None:
            probe.origins = Origins(*self.batch_tensors())
        return probe

    def probe_next(self) -> None:
        """Probe the next step again, for instance because the step may have changed."""
        self.reprobe.probe_next()

    def look_again(self) -> None:
        """Probe the next step again for no reason but the time that has passed."""
        self._is_routine = not self.reprobe.probes
        self.reprobe.probe_next()

    def start_epoch(self) -> None:
        """Probe again if the last epoch left doubts, or if code is compiled, which does not show what it adds."""
        self.changes.settle_claims()
        if self.is_compiled or self.changes.has_doubts(wait=True):
            self.probe_next()
        if self._has_seen_epoch:
            self.recorder.spec = self.recorder.spec.with_all_seen()
        self._has_seen_epoch = True

    def will_probe(self, batch_size: int) -> bool:
        """Tell if the next step, on this many samples, will be probed."""
        return self.reprobe.probes > 0 or (self._sizes.may_tell_more and self._sizes.tells_more(batch_size))

    def name_places(self, places: Sequence[Any]) -> None:
        """Name the places where a step decides by its loss, once each, where nothing shows what follows from that."""
        for place in places:
            self._warn_once(OPEN_BRANCH.format(place[2], place[0]))

    def _warn_once(self, words: str) -> None:
        spec = self.recorder.spec
        if (words,) not in spec.warned:
            warnings.warn(words, stacklevel=4)
            self.recorder.spec = replace(spec, warned=spec.warned | {(words,)})

    def settle(self) -> None:
        """Go by what single samples have shown since the last probe, as no step may follow that would."""
        spec = self.recorder.spec
        refusals = spec.refusals(entering=True)
        for refusal in refusals:
            warnings.warn(refusal, stacklevel=2)
        if refusals or spec.contradicts(self._read_by):
            self.recorder.claims.contradict()
        self._read_by = spec

    def resume(self) -> None:
        """Continue an earlier run, which accepted the step: it is not refused for a share that has become small."""
        self.recorder.spec = replace(self.recorder.spec, is_resumed=True)

    def meet_size(self, batch_size: int) -> None:
        """Probe again at the first size that can tell more; forget what batches of one seemed to show about rows."""
        if not self._sizes.may_tell_more:
            return
        if self._sizes.tells_axes_apart(batch_size):
            self.probe_next()
        if self._sizes.is_first_of_several(batch_size):
            recorder = self.recorder
            known = recorder.spec
            recorder.spec = StepSpec(is_resumed=known.is_resumed, tables=known.tables, n_each=known.n_each)
            recorder.claims = Claims()
            self._read_by = StepSpec()
            self._sizes.meet_several(has_several=True)
            self._start_over()

    def probe(self, step: Callable[[], Any], result: StepResult, weights: Tensor | None, batch: Any = ()) -> Any:
        """Run a step under a mode, and learn how to do without one."""
        self._weights = weights
        probe = self.new_probe()
        self.scales, self.constants, self._unread = [], [], []
        self.changes.settle_claims()
        try:
            with eagerly(), self.interceptors.losses, probe:
                out = step()
            if not result.roots:
                loss = loss_of(out)
                if isinstance(loss, Tensor):
                    check_is_one_number(loss)
                    out = with_loss(out, self.analyze(loss, result))
                elif not self.reprobe.known:
                    raise missing_loss(out, self.recorder.terms)
        finally:
            self.recorder.observer = self._weights = None
        if result.roots and not any(result.roots) and not result.lost and not self.reprobe.known:
            raise CaptureError(OTHER_LOADERS)
        if probe.differentiates and not self.recorder.spec.differentiates:
            self.recorder.spec = replace(self.recorder.spec, differentiates=True)
        for space, name in probe.names.found:
            self.interceptors.add_name(space, name)
        if not {place for place, _ in result.way}.isdisjoint(place for place, _ in probe.unreachable):
            self.watch = Watch(self.recorder, self.interceptors)
        if not self.knows_ways:
            self.name_places([place for place in probe.exits.open() if len(probe.exits.taken[place]) == 1])
        self.changes.learn(result, self._unread, batch)
        self._is_routine = False
        if result.lost:
            self.reprobe.give_up()
            if self._unread:  # by chance, as in a batch in which nothing counts, or from now on
                self.reprobe.probe_next()
        elif not self.reprobe.settle(result.way, result.unknown):
            self.watch = Watch(self.recorder, self.interceptors)
        if self.recorder.spec.contradicts(self._read_by):
            self.recorder.claims.contradict()
        self._read_by = self.recorder.spec
        self._sizes.learn(self.recorder.batch_size, has_equal_axes=probe.sizes.has_equal_axes)
        if 0 < self._n_unclear < _MOST_UNCLEAR:
            self.probe_next()
        return out

    def analyze(self, loss: Tensor, result: StepResult) -> Tensor:
        """Resolve a root of a probed step, and weigh it."""
        recorder = self.recorder
        probe = recorder.observer
        assert isinstance(probe, Probe)
        is_dummy = not loss.detach().any() and not reached(loss.grad_fn, probe.anchors)
        self._n_unclear = 0 if bool(loss.isfinite().all()) and not is_dummy else self._n_unclear + 1
        try:
            parts = find_terms(loss, probe, recorder)
        except CaptureError as error:
            if is_dummy and self._n_unclear < _MOST_UNCLEAR:  # of a batch that holds nothing to learn
                result.lost = True
                result.add([], loss)
                return loss
            if not self.reprobe.known or recorder.spec.refusals():
                raise
            warnings.warn(f"{NOT_MEASURED} {error}", stacklevel=2)
            known = [term for term in recorder.terms if recorder.spec.of(term.key).enters is not False]
            self._unread += [term for term, _ in coefficients(loss, known)]
            result.lost, parts = True, []
            if self._is_routine:  # steps since the last probe may have been like this one
                recorder.claims.contradict()
        filters = set[Hashable]().union(*(probe.filters(term.elements) for term, _ in parts))
        recorder.spec = replace(recorder.spec, filters=recorder.spec.filters | filters)
        result.lost |= self.changes.leaves_out()
        for term, _ in parts:
            self.interceptors.add_sites_of(term, recorder, probe.sites)
            if term.picked_at is not None or filters:
                # a class that had an index of its own, even for a moment, is a sequence to torch for ever after
                self.watch = Watch(recorder, self.interceptors)
            if not result.lost:
                n_rows = 0 if isinstance(term, Folded) else term.elements.numel() // recorder.batch_size
                has_one_row = term.elements.shape[:1] == (recorder.batch_size,)
                found = {"n_rows": n_rows, "has_one_row": has_one_row, "n_classes": recorder.classes_now(term)}
                recorder.spec = recorder.spec.with_term(term.key, **found)
        self.is_one_term = len(parts) == 1 and parts[0][0].edge is not None and parts[0][0].node is loss.grad_fn
        self.is_one_term &= not recorder.spec.differentiates
        self.primary.choose(parts, recorder)
        for term in self.changes.unexplained(loss, parts):
            self._warn_once(UNSHOWN.format(term.name))
        scaled = [(term, scale(term, slope, recorder)) for term, slope in parts]
        self.scales.append({term.key: factor for term, factor in scaled})
        result.add(scaled, loss, self._constant_of(loss, parts, len(result.roots)))
        return loss if self._weights is None else weighted(loss, parts, self._weights, recorder)

    def _constant_of(self, loss: Tensor, parts: Parts, n: int) -> Tensor | None:
        """Return the constant in the n-th loss of a probed step, if each sample's loss has it too, as in a mean."""
        recorder, constant = self.recorder, constant_in(loss, parts, self.recorder)
        others = recorder.spec.with_constant - {n}
        recorder.spec = replace(recorder.spec, with_constant=others if constant is None else others | {n})
        self.constants.append(constant)
        return constant
