"""Put what a table means into one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_dataselect.comparison.findings.power import is_clear
from lightning_dataselect.comparison.findings.rows import Row
from lightning_dataselect.comparison.findings.verdicts import Verdict
from lightning_dataselect.comparison.plans.numbers import Spread, shown
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings

Entries = Sequence[tuple[str, Spread]]


def say_what_it_means(
    rows: Sequence[Row], verdicts: Mapping[str, Verdict], outcome: Outcome, settings: Settings, percent: bool
) -> str:
    """Return one sentence on what the rows say of the methods.

    Args:
        rows: Of the table.
        verdicts: On the methods, by label.
        outcome: The runs that the rows are made of.
        settings: What is compared.
        percent: True if values are shown in percent.
    """
    held = [(row.label, row.vs_short) for row in rows if row.vs_short is not None]
    if not held:
        return "Nothing can be said of a method before it and its short run have finished."
    if all(difference.n < 2 for _, difference in held):
        return (
            "One seed cannot tell a difference from chance: "
            "whether a method beats training for fewer epochs needs more, as with --seeds 3."
        )
    unit = unit_of(percent, settings.monitor)
    counts = sorted({difference.n for label, difference in held if label not in outcome.dropped})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    cut = f" (of {len(settings.seeds)}; the others have not run)" if outcome.interrupted else ""
    return f"Over {seeds} seeds{cut} and at equal compute, {_meaning(rows, verdicts, settings.maximize, unit)}."


def unit_of(percent: bool, monitor: str) -> str:
    """Return what stands behind a difference: points, or the metric's name.

    Example:
        >>> unit_of(True, "val_acc"), unit_of(False, "val_loss")
        (' points', ' val_loss')
    """
    return " points" if percent else f" {monitor}"


def _meaning(rows: Sequence[Row], verdicts: Mapping[str, Verdict], maximize: bool, unit: str) -> str:
    sign = 1 if maximize else -1
    simply = "simply training on full data for fewer epochs"
    held = [(row.label, row.vs_short) for row in rows if row.vs_short is not None]
    better, worse, mixed = (
        [entry for entry in held if verdicts.get(entry[0]) == verdict] for verdict in ("better", "worse", "mixed")
    )
    open_ = [entry for entry in held if entry[0] not in verdicts]
    family = [compute for _, compute in held]
    by_time_alone = {label for label, compute in worse if sign * compute.mean >= 0 or not is_clear(compute, family)}
    late = [(row.label, row.vs_time) for row in rows if row.vs_time is not None and row.label in by_time_alone]
    worse = [entry for entry in worse if entry[0] not in by_time_alone]
    texts = []
    if better:
        texts.append(f"{_names(better, unit)} {_is(better)} better than {simply}")
    elif len(held) == len(open_) == 1:
        texts.append(f"{_names(held, unit)} is not measurably better or worse than {simply}")
    elif open_:
        nearest = max(open_, key=lambda entry: sign * entry[1].mean)
        texts.append(
            f"none of the {len(held)} methods is measurably better than {simply} "
            f"(the nearest, {nearest[0]}, by {shown(nearest[1], signed=True)}{unit})"
        )
    elif mixed or late:
        texts.append(f"no method is better than {simply}")
    if worse:
        texts.append(f"{_names(worse, unit)} {_is(worse)} worse" + ("" if texts else f" than {simply}"))
    if mixed:
        texts.append(f"{_names(mixed, unit)} {_is(mixed)} ahead at equal compute, but not at equal time")
    if late:
        texts.append(f"{_names(late, unit)} {_is(late)} worse than full data that trains for as long")
    return "; ".join(texts)


def _is(entries: Entries) -> str:
    return "is" if len(entries) == 1 else "are"


def _names(entries: Entries, unit: str) -> str:
    texts = [f"{label} ({shown(difference, signed=True)}{unit})" for label, difference in entries]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)
