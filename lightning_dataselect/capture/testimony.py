"""Hear what single samples show of a step, and keep it among the findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_dataselect.capture.inquiry import Inquiry
from lightning_dataselect.capture.loss.refusals import BRANCH, JUDGED
from lightning_dataselect.capture.loss.shown import Answers, Shown
from lightning_dataselect.capture.loss.specs import StepSpec
from lightning_dataselect.capture.loss.terms import Key
from lightning_dataselect.capture.witness.beside import refuse_additions, refuse_beside, unexplained
from lightning_dataselect.capture.witness.in_turn import several_of_each
from lightning_dataselect.capture.witness.mined import refuse_fallback, refuse_mined
from lightning_dataselect.capture.witness.mixed import refuse_mixed
from lightning_dataselect.capture.witness.showing import show
from lightning_dataselect.capture.witness.ways import Led, misled_at, open_at
from lightning_dataselect.capture.witness.witness import decide, warn_of_own_constants


class Testimony:
    """Take what a step shows of some samples, and of each of them alone.

    Args:
        inquiry: Holds the findings, and probes for it.
    """

    def __init__(self, inquiry: Inquiry) -> None:
        self._inquiry, self._recorder = inquiry, inquiry.recorder

    @property
    def findings(self) -> StepSpec:
        """The findings about the steps so far."""
        return self._recorder.spec

    @findings.setter
    def findings(self, findings: StepSpec) -> None:
        self._recorder.spec = findings

    @property
    def remembers(self) -> bool:
        """True if single samples have left nothing open about a step, which could be recognized."""
        return self._inquiry.recall.holds_any

    def show(
        self,
        step: Callable[[], Any],
        batch_size: int,
        *,
        picks_nothing: bool = False,
        stand_ins: Answers | None = None,
        as_known: bool = False,
        with_slopes: bool = False,
    ) -> Shown:
        """Run a step to compare its terms with those of other batches, and learn nothing from it (see `show`).

        Args:
            step: Calls the training step on some samples.
            batch_size: Their number.
            picks_nothing: True if masks that are computed from the model's outputs are to pick no rows.
            stand_ins: What to tell the step in place of what tensors hold, by the places where it asks.
            as_known: True to read its loss by what was found of other steps.
            with_slopes: True to differentiate its terms by what the model gave to them.
        """
        probe = self._inquiry.new_probe(stand_ins)
        probe.picks_nothing = picks_nothing
        how = {"as_known": as_known, "with_slopes": with_slopes}
        return show(step, batch_size, probe, self._recorder, self._inquiry.interceptors, **how)

    def tell_turns(self, whole: Shown, singles: Sequence[Shown]) -> bool:
        """Find out which places a loop over the samples passes several times for each of them.

        Returns:
            True if that is new, so that the step is to be shown again.
        """
        found = several_of_each(whole, singles)
        if found:
            self._recorder.spec = replace(self._recorder.spec, n_each={**self._recorder.spec.n_each, **found})
        return bool(found)

    def decide(self, whole: Shown, singles: Sequence[Shown]) -> bool:
        """Settle how the terms of later steps are read, by the losses of single samples (see `witness.decide`).

        Returns:
            False if other samples might tell more.
        """
        self._inquiry.meet_size(whole.size)
        self._inquiry.changes.settle_claims()
        before = self._recorder.spec
        self._recorder.spec, is_settled = decide(whole, singles, before)
        if any(term.picked_at != before.of(key).picked_at for key, term in self._recorder.spec.terms.items()):
            self._inquiry.probe_next()  # no step is watched for what it picks before
        warn_of_own_constants(whole, singles)
        return is_settled

    def refuse_ways(self, batch: Shown, singles: Mapping[int, Shown], led: Led) -> bool:
        """Refuse a step that decides by the whole batch what samples lose (see `ways.misled_at`); tell if it does."""
        self._inquiry.knows_ways = True
        refusals = self._recorder.spec.refusals()
        place = None if JUDGED in refusals else misled_at(batch, singles, led, is_refused=bool(refusals))
        if place is not None:
            self._recorder.spec = replace(self._recorder.spec, refusal=BRANCH.format(place[2], place[0]))
        return place is not None

    def warn_of_ways(self, whole: Shown, singles: Mapping[int, Shown], led: Led) -> None:
        """Name the places where a step decides by its loss, alike for all samples so far (see `ways.open_at`)."""
        self._inquiry.name_places(open_at(whole, singles, led))

    def refuse_mined(self, batch: Shown, positions: Sequence[int], singles: Sequence[Shown]) -> None:
        """Refuse a loss that leaves samples out by the model's outputs (see `mined.refuse_mined`)."""
        self._recorder.spec = refuse_mined(batch, positions, singles, self._recorder.spec)

    def refuse_fallback(self, one: Shown, emptied: Shown) -> None:
        """Refuse a loss that takes other rows where outputs pick too few (see `mined.refuse_fallback`)."""
        self._recorder.spec = refuse_fallback(one, emptied, self._recorder.spec)

    def refuse_mixed(self, whole: Shown, turned: Shown, singles: Sequence[Shown]) -> None:
        """Refuse a model that mixes samples (see `mixed.refuse_mixed`)."""
        self._recorder.spec = refuse_mixed(whole, turned, singles, self._recorder.spec)

    def unexplained(self, whole: Shown, alone: Mapping[int, Shown]) -> list[Key]:
        """Return the terms that samples have other rows of alone, for no reason so far (see `beside.unexplained`)."""
        return unexplained(whole, alone, self._recorder.spec)

    def refuse_beside(
        self, keys: Sequence[Key], whole: Shown, fewer: Sequence[tuple[Sequence[int], Shown]], *, draws: bool
    ) -> None:
        """Refuse terms that depend on the other samples (see `beside.refuse_beside`)."""
        self._recorder.spec = refuse_beside(keys, whole, fewer, self._recorder.spec, draws=draws)

    def refuse_additions(self, whole: Shown, alone: Mapping[int, Shown]) -> None:
        """Refuse terms that samples have among others only (see `beside.refuse_additions`)."""
        self._recorder.spec = refuse_additions(whole, alone, self._recorder.spec)

    def remember(self, whole: Shown, singles: Sequence[Shown], *, is_settled: bool) -> None:
        """Remember what single samples have left nothing open about (see `Recall.learn`)."""
        self._inquiry.recall.learn(whole, singles, self._recorder.spec, is_settled=is_settled)

    def recognizes(self, whole: Shown, pair: Shown) -> bool:
        """Tell if samples show that nothing has changed since (see `Recall.recognizes`)."""
        return self._inquiry.recall.recognizes(whole, pair)
