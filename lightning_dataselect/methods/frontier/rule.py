"""The rule of Frontier: from the evidence when a pass begins, the kinds of samples that the pass leaves out.

Pure functions on tensors; `methods/frontier/callback.py` calls them.

The baseline that is hard to beat is training on everything for fewer epochs. Frontier does just that, walking through
the shuffled set in epochs of ``budget`` times its size, until losses show that samples can be left out of a pass:

- ``m_i`` is the moving average, of weight 1/2, of the losses of sample i; ``l_i`` is its last loss and ``p_i`` the one
  before; ``L`` is the mean loss of the untrained model, measured on the first three batches. Class weights are divided
  out of all of them, so that a class of low weight is not taken for a learnt one. They are estimated from the losses of
  the first batches, divided by the cross entropies of the same samples.
- *Learnt* samples, those with ``m_i < 0.25 L``, are left out once they are 20 % or more of the set. Where a class is so
  frequent that predicting it always does better than the untrained model, ``-log`` of its share takes the place of
  ``L``: otherwise most of a set with one rare class would count as learnt before anything is. The 20 % count after two
  passes over everything, when a model that only memorizes has not got that far, unless samples are held out for the
  early stop, whose losses will soon say more. They count later only if the model does not *memorize*, which a trial
  tests: every second pass holds back a random tenth of the samples, and the next one compares its mean loss with that
  of another tenth, which was trained on in both. Both means are corrected for what the samples lost before (analysis of
  covariance), since samples differ by far more than one visit changes. The ratio ``r`` of the two means must be below
  1.25 by two standard errors; or losses must just have fallen on held-out samples by more than a quarter of what they
  did on others. The effects of visits add up: once the sum of ``r - 1`` over the passes is above 1/4 by two standard
  errors, or losses fall on held-out samples by less than half of that, learnt samples stay in for good, as a small loss
  then says little.
- After two, three and four passes Frontier asks whether high losses come from wrong labels. Losses of hard samples
  fall from pass to pass; those of wrong labels stay above the loss of a model that knows nothing. So samples with
  ``p_i > L`` must be 3 % or more of all, 60 % of these must still have ``l_i > L``, and half of all samples must be
  below ``L / 2`` to contradict them. A half and 30 % will do where high losses also form a cluster, that is where the
  histogram of ``l_i / L`` has a *second mode* above 1 that is denser than the valley before it by 10 % and by three
  standard errors. Then samples with both ``p_i > L`` and ``l_i > L`` are left out. Without one, and unless the model
  probably memorizes, they stay in until a fourth pass has shown more, if two passes were not enough: of what is left
  out the losses stay as they are, and hide a second mode. Where fewer than 10 % of all samples are above L, many of
  those are only hard, and 1.5 L takes the place of L. A class with most of its samples above L is not learnt yet, and
  its samples do not count.
- Where classes *overlap*, losses look the same: the one buyer among ten similar customers is no error. A model that
  does not memorize takes no harm from such labels, and becomes overconfident without them. So where losses stay above L
  but form no cluster, the model must be found to memorize, by one standard error of the sum of ``r - 1``, for these
  samples to be left out from the fifth pass on; a budget with room for fewer than six passes leaves none of them out.
- While 7.5 % of all samples stay above L, learnt samples stay in, unless a second mode or memorizing has confirmed that
  the others are contradicted. Without the learnt ones, labels that may be wrong would be a larger share of the pass;
  and where classes overlap, which of several similar samples is learnt depends on the luck of its label.
- All this applies to classification alone. A small squared error still has a gradient that counts, and one that stays
  above that of an untrained model may belong to the tail of the targets, which the mean needs. So where the first three
  batches show no class logits, losses are no longer read, and each step runs as it would without a callback. They are
  no longer read either once the model memorizes and no label is suspected: nothing is left out after that.
- Nine in ten of the learnt samples are left out, drawn anew for each pass; the tenth keeps the measurements fresh.
  Fewer are left out of a class with a *rival*: of all samples that the model assigns to the class, those with that
  label must remain at least three times as many as those with any other single label. Where three in ten boots are
  labelled as bags, a pass without the learnt boots would teach that boots are bags.
- Contradicted samples are all left out, except those of the current trial, which are seen whatever their losses. Where
  the model memorizes, a sample that was found contradicted stays so: its loss falls even if it is only seen now and
  then.
- Where further passes would only *memorize*, the fit ends early. 2 % of the samples (200 at least, or none where that
  is more than 5 %, and 5,000 at most) are held out from the second epoch on. After two passes, three, four, and then
  ever more seldom, their losses are measured without training, beside those of as many others, the control; both in
  eval mode and at the same moment, so that a spike in one shows in the other. If the loss of the control has fallen by
  5 % or more while that of the held-out samples has risen from its lowest, both by 2.5 standard errors, and by a tenth
  of that fall or more, then the fit takes another pass and a half, or a quarter of the passes done if that is more, and
  schedules go through the rest of their way in these. Where labels are suspected to be wrong, it is enough that the
  held-out loss has fallen by less than 0.15 of what the control's has, by two standard errors. Held-out samples come
  back as soon as losses have fallen on them by more than a quarter of that, after three passes at the earliest, or when
  0.6 of the budget is spent.

The compute that is saved goes to the other samples: every epoch trains on the same number of samples, so the passes
become shorter, and the whole fit costs as much as training on everything for ``budget`` times the epochs. On a stream,
whose samples are known by their keys, an epoch is a pass, and what a pass saves pays for further ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_dataselect.methods.frontier.evidence import ERRORS, MANY_ABOVE, Evidence
from lightning_dataselect.methods.frontier.held_out import HeldOut
from lightning_dataselect.methods.frontier.trial import TRIAL_PASSES

_LEARNT_SHARE = 0.2
_MEMORIZED = 0.25
FIRST_DECISION = 2  # passes done
_JUDGED_AFTER = (2, 3, 4)  # passes done
_WAITS_AFTER = 3  # passes done
_PASSES_TO_CHECK = 6  # that a fit must have room for
_ABOVE_SHARE = 0.03
_LEVEL_OF_FEW = 1.5  # in L


@dataclass(frozen=True)
class Decision:
    """The kinds of samples that a pass leaves out, and why.

    Attributes:
        passes: Passes over the set that were done when the pass began.
        learnt: True if learnt samples are left out.
        contradicted: True if contradicted samples are left out.
        memory: By how much the passes so far have lowered the losses of what was trained on in them, and of nothing
            else: the sum of ``r - 1`` over all passes, each taken for that of its trial.
        memory_error: Its standard error.
        memorizes: True if that was above 1/4, measurably, or if losses of held-out samples had hardly fallen.
        suspected: True once losses were such as wrong labels have.
        gathered: True if they were at a second mode then, with a gap before them.
        level: What the losses of contradicted samples are above, in L.
        evidence: What the losses showed.
        epoch: 0-based epoch that the pass begins in.
        n_left_out: Samples that the pass leaves out, but for those of a trial.
        n_contradicted: Of these, the contradicted ones.
        held_out: The last measurement of held-out samples by then, or None.
    """

    passes: int
    learnt: bool
    contradicted: bool
    evidence: Evidence
    memory: float = 0.0
    memory_error: float = 0.0
    memorizes: bool = False
    suspected: bool = False
    gathered: bool = False
    level: float = 1.0
    epoch: int = 0
    n_left_out: int = 0
    n_contradicted: int = 0
    held_out: HeldOut | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """Make the decision that ``dataclasses.asdict`` has taken apart."""
        held_out = values["held_out"] and HeldOut(**values["held_out"])
        return cls(**{**values, "evidence": Evidence(**values["evidence"]), "held_out": held_out})

    @property
    def suspects_many(self) -> bool:
        """True if a tenth of all losses or more was such as wrong labels have."""
        return self.suspected and self.level < _LEVEL_OF_FEW

    @property
    def is_final(self) -> bool:
        """True if nothing will be left out after it: the model memorizes, and no label was suspected in time."""
        return self.passes >= _JUDGED_AFTER[-1] and self.memorizes and not self.suspected


def decide(
    passes: int,
    evidence: Evidence,
    *,
    before: Decision | None,
    planned_passes: float = math.inf,
    held_out: HeldOut | None = None,
    holds_out: bool = False,
) -> Decision:
    """Decide whether learnt and contradicted samples are left out of a pass.

    High losses are judged after two to four passes, which training has hardly biased yet. Where fewer than 10 % are
    above L, many of them are only hard, and those above 1.5 L are taken. What gathers at a second mode stays
    contradicted. What only stays above L does so from the fifth pass on if the model probably memorizes, which would
    learn wrong labels by heart; and unless it does, three passes are no time to begin with it, as a second mode may
    show yet. If it does not, classes overlap, and a loss says little of a label there, high or low: while many losses
    stay above L and nothing confirms them, learnt samples stay in. These are asked for before every pass, until they
    are enough or the model is found to memorize.

    Args:
        passes: Passes over the set that are done.
        evidence: What the losses show.
        before: The decision on the pass before, or None.
        planned_passes: Passes over everything that the budget has room for: with fewer than six there is none to check
            whether the model memorizes.
        held_out: The last measurement of held-out samples, or None.
        holds_out: Whether samples are held out, so that their losses will soon tell whether the model memorizes.

    Example:
        >>> shown = Evidence(2.3, learnt_share=0.3, low_share=0.5, above_share=0.2, persistence=0.9, rise=1.4)
        >>> made = decide(2, shown, before=None)
        >>> made.learnt, made.contradicted
        (True, True)
    """
    memory, memory_error = (0.0, 0.0) if before is None else (before.memory, before.memory_error)
    if evidence.held_back_ratio is not None and evidence.held_back_error is not None:
        memory += TRIAL_PASSES * (evidence.held_back_ratio - 1)
        memory_error = math.hypot(memory_error, TRIAL_PASSES * evidence.held_back_error)
    memorizes = memory - ERRORS * memory_error > _MEMORIZED or (before is not None and before.memorizes)
    memorizes = memorizes or (held_out is not None and held_out.memorizes)
    suspected, gathered, level = (
        (False, False, 1.0) if before is None else (before.suspected, before.gathered, before.level)
    )
    can_check = evidence.has_second_mode or planned_passes >= _PASSES_TO_CHECK
    judges = passes in _JUDGED_AFTER and evidence.above_share >= _ABOVE_SHARE and can_check
    probably_memorizes = memorizes or memory - memory_error > _MEMORIZED
    # what is left out keeps its last loss, so a second mode could not show any more: wait for it after three passes
    waits = passes == _WAITS_AFTER and not (suspected or evidence.has_second_mode or probably_memorizes)
    if judges and not waits and not gathered and evidence.contradicts:
        if not suspected and evidence.above_share < MANY_ABOVE:
            level = _LEVEL_OF_FEW
        suspected, gathered = True, evidence.has_second_mode
    confirmed = gathered or probably_memorizes
    learnt = before is not None and before.learnt
    if evidence.learnt_share >= _LEARNT_SHARE:
        is_measured_anew = before is None or held_out != before.held_out
        generalizes = evidence.generalizes or (held_out is not None and held_out.generalizes and is_measured_anew)
        learnt = learnt or generalizes or (passes == FIRST_DECISION and not holds_out)
    may_be_wrong = evidence.many_stay_above and not (suspected and confirmed)
    return Decision(
        passes,
        learnt=learnt and not memorizes and not may_be_wrong,
        contradicted=suspected and (confirmed or passes <= _JUDGED_AFTER[-1]),
        evidence=evidence,
        memory=memory,
        memory_error=memory_error,
        memorizes=memorizes,
        suspected=suspected,
        gathered=gathered,
        level=level,
        held_out=held_out,
    )
