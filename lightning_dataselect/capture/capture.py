"""Per-sample losses out of any training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dataselect.capture.following import follow
from lightning_dataselect.capture.inquiry import Inquiry
from lightning_dataselect.capture.loss.arguments import check_module, check_step, wrong_weights
from lightning_dataselect.capture.loss.graph import saving_numbers_only
from lightning_dataselect.capture.loss.specs import StepSpec, TermSpec
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.reading.results import Captured, StepResult, Summarize, nothing_known
from lightning_dataselect.capture.reading.returned import loss_of
from lightning_dataselect.capture.reading.scaling import scale
from lightning_dataselect.capture.recording.interception import Interceptors, bypassing
from lightning_dataselect.capture.recording.sole_loss import findings_on_sole_loss
from lightning_dataselect.capture.testimony import Testimony
from lightning_dataselect.utils.validation import check_count

_NO_SOLE_LOSS: tuple[StepSpec | None, TermSpec | None] = (None, None)


class LossCapture:
    """Run training steps and return the loss of each sample in the batch.

    A sample's loss is what the step would return for a batch that contains it alone, with the user's own weights. So:

    - Class weights count. A sample of a class with weight ``w`` has the loss ``w * l``, with ``F.cross_entropy(...,
      weight=...)`` as well as with a hand-written ``(w[y] * losses).mean()``, although torch's own mean divides by the
      weights and would return ``l`` for a batch of one.
    - A sample's tokens are averaged over that sample. A mean over all tokens of a batch gives long texts more weight
      than short ones; the per-sample losses are means over each text's own tokens, so their plain mean is not the
      batch's loss. If the loss is a sum over the batch that nothing divides, a sample's loss is the sum over its own
      elements.
    - Coefficients keep the value that they have for the whole batch: the share that mixup draws, a learned weight, a
      weight computed from the batch. The same goes for layers that normalise over the batch.

    On the first step a torch mode watches every call to find what the loss is made of. After that only those functions
    are intercepted, and only while a step runs.

    Args:
        module: Searched for loss functions that it holds as attributes.
        interceptors: What it shares with others that read the same steps, see `SharedSteps`; None for none.

    Example:
        >>> model, x, y = nn.Linear(3, 2), torch.ones(4, 3), torch.tensor([0, 1, 1, 0])
        >>> capture = LossCapture(model)
        >>> def step():
        ...     return nn.functional.cross_entropy(model(x), y)
        >>> loss, captured = capture.run(step, batch_size=4)
        >>> captured.losses.shape, torch.allclose(captured.losses.mean(), loss)
        (torch.Size([4]), True)
    """

    def __init__(self, module: nn.Module | None = None, interceptors: Interceptors | None = None) -> None:
        self._inquiry = inquiry = Inquiry(check_module(module), interceptors)
        self._may_probe = interceptors is None
        self._recorder, self._interceptors = inquiry.recorder, inquiry.interceptors
        self.doubts = self._recorder.doubts
        """The terms that recent steps have left in doubt (see `has_doubts`)."""
        # kept unwrapped: a short step would notice one more call
        self.will_probe, self.forget, self.resume = inquiry.will_probe, inquiry.forget, inquiry.resume
        self.has_misread, self.has_doubts = inquiry.changes.has_misread, inquiry.changes.has_doubts
        self.meet_size = inquiry.meet_size
        self.settle, self.look_again = inquiry.settle, inquiry.look_again
        self.probe_next, self.start_epoch = inquiry.probe_next, inquiry.start_epoch
        self.testimony = Testimony(inquiry)
        """Takes what the step shows of some samples, to settle how its loss is read."""
        self._result: StepResult | None = None  # while a step runs
        self._sole = _NO_SOLE_LOSS
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
    def batch_tensors(self) -> Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]] | None:
        """Function that returns the tensors of the measured samples, and a batch's other ones; None: there are none."""
        return self._inquiry.batch_tensors

    @batch_tensors.setter
    def batch_tensors(self, tensors: Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]] | None) -> None:
        self._inquiry.batch_tensors = tensors

    @property
    def watches_calls(self) -> bool:
        """True if a mode watches every call of a step, as nothing else meets what its loss is made of."""
        return self._inquiry.watch is not None

    def __reduce__(self) -> tuple[type[LossCapture], tuple[()]]:
        """Copy and pickle as one that has seen nothing yet: the rest is bound to this process."""
        return LossCapture, ()

    def run(
        self, step: Callable[[], Any], batch_size: int, weights: Tensor | None = None, batch: Any = ()
    ) -> tuple[Any, Captured]:
        """Run a step once.

        Args:
            step: Calls the training step on its batch.
            batch_size: The number of samples in the batch, B.
            weights: (B,) float, on the loss's device: the loss becomes the sum of each sample's
                contribution times its weight, in value and in gradient.
            batch: What holds the tensors of the batch, in which its targets are looked for. Default: not known.

        Returns:
            What the step returned, and the loss of each sample.

        Raises:
            CaptureError: the first step shows no sound per-sample loss.
        """
        if batch_size.__class__ is not int or batch_size < 0:  # checked inline: a short step would notice a call
            batch_size = check_count("batch_size", batch_size)
        if weights is not None and getattr(weights, "shape", None) != (batch_size,):
            raise wrong_weights(weights, batch_size)
        self._inquiry.meet_size(batch_size)
        probing, changes = self._may_probe and self._inquiry.reprobe.probes > 0, self._inquiry.changes
        is_short = not probing and weights is None and self.summarize is None and self._sole[0] is self._recorder.spec
        self._recorder.start(batch_size, None if probing else weights, sole_spec=self._sole[1] if is_short else None)
        self._recorder.keeps_calls = self.summarize is not None
        self._result = result = StepResult(self._recorder, self._inquiry.primary, self.summarize)
        try:
            if probing:
                check_step(step)
                self._sole = _NO_SOLE_LOSS
                out = self._inquiry.probe(step, result, weights, batch)
            else:
                with self._interceptors.losses, self._inquiry.watch or self._interceptors.reductions:
                    out = step()
                if not result.roots:
                    loss = loss_of(out)
                    if (sole := self._recorder.sole_loss(loss)) is not None:
                        nodes = () if sole.made_from is None else (sole.made_from,)
                        made_of = nodes, sole.bound.get("target"), batch
                        if not changes.lineage.knows(*made_of) and changes.is_unsound(*made_of):
                            return out, nothing_known(batch_size, loss.device)
                        return out, Captured(*sole.shown(), is_own=True)
                    follow(loss, result, self._inquiry)
                if result.roots:
                    result.lost = result.partial or not self._inquiry.reprobe.check(result.way, result.unknown)
                    result.lost = changes.spoil(result, batch)
                    if self.doubts.changed:
                        changes.look_at_coefficients()
                    self._look_for_sole_loss(result)
            return out, result.captured()
        finally:
            self._result = None
            self._recorder.stop()

    def probe(self, step: Callable[[], Any], batch_size: int, batch: Any = ()) -> Captured:
        """Probe a step that is run for this alone, as others read the same steps (see `SharedSteps`).

        Args:
            step: Calls the training step on its batch, without learning from it.
            batch_size: The number of samples in the batch, B.
            batch: As in `run`.

        Returns:
            The losses of the samples.

        Raises:
            CaptureError: the step shows no sound per-sample loss.
        """
        self._may_probe = True
        try:
            return self.run(step, batch_size, batch=batch)[1]
        finally:
            self._may_probe = False

    @property
    def own_terms(self) -> frozenset[Key]:
        """The terms that are known to be those of its samples."""
        return self._recorder.spec.own

    def score(self, step: Callable[[], Any], batch_size: int, batch: Any = ()) -> Captured:
        """Run a step for its samples' losses alone, without what a backward pass would need.

        No graph is built if the loss is a single mean or sum over the batch, exactly as its function returned it.
        Otherwise a graph is built, so that terms enter with the coefficients of this very pass, but it keeps nothing
        larger than a few numbers. A step that takes derivatives itself, or weights outputs after a mean over the
        samples, gets a complete graph, and so does a step that is probed.

        Args:
            step: Calls the training step on its batch.
            batch_size: The number of samples in the batch, B.
            batch: As in `run`.

        Returns:
            The losses of the samples, as `run` would return them.

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
        if batch_size.__class__ is not int or batch_size < 0:
            batch_size = check_count("batch_size", batch_size)
        self._inquiry.meet_size(batch_size)
        if self._inquiry.reprobe.probes == 0 and self._inquiry.is_one_term:
            captured = self._score_one_term(step, batch_size, batch)
            if captured is not None and (captured.known or self._inquiry.reprobe.probes == 0):
                return captured
        with torch.enable_grad():
            if self._inquiry.reprobe.probes == 0:
                whole = self._recorder.spec.differentiates or self._recorder.spec.has_folded
                with contextlib.nullcontext() if whole else saving_numbers_only():
                    captured = self.run(step, batch_size, batch=batch)[1]
                if captured.known or self._inquiry.reprobe.probes == 0:
                    return captured
            return self.run(step, batch_size, batch=batch)[1]

    def _score_one_term(self, step: Callable[[], Any], batch_size: int, batch: Any) -> Captured | None:
        """Run a step without a graph; None if its loss is not the very value of a term this time."""
        recorder, interceptors = self._recorder, self._interceptors
        recorder.start(batch_size, scoring=True)
        recorder.keeps_calls = self.summarize is not None
        result = StepResult(recorder, self._inquiry.primary, self.summarize, unknown=None)
        try:
            with torch.no_grad(), interceptors.losses, self._inquiry.watch or interceptors.reductions:
                loss = loss_of(step())
            own = [term for term in recorder.terms if term.value is loss]
            if not own or len(recorder.sources) > 1 or recorder.compiled:
                self._inquiry.is_one_term = False
                return None
            result.add([(own[0], scale(own[0], 1.0, recorder))], loss)
            result.lost = self._inquiry.changes.spoil(result, batch)
            return result.captured()
        finally:
            recorder.stop()

    def register_backward_loss(self, loss: Tensor) -> Tensor:
        """Take a loss that is back-propagated inside the step (manual optimization).

        To be called before each backward pass. A sample's loss is then the sum over all losses registered in the step,
        and the value that the step returns does not count.

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
                return self._inquiry.analyze(loss, self._result)
            follow(loss, self._result, self._inquiry)
        return loss

    def bypass(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that it sees torch's own means and sums, even inside a step.

        For a function that compares its arguments with them, as Lightning's ``log`` does with ``reduce_fx``.
        """
        return bypassing(self._interceptors, function)

    def _look_for_sole_loss(self, result: StepResult) -> None:
        """Find out, after a step that was read in full, whether later ones can be read the short way."""
        recorder, inquiry = self._recorder, self._inquiry
        is_simple = inquiry.is_one_term and inquiry.watch is None and not recorder.sources and result.unknown == ((),)
        known = findings_on_sole_loss(result.roots, recorder.terms, recorder.spec) if is_simple else None
        self._sole = _NO_SOLE_LOSS if result.lost or known is None else (recorder.spec, known)
