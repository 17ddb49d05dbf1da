"""Per-sample losses out of any training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dataselect.capture import classes
from lightning_dataselect.capture.errors import CaptureError
from lightning_dataselect.capture.judge import Parts, Scale, coefficients, judge, scales, weigh
from lightning_dataselect.capture.losses import Classes
from lightning_dataselect.capture.outputs import Outputs, find_outputs, shows_outputs
from lightning_dataselect.capture.patch import Interceptors
from lightning_dataselect.capture.probe import Probe, Watch
from lightning_dataselect.capture.recorder import Key, Recorder
from lightning_dataselect.capture.step import described, eagerly, loss_of, with_loss
from lightning_dataselect.capture.ways import Ways


@dataclass(frozen=True)
class Captured:
    """What one batch's samples lost.

    Attributes:
        losses: (B,) float32, without a graph, on the loss's device; NaN where a step took a way
            that no probe had seen, or returned no loss.
        logits: (B, C), without a graph, of a classification loss; else None.
        targets: (B,) int64 class indices, or (B, C) soft ones, that belong to the logits.
        outputs: what `LossCapture.summarize` made of the model's outputs; None where it saw none.
    """

    losses: Tensor
    logits: Tensor | None = None
    targets: Tensor | None = None
    outputs: Tensor | None = None


class LossCapture:
    """Runs training steps, and says what each sample of the batch lost.

    The first step is probed: a mode watches every torch call for what makes the loss. After
    that only those functions are intercepted, and only while a step runs.

    Args:
        module: searched for loss functions that it holds as attributes.

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
        self._interceptors = Interceptors(self._recorder)
        self._watch: Watch | None = None
        self._ways = Ways()
        self._slopes: list[dict[Key, Scale]] = []  # of the last probe, root by root
        self._main: Key | None = None  # the term whose logits count
        self._factors: dict[Key, Scale] = {}  # of the last run
        self._main_outputs: Key | None = None  # the term whose outputs count
        self.summarize: Callable[[Outputs], Tensor | None] | None = None
        """Makes of a batch's outputs what is kept of them; None: they are not looked for."""
        self._begin()

    def _begin(self) -> None:
        self._running = False
        self._weights: Tensor | None = None  # only while a probe runs: it applies them itself
        self._roots: list[Parts] = []
        self._losses: Tensor | None = None
        self._classes: Classes | None = None
        self._outputs: Tensor | None = None
        self._device: torch.device | None = None

    def __reduce__(self) -> tuple[type[LossCapture], tuple[()]]:
        """Copy and pickle as one that has seen nothing yet: the rest is bound to this process."""
        return LossCapture, ()

    def run(self, step: Callable[[], Any], batch_size: int, weights: Tensor | None = None) -> tuple[Any, Captured]:
        """Run a step once.

        Args:
            step: calls the training step on its batch.
            batch_size: the number of samples in the batch, B.
            weights: (B,) float, on the loss's device: the loss becomes the sum of each sample's
                contribution times its weight, in value and in gradient.

        Returns:
            What the step returned, and what its samples lost.

        Raises:
            CaptureError: the first step shows no sound per-sample loss.
        """
        if weights is not None and weights.shape != (batch_size,):
            raise ValueError(
                f"weights has the shape {tuple(weights.shape)}; one weight for each of the "
                f"batch's {batch_size} samples is needed."
            )
        probing = self._ways.probes > 0
        self._recorder.start(batch_size, None if probing else weights)
        self._recorder.keeps_calls = self.summarize is not None
        self._running = True
        try:
            if probing:
                self._weights = weights
                out = self._probe(step)
            else:
                with self._interceptors.losses, self._watch or self._interceptors.reductions:
                    out = step()
                if not self._roots:
                    self._follow(loss_of(out))
                if self._roots:
                    self._ways.check(self._way())
            if self._losses is None:
                lost = torch.full((batch_size,), torch.nan, device=self._device)
                return out, Captured(lost)
            return out, Captured(self._losses, *_both(self._classes), self._outputs)
        finally:
            self._begin()
            self._recorder.stop()

    def score(self, step: Callable[[], Any], batch_size: int) -> Captured:
        """Run a step without a graph, for its samples' losses alone.

        The terms of the loss enter with the coefficients that they had in the last `run`.

        Args:
            step: calls the training step on its batch.
            batch_size: the number of samples in the batch, B.

        Returns:
            What the samples lost: what `run` would have said.

        Raises:
            CaptureError: nothing has been run yet, or this step computes other losses than the
                last one run.

        Example:
            >>> model, x = nn.Linear(1, 1), torch.ones(6, 1)
            >>> def step(x):
            ...     return model(x).square().mean()
            >>> capture = LossCapture()
            >>> _ = capture.run(lambda: step(x[:2]), batch_size=2)
            >>> capture.score(lambda: step(x), batch_size=6).losses.shape
            torch.Size([6])
        """
        if not self.knows_the_step:
            raise CaptureError("score() was called before any step was run under capture.")
        interceptors = self._interceptors
        self._recorder.start(batch_size, scoring=True)
        self._recorder.keeps_calls = self.summarize is not None
        try:
            with torch.no_grad(), interceptors.losses, self._watch or interceptors.reductions:
                step()
                terms = {term.key: term for term in self._recorder.terms}
                missing = len(self._factors.keys() - terms.keys())
                if missing:
                    raise CaptureError(
                        f"{missing} of the {len(self._factors)} terms of the last step's loss "
                        "were not computed in the scoring pass."
                    )
                parts = [(terms[key], factor) for key, factor in self._factors.items()]
                found = classes.of_terms(parts, batch_size, self._main)
                found = found or classes.of_sources(self._recorder.sources, batch_size, None)
                outputs = self._summary(parts)
                return Captured(weigh(parts, batch_size), *_both(found), outputs)
        finally:
            self._recorder.stop()

    @property
    def knows_the_step(self) -> bool:
        """Whether `score` can be called: a step was run, and its terms are known."""
        return bool(self._factors)

    def root(self, loss: Tensor) -> Tensor:
        """Take a loss that is back-propagated inside the step (manual optimization).

        To be called before each backward. What a sample loses in a step is the sum over its
        roots; what the step returns is then no root.

        Args:
            loss: 0-dim, with its graph.

        Returns:
            The loss to back-propagate: the same one, or, where a probed step has weights, the
            weighted one.
        """
        if not self._running:
            return loss
        if self._recorder.observer is not None:
            return self._judge(loss)
        self._follow(loss)
        return loss

    def probe_next(self) -> None:
        """Look at everything anew in the next step, as where the step may have changed."""
        self._ways.probe_next()

    def _probe(self, step: Callable[[], Any]) -> Any:
        """Run a step under watch, and learn how to do without."""
        probe = Probe(self._recorder, self._interceptors, self._module)
        self._recorder.observer = probe
        self._slopes = []
        try:
            with eagerly(), self._interceptors.losses, probe:
                out = step()
            if not self._roots:
                loss = loss_of(out)
                if isinstance(loss, Tensor):
                    out = with_loss(out, self._judge(loss))
                elif not self._ways.known:
                    raise CaptureError(f"The step returned no loss, but {described(out)}, and back-propagated none.")
        finally:
            self._recorder.observer = None
        for space, name in probe.names:
            self._interceptors.add_name(space, name)
        if any(key in self._factors for key in probe.unreachable):
            self._watch = Watch(self._recorder, self._interceptors)
        if not self._ways.settle(self._way()):
            if self._watch is not None:
                raise CaptureError("The loss is computed where only a probed step shows it.")
            self._watch = Watch(self._recorder, self._interceptors)
        return out

    def _judge(self, loss: Tensor) -> Tensor:
        """Resolve a root of a probed step."""
        recorder = self._recorder
        probe = recorder.observer
        assert isinstance(probe, Probe)
        recorder.busy = True
        parts, verdicts = judge(loss, recorder.terms, probe.anchors(), recorder.batch_size)
        for key, verdict in verdicts.items():
            recorder.verdicts[key] = recorder.verdicts.get(key) or verdict
        for term, _ in parts:
            if term.by_hand:
                self._interceptors.add_site(probe.sites[term.key[0]], term.key[0])
            if term.strided:
                recorder.strided.add(term.key)
        self._slopes.append({term.key: slope for term, slope in parts})
        having = [(abs(float(c)), t.key) for t, c in parts if t.classes is not None]
        if having and self._main is None:
            self._main = max(having, key=lambda pair: pair[0])[1]
        showing = {key for key, name, arguments in recorder.calls if shows_outputs(name, arguments)}
        showing_parts = [(abs(float(c)), t.key) for t, c in parts if t.key in showing]
        if showing_parts and self._main_outputs is None:
            self._main_outputs = max(showing_parts, key=lambda pair: pair[0])[1]
        weights, weighted = self._weights, loss
        if weights is not None:
            for term, slope in parts:
                weighted = weighted + slope * (term.weighted(weights) - term.value)
        self._add(parts, loss)
        return weighted

    def _follow(self, loss: Any) -> None:
        """Resolve a root by what the probes have found."""
        recorder = self._recorder
        if not isinstance(loss, Tensor):
            return
        recorder.busy = True
        parts: Parts = []
        alone = [term for term in recorder.terms if term.value is loss]
        if recorder.compiled:
            # A compiled graph cannot be asked for what happens inside it.
            n = len(self._roots)
            known = self._slopes[n] if n < len(self._slopes) else {}
            parts = [(term, known[term.key]) for term in recorder.terms if term.key in known]
        elif alone:
            parts = [(alone[0], 1.0)]
        elif loss.requires_grad:
            parts = coefficients(loss, recorder.terms)
        self._add(parts, loss)

    def _add(self, parts: Parts, loss: Tensor) -> None:
        """Add one root's share to what the samples lose."""
        recorder, size = self._recorder, self._recorder.batch_size
        if not self._roots:
            self._factors = {}
        self._roots.append(parts)
        self._device = loss.device
        if parts:
            factors = scales(parts, size)
            scaled = [(term, k) for (term, _), k in zip(parts, factors, strict=True)]
            for term, scale in scaled:
                known = self._factors.get(term.key)
                self._factors[term.key] = scale if known is None else known + scale
            losses = weigh(scaled, size)
            self._losses = losses if self._losses is None else self._losses + losses
            if self._classes is None:
                self._classes = classes.of_terms(parts, size, self._main) or classes.of_sources(
                    recorder.sources, size, None if recorder.compiled else loss
                )
            if self._outputs is None:
                self._outputs = self._summary(parts)
        recorder.busy = False

    def _summary(self, parts: Parts) -> Tensor | None:
        """What is kept of the outputs that the step has shown so far."""
        if self.summarize is None:
            return None
        recorder = self._recorder
        keys = sorted((term.key for term, _ in parts), key=lambda key: key != self._main_outputs)
        outputs = find_outputs(recorder.calls, keys, recorder.batch_size, recorder.strided)
        return None if outputs is None else self.summarize(outputs)

    def _way(self) -> frozenset[Key]:
        return frozenset(term.key for parts in self._roots for term, _ in parts)


def _both(found: Classes | None) -> tuple[Tensor | None, Tensor | None]:
    return found or (None, None)
