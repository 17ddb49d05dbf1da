"""Notice that a step has changed since it was last probed, or was misread, and have it probed again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.analysis.roots import are_learned
from lightning_dataselect.capture.lineage import Lineage
from lightning_dataselect.capture.loss.refusals import FILTERED
from lightning_dataselect.capture.loss.terms import Key, Parts, Term, turns_in
from lightning_dataselect.capture.reading.results import StepResult
from lightning_dataselect.capture.recording.recorder import Recorder
from lightning_dataselect.capture.reprobe import ReprobePolicy

NOT_MEASURED = "The samples of some batches are not measured."


class Changes:
    """Compare each step with those that were probed; a change calls for probes, and may leave nothing to read.

    Args:
        recorder: Records the steps, and holds the findings about them.
        reprobe: Says when to look.
    """

    def __init__(self, recorder: Recorder, reprobe: ReprobePolicy) -> None:
        self._recorder = recorder
        self._reprobe = reprobe
        self._met: set[Key] = set()  # terms whose coefficients have changed, and nothing shows why
        self.start_over()

    def start_over(self) -> None:
        """Know nothing of what losses are made of."""
        self.lineage = Lineage()
        """Knows what losses have been made of so far."""

    def spoil(self, result: StepResult, batch: Any) -> bool:
        """Tell if a step that was not probed cannot be read as those before it.

        Args:
            result: What it has shown.
            batch: What holds the tensors of its batch; empty where that is not known.
        """
        if self.leaves_out() or self._has_grown() or self._has_other_classes() or result.lost:
            return True
        made_of = _made_of(_terms_in(result))
        return not self.lineage.knows(*made_of, batch) and self.is_unsound(*made_of, batch)

    def leaves_out(self) -> bool:
        """Tell if the step has left samples out before the model saw them, and say so."""
        leaves_out = self._recorder.leaves_out()
        if leaves_out:
            warnings.warn(f"{NOT_MEASURED} {FILTERED}", stacklevel=2)
        return leaves_out

    def is_unsound(self, nodes: Sequence[Node], targets: Tensor | None, batch: Any) -> bool:
        """Tell if a loss is made of what nothing was found in before; have what was never met looked at.

        Args:
            nodes: Those of a step that the lineage does not know (see `Lineage.knows`).
            targets: What its outputs are compared with.
            batch: What holds the tensors of its batch.
        """
        is_unsound = self.lineage.is_unsound(nodes, targets, batch)
        if not is_unsound:
            self._recorder.doubts.note(None)
        self._reprobe.probe_next(self.lineage.n_probes())
        return is_unsound

    def learn(self, result: StepResult, unread: Sequence[Term], batch: Any) -> None:
        """Take note of what a probed step has made its loss of, and if nothing is to be found in steps like it.

        Args:
            result: What it has shown.
            unread: The terms of a loss in which nothing sound was found.
            batch: What holds the tensors of its batch.
        """
        terms = unread or _terms_in(result)
        if terms and not self.lineage.learn(*_made_of(terms), batch, is_sound=not result.lost):
            self._recorder.claims.contradict()

    def has_misread(self, *, wait: bool = True) -> bool:
        """Tell if a step since the last call has shown that earlier ones were misread; the next one is then probed.

        Args:
            wait: False to leave the answer to a later call if getting it would mean waiting for the device.
        """
        if not self._recorder.claims.read(wait=wait):
            return False
        self.settle_claims()
        self._reprobe.probe_next()
        return True

    def settle_claims(self) -> None:
        """Drop the readings that steps have ruled out."""
        if left := self._recorder.claims.left():
            self._recorder.spec = self._recorder.spec.with_left(left)

    def has_doubts(self, *, wait: bool = False) -> bool:
        """Tell if steps since the last call may have been misread, so that the witness should run again.

        Args:
            wait: True to get the answer now, even if that means waiting for the device.
        """
        keys = self._recorder.doubts.read(wait=wait)
        for key in keys:
            if key is None:
                continue
            n_doubts = self._recorder.spec.of(key).n_doubts + 1
            self._recorder.spec = self._recorder.spec.with_term(key, n_doubts=n_doubts, is_even=False)
        return bool(keys)

    def look_at_coefficients(self) -> None:
        """Probe the next step for terms whose coefficients have changed where no sample could show why."""
        changed = self._recorder.doubts.read_changes() - self._met
        if changed:
            self._met |= changed
            self._reprobe.probe_next()

    def unexplained(self, loss: Tensor, parts: Parts) -> list[Term]:
        """Return the terms of a probed step whose coefficients change, and are not learned, for no known reason."""
        changed = [part for part in parts if part[0].key in self._met]
        if not changed:
            return []
        learned = are_learned(loss, changed)
        return [term for (term, _), is_learned in zip(changed, learned, strict=True) if not is_learned]

    def _has_grown(self) -> bool:
        """Probe again once samples have several rows each: a single row of each shows whose it is."""
        has_grown = self._recorder.has_grown()
        if has_grown:
            self._reprobe.probe_next()
        return has_grown

    def _has_other_classes(self) -> bool:
        """Probe again if a loss has another number of classes: they may be the other samples of the batch."""
        has_others = any(map(self._recorder.tells_others_apart, self._recorder.terms))
        if has_others:
            self._reprobe.probe_turns()
        return has_others


def _terms_in(result: StepResult) -> list[Term]:
    """Return the terms of a step, the last one of those of all samples in turn."""
    return [turns_in(term)[-1] for parts in result.roots for term, _ in parts]


def _made_of(terms: Sequence[Term]) -> tuple[list[Node], Tensor | None]:
    """Return where in the graph terms were made from, and what outputs were compared with."""
    nodes = [term.made_from for term in terms if term.made_from is not None]
    return nodes, next((term.targets for term in terms if term.targets is not None), None)
