"""Per-sample losses out of any training step."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dataselect.capture.analysis import analyze_loss
from lightning_dataselect.capture.claims import Claims
from lightning_dataselect.capture.graph import reached, saving_numbers_only
from lightning_dataselect.capture.interception import Interceptors
from lightning_dataselect.capture.origin import Origins
from lightning_dataselect.capture.probe import Probe
from lightning_dataselect.capture.recorder import Recorder
from lightning_dataselect.capture.remainder import has_constant, rest
from lightning_dataselect.capture.reprobe import ReprobePolicy
from lightning_dataselect.capture.results import Captured, PrimaryTerms, StepResult, Summarize
from lightning_dataselect.capture.returned import described, loss_of, with_loss
from lightning_dataselect.capture.scaling import scale
from lightning_dataselect.capture.shown import Shown
from lightning_dataselect.capture.specs import StepSpec
from lightning_dataselect.capture.terms import Key, Parts, Scale, Term, coefficients, incomplete, loops_of, turns_of
from lightning_dataselect.capture.watch import Watch, eagerly
from lightning_dataselect.capture.witness import decide, refuse_mined
from lightning_dataselect.utils.errors import CaptureError, InvalidArgumentError, NoLossError

_MOST_UNCLEAR = 8  # batches whose loss is not finite, or made of nothing, which show little, until one is gone by


_NOT_MEASURED = "The samples of some batches are not measured."


class LossCapture:
    """Run training steps, and say what each sample of the batch lost.

    What a sample loses is what the step would return for a batch of it alone, with the user's own weights on it. So:

    - Class weights count. A sample of a class with the weight ``w`` loses ``w * l``, by
      ``F.cross_entropy(..., weight=...)`` as by a hand-written ``(w[y] * losses).mean()``, although torch's own mean
      divides by the weights and would return ``l`` for a batch of one.
    - A sample's tokens are averaged over that sample. A mean over all tokens of a batch gives a long text more say
      than a short one; the losses of both are means over their own tokens, and their plain mean is not the batch's
      loss. Of a sum over the batch that nothing divides, a sample loses the sum over its own elements.
    - A coefficient is taken as the whole batch has it: the share that mixup draws, a learned weight, a weight computed
      from the batch. So is what a layer that normalises over the batch makes of the sample among the others.

    The first step is probed: a mode watches every torch call for what makes the loss. After
    that only those functions are intercepted, and only while a step runs.

    Args:
        module: Searched for loss functions that it holds as attributes.

    Example:
        >>> model, x, y = nn.Linear(3, 2), torch.ones(4, 3), torch.tensor([0, 1, 1, 0])
        >>> capture = LossCapture(model)
        >>> def step():
        ...     return nn.functional.cross_entropy(model(x), y)
        >>> loss, captured = capture.run(step, batch_size=4)
        >>> captured.losses.shape, torch.allclose(captured.losses.mean(), loss)
        (torch.Size([4]), True)
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self._module = module
        self._recorder = Recorder()
        self.doubts = self._recorder.doubts
        """What steps have left in doubt of late (see `has_doubts`)."""
        self._interceptors = Interceptors(self._recorder, module)
        self._watch: Watch | None = None
        self._reprobe = ReprobePolicy()
        self._scales: list[dict[Key, Scale]] = []  # of the last probe, root by root
        self._constants: list[Tensor | None] = []  # likewise
        self._primary = PrimaryTerms()
        self._is_compiled = False
        self._read_by = StepSpec()  # the findings of the last probe
        self._n_unclear = 0  # probes, one after the other, of a loss that was not finite
        self._unclear_size: int | None = None  # of batches in which another axis is as long
        self._has_seen_several = False  # whether a batch of more than one sample was probed
        self._has_seen_epoch = False  # whether an epoch has begun
        self._is_one_term = False  # whether the last loss was a term's value, as it came
        self._result: StepResult | None = None  # while a step runs
        self._weights: Tensor | None = None  # while a probe runs, which applies them itself
        self.batch_tensors: Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]] | None = None
        """Returns the tensors of the samples that are measured, and the other ones of a batch. None: there are none."""
        self.summarize: Summarize | None = None
        """Called with a batch's outputs; returns what is kept of them. None: they are not looked for."""

    @property
    def keeps_value(self) -> bool:
        """True if weights change the gradient of the loss alone: what a step logs of it is then unweighted."""
        return self._recorder.keeps_value

    @keeps_value.setter
    def keeps_value(self, keeps: bool) -> None:
        self._recorder.keeps_value = keeps

    @property
    def watches_calls(self) -> bool:
        """True if a mode watches every call of a step, as nothing else meets what its loss is made of."""
        return self._watch is not None

    def __reduce__(self) -> tuple[type[LossCapture], tuple[()]]:
        """Copy and pickle as one that has seen nothing yet: the rest is bound to this process."""
        return LossCapture, ()

    def run(self, step: Callable[[], Any], batch_size: int, weights: Tensor | None = None) -> tuple[Any, Captured]:
        """Run a step once.

        Args:
            step: Calls the training step on its batch.
            batch_size: The number of samples in the batch, B.
            weights: (B,) float, on the loss's device: the loss becomes the sum of each sample's
                contribution times its weight, in value and in gradient.

        Returns:
            What the step returned, and what its samples lost.

        Raises:
            CaptureError: the first step shows no sound per-sample loss.
        """
        if weights is not None and weights.shape != (batch_size,):
            raise InvalidArgumentError(
                f"weights has the shape {tuple(weights.shape)}: give one weight for each of the batch's {batch_size}"
                f" samples, of shape ({batch_size},)."
            )
        self._meet_size(batch_size)
        probing = self._reprobe.probes > 0
        self._recorder.start(batch_size, None if probing else weights)
        self._recorder.keeps_calls = self.summarize is not None
        self._result = result = StepResult(self._recorder, self._primary, self.summarize)
        try:
            if probing:
                self._weights = weights
                out = self._probe(step, result)
            else:
                with self._interceptors.losses, self._watch or self._interceptors.reductions:
                    out = step()
                if not result.roots:
                    self._follow(loss_of(out), result)
                if result.roots:
                    result.lost = result.partial or not self._reprobe.check(result.way, result.unknown)
                    result.lost |= self._leaves_out() or self._has_grown()
            return out, result.captured()
        finally:
            self._result = self._weights = None
            self._recorder.stop()

    def score(self, step: Callable[[], Any], batch_size: int) -> Captured:
        """Run a step for its samples' losses alone, without what a backward pass would need.

        No graph is built where the loss is one mean or sum over the batch, as it comes from its function. Else it has
        one, so that its terms enter with the coefficients of this very pass, but nothing larger than a few numbers is
        kept for it. A step that takes derivatives itself is given a whole one, and so is one that is probed.

        Args:
            step: Calls the training step on its batch.
            batch_size: The number of samples in the batch, B.

        Returns:
            What the samples lost: what `run` would have said.

        Raises:
            CaptureError: the first step shows no sound per-sample loss.

        Example:
            >>> model, x = nn.Linear(1, 1), torch.ones(6, 1)
            >>> def step(x):
            ...     return model(x).square().mean()
            >>> capture = LossCapture()
            >>> _ = capture.run(lambda: step(x[:2]), batch_size=2)
            >>> capture.score(lambda: step(x), batch_size=6).losses.shape
            torch.Size([6])
        """
        self._meet_size(batch_size)
        if self._reprobe.probes == 0 and self._is_one_term:
            captured = self._score_one_term(step, batch_size)
            if captured is not None and (captured.known or self._reprobe.probes == 0):
                return captured
        with torch.enable_grad():
            if self._reprobe.probes == 0:
                whole = self._recorder.spec.differentiates
                with contextlib.nullcontext() if whole else saving_numbers_only():
                    captured = self.run(step, batch_size)[1]
                if captured.known or self._reprobe.probes == 0:
                    return captured
            return self.run(step, batch_size)[1]

    def _score_one_term(self, step: Callable[[], Any], batch_size: int) -> Captured | None:
        """Run a step without a graph; None if its loss is not the very value of a term this time."""
        recorder, interceptors = self._recorder, self._interceptors
        recorder.start(batch_size, scoring=True)
        recorder.keeps_calls = self.summarize is not None
        result = StepResult(recorder, self._primary, self.summarize, unknown=None)
        try:
            with torch.no_grad(), interceptors.losses, self._watch or interceptors.reductions:
                loss = loss_of(step())
            own = [term for term in recorder.terms if term.value is loss]
            if not own or len(recorder.sources) > 1 or recorder.compiled:
                self._is_one_term = False
                return None
            result.add([(own[0], scale(own[0], 1.0, recorder))], loss)
            result.lost = self._leaves_out() or self._has_grown()
            return result.captured()
        finally:
            recorder.stop()

    def register_backward_loss(self, loss: Tensor) -> Tensor:
        """Take a loss that is back-propagated inside the step (manual optimization).

        To be called before each backward. What a sample loses in a step is the sum over its
        roots; what the step returns is then no root.

        Args:
            loss: 0-dim, with its graph.

        Returns:
            The loss to back-propagate: the same one, or, where a probed step has weights, the
            weighted one.
        """
        if self._result is None:
            return loss
        with self._recorder.paused():
            if self._recorder.observer is not None:
                return self._analyze(loss, self._result)
            self._follow(loss, self._result)
        return loss

    def bypass(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that it finds torch's own means and sums in their places, even inside a step.

        For one that compares them with its arguments, as Lightning's ``log`` does with ``reduce_fx``.
        """
        interceptors = self._interceptors

        @torch.compiler.disable
        def suspended(*args: Any, **kwargs: Any) -> Any:
            with interceptors.reductions.suspended():
                given = {name: interceptors.original(value) for name, value in kwargs.items()}
                return function(*args, **given)

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            # the wrapper of what a compiler leaves alone costs a short step more than logging a number does
            if torch.compiler.is_dynamo_compiling() or interceptors.originals:
                return suspended(*args, **kwargs)
            return function(*args, **kwargs)

        return plain

    def forget(self) -> None:
        """Begin anew, as with a step that nobody has seen."""
        self._recorder.spec, self._reprobe, self._primary = StepSpec(), ReprobePolicy(), PrimaryTerms()
        self._recorder.claims = Claims()
        self.doubts.read()
        self._is_one_term = self._is_compiled = self._has_seen_several = False
        self._watch = None

    def _new_probe(self) -> Probe:
        self._recorder.observer = probe = Probe(self._recorder, self._interceptors, self._module)
        if self.batch_tensors is not None:
            probe.origins = Origins(*self.batch_tensors())
        return probe

    def probe_next(self) -> None:
        """Look at everything anew in the next step, as where the step may have changed."""
        self._reprobe.probe_next()

    def has_misread(self, *, wait: bool = True) -> bool:
        """Tell if a step has shown that earlier ones were misread since the last call; the next one is probed then.

        Args:
            wait: False to leave the answer to a later call where it would have to be waited for.
        """
        if not self._recorder.claims.read(wait=wait):
            return False
        self._settle_claims()
        self.probe_next()
        return True

    def start_epoch(self) -> None:
        """Look anew at what an epoch has left in doubt, and at compiled code, which does not show what it adds."""
        self._settle_claims()
        if self._is_compiled or self.has_doubts(wait=True):
            self.probe_next()
        if self._has_seen_epoch:
            self._recorder.spec = self._recorder.spec.with_all_seen()
        self._has_seen_epoch = True

    def has_doubts(self, *, wait: bool = False) -> bool:
        """Tell if steps since the last call may have been misread, so that single samples are to be asked again.

        Args:
            wait: True to have the answer now, even if it has to be waited for.
        """
        keys = self.doubts.read(wait=wait)
        for key in keys:
            n_doubts = self._recorder.spec.of(key).n_doubts + 1
            self._recorder.spec = self._recorder.spec.with_term(key, n_doubts=n_doubts, is_even=False)
        return bool(keys)

    def is_misread(self) -> bool:
        """Tell if the findings are not those that the last probe has read the step by, or forbid to read it."""
        spec = self._recorder.spec
        return spec.contradicts(self._read_by) or any(term.refusal for term in spec.terms.values())

    def will_probe(self, batch_size: int) -> bool:
        """Tell if the next step, on so many samples, will be looked at in full."""
        is_larger = batch_size > 1 and not self._has_seen_several
        tells_apart = self._unclear_size is not None and self._tells_axes_apart(batch_size)
        return self._reprobe.probes > 0 or is_larger or tells_apart

    def show(self, step: Callable[[], Any], batch_size: int) -> Shown:
        """Run a step to hold its terms against those of other batches, and learn nothing from it.

        Args:
            step: Calls the training step on some samples.
            batch_size: Their number.

        Raises:
            CaptureError: the step returns no loss that has a gradient.
        """
        recorder = self._recorder
        known, claims = recorder.spec, recorder.claims
        recorder.spec, recorder.claims = StepSpec(), Claims()
        recorder.start(batch_size)
        probe = self._new_probe()
        try:
            with torch.enable_grad(), eagerly(), self._interceptors.losses, probe:
                loss = loss_of(step())
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                raise CaptureError("The step returned no loss that has a gradient: let it return one.")
            own = coefficients(loss, [term for term in recorder.terms if not term.from_parameters])
            terms = {term.key: (term, torch.as_tensor(slope).detach()) for term, slope in own}
            result = StepResult(recorder, PrimaryTerms(), None)
            with contextlib.suppress(CaptureError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parts = self._find_terms(loss, probe)
                scaled = [(term, scale(term, slope, recorder)) for term, slope in parts]
                result.add(scaled, loss, self._constant_in(loss, parts))
            losses = result.captured().losses if result.roots else None
            numbers = {key: term.detached() for key, term in recorder.counts.items()}
            terms = {key: (term.detached(), slope) for key, (term, slope) in terms.items()}
            divides = bool(probe.divisions.made)
            spec, sorts, reorders = recorder.spec, probe.sorts, probe.reorders
            return Shown(batch_size, loss.detach(), terms, numbers, losses, spec, divides, sorts, reorders)
        finally:
            recorder.stop()
            recorder.observer, recorder.spec, recorder.claims = None, known, claims

    def decide(self, whole: Shown, singles: Sequence[Shown]) -> bool:
        """Let what single samples lose choose how the terms of the next step are read (see `witness.decide`).

        Returns:
            False if other samples might tell more.
        """
        self._meet_size(whole.size)
        self._settle_claims()
        self._recorder.spec, is_settled = decide(whole, singles, self._recorder.spec)
        return is_settled

    def refuse_mined(self, batch: Shown, positions: Sequence[int], singles: Sequence[Shown]) -> None:
        """Refuse what a batch leaves out by the model's outputs (see `witness.refuse_mined`)."""
        self._recorder.spec = refuse_mined(batch, positions, singles, self._recorder.spec)

    def resume(self) -> None:
        """Go on where an earlier run has judged the step: it is not refused for a share that has become small."""
        self._recorder.spec = replace(self._recorder.spec, is_resumed=True)

    def _settle_claims(self) -> None:
        """Let go of the readings that steps have ruled out."""
        if left := self._recorder.claims.left():
            self._recorder.spec = self._recorder.spec.with_left(left)

    def _leaves_out(self) -> bool:
        leaves_out = self._recorder.leaves_out()
        if leaves_out:
            warnings.warn(
                f"{_NOT_MEASURED} The step leaves some of their samples out by a mask before the model sees them, so"
                " which sample a row of losses belongs to is another in each batch. Leave them out of the data set, or"
                " multiply their losses by 0.",
                stacklevel=2,
            )
        return leaves_out

    def _has_grown(self) -> bool:
        """Look anew where samples have more rows than one each, which says whose they are as long as it lasts."""
        has_grown = self._recorder.has_grown()
        if has_grown:
            self.probe_next()
        return has_grown

    def _tells_axes_apart(self, batch_size: int) -> bool:
        """Tell if axes that have been as long as each other so far are not in a batch of this size."""
        return batch_size > 1 and batch_size != self._unclear_size

    def _meet_size(self, batch_size: int) -> None:
        """Look anew at the first size that can tell more; forget what batches of one have shown of what is whose."""
        if self._unclear_size is not None and self._tells_axes_apart(batch_size):
            self.probe_next()
        if batch_size > 1 and not self._has_seen_several:
            recorder = self._recorder
            recorder.spec, recorder.claims = StepSpec(is_resumed=recorder.spec.is_resumed), Claims()
            self._reprobe, self._read_by, self._has_seen_several = ReprobePolicy(), StepSpec(), True

    def _probe(self, step: Callable[[], Any], result: StepResult) -> Any:
        """Run a step under watch, and learn how to do without."""
        probe = self._new_probe()
        self._scales, self._constants = [], []
        self._settle_claims()
        try:
            with eagerly(), self._interceptors.losses, probe:
                out = step()
            if not result.roots:
                loss = loss_of(out)
                if isinstance(loss, Tensor):
                    out = with_loss(out, self._analyze(loss, result))
                elif not self._reprobe.known:
                    passed_over = out is None and not any(map(_shows_a_loss, self._recorder.terms))
                    raise (NoLossError if passed_over else CaptureError)(
                        f"The step returned no loss, but {described(out)}, and back-propagated none. Let it"
                        " return the loss, or a dict with the key 'loss'; with manual optimization, call"
                        " self.manual_backward(loss) in place of loss.backward()."
                    )
        finally:
            self._recorder.observer = None
        if result.roots and not any(result.roots) and not result.lost and not self._reprobe.known:
            raise CaptureError(
                "None of the step's losses is made of the samples that are chosen from: all of them are those of other"
                " train loaders. Name another loader, or use its batch in the step."
            )
        if probe.differentiates and not self._recorder.spec.differentiates:
            self._recorder.spec = replace(self._recorder.spec, differentiates=True)
        for space, name in probe.names:
            self._interceptors.add_name(space, name)
        if not {place for place, _ in result.way}.isdisjoint(place for place, _ in probe.unreachable):
            self._watch = Watch(self._recorder, self._interceptors)
        if result.lost:
            self._reprobe.give_up()
        elif not self._reprobe.settle(result.way, result.unknown):
            self._watch = Watch(self._recorder, self._interceptors)
        if self._recorder.spec.contradicts(self._read_by):
            self._recorder.claims.contradict()
        self._read_by = self._recorder.spec
        if self._recorder.batch_size > 1 or self._unclear_size is None:  # an axis of one shows nothing of another
            self._unclear_size = self._recorder.batch_size if probe.has_equal_axes else None
        if 0 < self._n_unclear < _MOST_UNCLEAR:
            self.probe_next()
        return out

    def _analyze(self, loss: Tensor, result: StepResult) -> Tensor:
        """Resolve a root of a probed step, and weigh it."""
        recorder = self._recorder
        probe = recorder.observer
        assert isinstance(probe, Probe)
        is_dummy = not loss.detach().any() and not reached(loss.grad_fn, probe.anchors)
        self._n_unclear = 0 if bool(loss.isfinite().all()) and not is_dummy else self._n_unclear + 1
        try:
            parts = self._find_terms(loss, probe)
        except CaptureError as error:
            if is_dummy and self._n_unclear < _MOST_UNCLEAR:  # of a batch that holds nothing to learn
                result.lost = True
                result.add([], loss)
                return loss
            if not self._reprobe.known or any(term.refusal for term in recorder.spec.terms.values()):
                raise
            warnings.warn(f"{_NOT_MEASURED} {error}", stacklevel=2)
            result.lost, parts = True, []
        filters = set[Hashable]().union(*(probe.filters(term.elements) for term, _ in parts))
        recorder.spec = replace(recorder.spec, filters=recorder.spec.filters | filters)
        result.lost |= self._leaves_out()
        for term, _ in parts:
            for where, _ in (term.key, *recorder.spec.of(term.key).places()):
                if not isinstance(where, str):
                    self._interceptors.add_site(probe.sites[where], where)
            joined = recorder.joined.get(term.key)
            if joined is not None:
                self._interceptors.add_site(probe.sites[joined], joined)
            if term.picked_at is not None or filters:
                # a class that had an index of its own, even for a moment, is a sequence to torch for ever after
                self._watch = Watch(recorder, self._interceptors)
            if not result.lost:
                n_rows = term.elements.numel() // recorder.batch_size
                has_one_row = term.elements.shape[:1] == (recorder.batch_size,)
                recorder.spec = recorder.spec.with_term(term.key, n_rows=n_rows, has_one_row=has_one_row)
        self._is_one_term = len(parts) == 1 and parts[0][0].edge is not None and parts[0][0].node is loss.grad_fn
        self._is_one_term &= not recorder.spec.differentiates
        self._primary.choose(parts, recorder)
        scaled = [(term, scale(term, slope, recorder)) for term, slope in parts]
        self._scales.append({term.key: factor for term, factor in scaled})
        result.add(scaled, loss, self._constant_of(loss, parts, len(result.roots)))
        if self._weights is not None:
            # with the graph of the coefficients, which may be learned
            own = {turn: w for term, _ in parts for turn, w in turns_of(term, self._weights)}
            for term, slope in coefficients(loss, list(own), again=True):
                change = slope * (term.weighted(own[term]) - term.weighted(None))
                loss = loss + (change - change.detach() if recorder.keeps_value else change)
        return loss

    def _constant_of(self, loss: Tensor, parts: Parts, n: int) -> Tensor | None:
        """Return the constant in the n-th root of a probed step, if a sample's loss holds it too, as in a mean."""
        recorder, constant = self._recorder, self._constant_in(loss, parts)
        others = recorder.spec.with_constant - {n}
        recorder.spec = replace(recorder.spec, with_constant=others if constant is None else others | {n})
        self._constants.append(constant)
        return constant

    def _constant_in(self, loss: Tensor, parts: Parts) -> Tensor | None:
        own = [(term, self._recorder.spec.of(term.key)) for term, _ in parts]
        is_mean = all(not term.is_sum or spec.divisor is not None for term, spec in own)
        if not parts or not is_mean or any(spec.is_nonlinear for _, spec in own):
            return None
        return rest(loss, parts) if has_constant(loss, parts) else None

    def _find_terms(self, loss: Tensor, probe: Probe) -> Parts:
        """Find the terms that the loss of a probed step is made of, and write down the findings."""
        recorder = self._recorder
        met = recorder.spec.with_met(recorder.terms, recorder.layouts, recorder.order)
        recorder.spec = replace(met, differentiates=met.differentiates or probe.differentiates)
        parts, recorder.spec = analyze_loss(loss, recorder.terms, probe, recorder.batch_size, recorder.spec)
        return parts

    def _follow(self, loss: Any, result: StepResult) -> None:
        """Resolve a root by what the probes have found."""
        recorder = self._recorder
        if not isinstance(loss, Tensor):
            return
        n = len(result.roots)
        if recorder.compiled:
            # A compiled graph cannot be asked for what happens inside it.
            self._is_compiled = True
            known, constant = (self._scales[n], self._constants[n]) if n < len(self._scales) else ({}, None)
            result.add([(term, known[term.key]) for term in recorder.terms if term.key in known], loss, constant)
            return
        parts: Parts = []
        self._is_one_term = False
        alone = [term for term in recorder.terms if term.edge is not None and term.edge.node is loss.grad_fn]
        if alone:
            parts = [(alone[0], 1.0)]
            self._is_one_term = not recorder.spec.differentiates and alone[0].key in recorder.spec.terms
        elif loss.requires_grad:
            parts = coefficients(loss, recorder.terms)
        if loops := recorder.spec.loops:
            if words := incomplete(parts, loops, recorder.batch_size):
                warnings.warn(f"{_NOT_MEASURED} {words}", stacklevel=2)
                result.partial = True
            others = [part for part in parts if part[0].key[0] not in loops]
            parts = [*others, *loops_of(parts, loops, recorder.batch_size)]
        constant = None
        if parts and n in recorder.spec.with_constant:
            constant = rest(loss, parts, None if recorder.keeps_value else recorder.weights)
        result.add([(term, scale(term, slope, recorder)) for term, slope in parts], loss, constant)


def _shows_a_loss(term: Term) -> bool:
    """Tell if a step that has computed this, and returns None, has forgotten to return it."""
    return term.value.requires_grad and bool(term.value.isfinite())
