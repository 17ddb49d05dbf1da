"""The beginning of a pass: what it leaves out, whether samples are known by an index or, on a stream, by a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_dataselect.methods.frontier.classes import class_priors, class_weights, mean_of_known, without_weights
from lightning_dataselect.methods.frontier.evidence import in_learnt_classes, weigh_evidence
from lightning_dataselect.methods.frontier.held_out import HeldOut
from lightning_dataselect.methods.frontier.left_out import find_contradicted, let_go, shares_let_go
from lightning_dataselect.methods.frontier.rule import FIRST_DECISION, Decision, decide
from lightning_dataselect.methods.frontier.trial import HELD_BACK, TRIAL_PASSES, compare_held_back, draw_groups
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.state.store import ScoreStore


@dataclass(frozen=True)
class Pass:
    """A pass that begins.

    Attributes:
        out: bool (N,), the samples that it leaves out.
        decision: Why, from the third pass on.
        group: int8 (N,), of the trial that begins with it; None if none does.
        before: float32 (N,), the moving averages of the losses when it begins; None if no trial does.
        contradicted: bool (N,), what is contradicted, whether it is left out or not; None if nothing is.
    """

    out: Tensor
    decision: Decision | None = None
    group: Tensor | None = None
    before: Tensor | None = None
    contradicted: Tensor | None = None


def begin_pass(
    column: Callable[[str], Tensor],
    passes: int,
    before: Decision | None,
    *,
    planned_passes: float,
    trial_began: int | None,
    draw: Callable[[str], Callable[[slice], Tensor]],
    held_out: HeldOut | None = None,
    holds_out: bool = False,
) -> Pass:
    """Decide what a pass leaves out.

    Args:
        column: Returns a column of the samples by its name, (N,).
        passes: Passes that are done.
        before: The decision on the pass before, or None.
        planned_passes: Passes over everything that the budget has room for.
        trial_began: The passes that were done when the last trial began, or None.
        draw: Returns, for each purpose, what draws a number from [0, 1) for each sample of one part after the other.
        held_out: The last measurement of held-out samples, or None.
        holds_out: Whether samples are held out.
    """
    mean, previous, last = (column(name) for name in ("score", "previous", "latest"))
    labels, plain = column("label"), column("plain")
    weights, priors = class_weights(column("untrained"), plain, labels), class_priors(labels, plain)
    mean, previous, last = (without_weights(each, weights, labels) for each in (mean, previous, last))
    out, untrained = torch.zeros(len(mean), dtype=torch.bool), mean_of_known(column("untrained"))
    if untrained != untrained:
        return Pass(out)
    decision, contradicted, group = None, None, column("group")
    ends_trial = trial_began == passes - TRIAL_PASSES
    if passes >= FIRST_DECISION:
        judged = in_learnt_classes(last, labels, untrained)
        evidence = weigh_evidence(mean, previous, last, untrained, judged, priors, labels)
        if ends_trial:
            ratio, error = compare_held_back(last, column("before"), group, column("visits"))
            evidence = replace(evidence, held_back_ratio=ratio, held_back_error=error)
        decision = decide(
            passes,
            evidence,
            before=before,
            planned_passes=planned_passes,
            held_out=held_out,
            holds_out=holds_out,
        )
        if decision.contradicted:
            contradicted = find_contradicted(decision, previous, last, column("contradicted") > 0, judged)
        shares = shares_let_go(decision, mean, contradicted, priors, labels, column("predicted"))
        u = draw("left out")
        for part in parts(len(mean)):
            high = None if contradicted is None else contradicted[part]
            out[part] = let_go(decision, mean[part], high, u(part), shares, priors, labels[part])
    begins_trial = ends_trial or trial_began is None
    if begins_trial:
        group, u = torch.empty(len(mean), dtype=torch.int8), draw("trial")
        for part in parts(len(mean)):
            group[part] = draw_groups(u(part))
    n_out = n_contradicted = 0
    for part in parts(len(out)):
        out[part] &= group[part] == 0  # the two are compared, so their samples are seen whatever their losses
        n_out += int(out[part].count_nonzero())
        n_contradicted += 0 if contradicted is None else int((out[part] & contradicted[part]).count_nonzero())
        if begins_trial:
            out[part] |= group[part] == HELD_BACK
    if decision is not None:
        decision = replace(decision, n_left_out=n_out, n_contradicted=n_contradicted)
    of_trial, before_trial = (group, mean) if begins_trial else (None, None)
    return Pass(out, decision, of_trial, before_trial, contradicted)


def write_pass(begun: Pass, store: ScoreStore, places: slice | Tensor, *, own: slice, visits: Tensor) -> None:
    """Write the columns that the beginning of a pass has settled.

    Args:
        begun: The pass.
        store: Has the columns of `Frontier`.
        places: Of the samples in the store, as many as ``own`` has.
        own: The samples in the pass that this rank has in its store.
        visits: (n,), how often each was trained on in a trial that begins: -1 for one that is still to be trained on
            before.
    """
    columns: dict[str, Tensor] = {}
    if begun.group is not None and begun.before is not None:
        columns |= {"group": begun.group[own], "before": begun.before[own], "visits": visits}
    if begun.contradicted is not None:
        columns["contradicted"] = begun.contradicted[own]
    for name, values in columns.items():
        column = store[name]
        if isinstance(places, slice):
            column[places] = values.to(column.device)
        else:
            column[places.to(column.device)] = values.to(column)
