"""Judge methods by their paired differences from full data, at equal compute and at equal time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lightning_dataselect.comparison.findings.power import is_clear
from lightning_dataselect.comparison.findings.rows import Row

Verdict = Literal["better", "worse", "mixed"]


def give_verdicts(rows: Sequence[Row], maximize: bool) -> dict[str, Verdict]:
    """Return the verdict on each method, by label; one of which nothing can be said is missing.

    Args:
        rows: Of the table.
        maximize: True if more of the metric is better.
    """
    sign = 1 if maximize else -1
    by_compute = [row.vs_short for row in rows if row.vs_short is not None]
    by_time = [row.vs_time for row in rows if row.vs_time is not None]
    verdicts: dict[str, Verdict] = {}
    for row in rows:
        compute, time = row.vs_short, row.vs_time
        if compute is None:
            continue
        clear = is_clear(compute, by_compute)
        ahead = clear and sign * compute.mean > 0
        behind_in_time = time is not None and sign * time.mean < 0
        if (clear and not ahead) or (behind_in_time and time is not None and is_clear(time, by_time)):
            verdicts[row.label] = "worse"
        elif ahead:
            verdicts[row.label] = "mixed" if behind_in_time or row.dominated else "better"
    return verdicts
