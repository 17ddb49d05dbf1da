"""Decisions of a method that weighs evidence, such as `Frontier`, in plain numbers and as shares by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_dataselect.comparison.plans.numbers import MISSING, share

Decided = Mapping[str, Any]
HELD_BACK, HELD_OUT = "loss of held back", "held out / trained on"
TITLES = ("after", "from epoch", "left out", "learnt", "high, and still high", HELD_BACK, HELD_OUT)
WAITS = "waits for its turn"


@dataclass(frozen=True)
class Explained:
    """Decisions as a report shows them.

    Attributes:
        titles: Those of `TITLES` under which anything was found.
        rows: One for each pass, a text for each of `titles`.
        epochs: Of each epoch, the shares of all samples that it did not train on, by why.
    """

    titles: list[str]
    rows: list[tuple[str, ...]]
    epochs: list[dict[str, float]]


def explain(decisions: Sequence[Decided], kept: Sequence[float], n_total: int) -> Explained:
    """Return what a method has decided before each pass, and what came of it epoch by epoch.

    Args:
        decisions: As `Frontier.decisions`, as plain values.
        kept: By epoch, the share of the samples that was trained on.
        n_total: Samples of a full epoch.

    Example:
        >>> evidence = {"learnt_share": 0.4, "above_share": 0.1, "persistence": 0.9, "held_back_ratio": None,
        ...             "held_back_error": None}
        >>> decision = {"passes": 2, "epoch": 1, "learnt": True, "contradicted": False, "memorizes": False,
        ...             "n_left_out": 30, "n_contradicted": 0, "evidence": evidence, "held_out": None}
        >>> made = explain([decision], [0.5, 0.5], n_total=100)
        >>> made.rows
        [('2 passes', '2', 'learnt, 30%', '40%', '10%, of these 90%')]
        >>> made.epochs
        [{'learnt': 0.0, 'contradicted': 0.0, 'waits for its turn': 0.5}, {'learnt': 0.3, 'contradicted': 0.0, \
'waits for its turn': 0.2}]
    """
    epochs = []
    for epoch, trained in enumerate(kept):
        before = [decision for decision in decisions if decision["epoch"] <= epoch]
        left_out = before[-1]["n_left_out"] / n_total if before else 0.0
        contradicted = before[-1]["n_contradicted"] / n_total if before else 0.0
        dropped = max(0.0, 1 - trained)
        # an epoch longer than its pass trains on some of what the pass has left out
        part = min(1.0, dropped / left_out) if left_out else 0.0
        shares = {"learnt": part * (left_out - contradicted), "contradicted": part * contradicted}
        shares[WAITS] = dropped - part * left_out
        epochs.append({name: round(value, 4) for name, value in shares.items()})
    rows = [_row(decision, n_total) for decision in decisions]
    known = [i for i in range(len(TITLES)) if any(row[i] != MISSING for row in rows)]
    return Explained([TITLES[i] for i in known], [tuple(row[i] for i in known) for row in rows], epochs)


def _row(decision: Decided, n_total: int) -> tuple[str, ...]:
    evidence, held_out = decision["evidence"], decision["held_out"]
    ratio, error = evidence["held_back_ratio"], evidence["held_back_error"]
    held_back = MISSING if ratio is None or error is None else f"{ratio:.2f} \u00b1 {error:.2f}"
    return (
        f"{decision['passes']} passes",
        str(decision["epoch"] + 1),
        _left_out(decision, n_total),
        share(evidence["learnt_share"]),
        f"{share(evidence['above_share'])}, of these {share(evidence['persistence'])}",
        f"{held_back}, memorizes" if decision["memorizes"] else held_back,
        MISSING if held_out is None else f"{held_out['loss']:.3f} / {held_out['control_loss']:.3f}",
    )


def _left_out(decision: Decided, n_total: int) -> str:
    n_contradicted = decision["n_contradicted"]
    counts = {"learnt": decision["n_left_out"] - n_contradicted, "contradicted": n_contradicted}
    return "; ".join(f"{kind}, {share(n / n_total)}" for kind, n in counts.items() if decision[kind]) or "nothing"
