"""Say what a reader of a table must know besides, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from lightning_dataselect.comparison.findings.power import detectable, pooled, seeds_for
from lightning_dataselect.comparison.findings.rows import Row
from lightning_dataselect.comparison.findings.sentence import unit_of
from lightning_dataselect.comparison.plans.numbers import share
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import FULL
from lightning_dataselect.comparison.runs.records import RunRecord

# Share of the training time beyond which waiting for batches is held to hide what a method saves.
MOST_WAITING = 0.2
# What a method saves by one measure and by another may differ by so much of a full run before it is remarked on.
_AGREE = 0.1
_HALF_A_POINT = 0.5
_ONE_PERCENT = 0.01


def write_notes(rows: Sequence[Row], outcome: Outcome, settings: Settings, percent: bool) -> list[str]:
    """Return what a reader must know besides, a sentence each.

    Args:
        rows: Of the table.
        outcome: The runs that they are made of.
        settings: What is compared.
        percent: True if values are shown in percent.
    """
    return [
        *([outcome.noise.text()] if outcome.noise is not None else []),
        *_on_halving(outcome),
        *_on_resolution(rows, settings, percent),
        *_on_ends(rows),
        *_on_what_was_dropped(rows),
        *_on_ties(rows, outcome, settings),
        *_on_clocks(rows, outcome),
        *_on_loader(outcome),
    ]


def _on_resolution(rows: Sequence[Row], settings: Settings, percent: bool) -> list[str]:
    """Say how large a difference so few seeds can show, and how many would show one that matters."""
    family = [row.vs_short for row in rows if row.vs_short is not None]
    std, freedom = pooled(family)
    full = next((row.value.mean for row in rows if row.method == FULL), None)
    wanted = _HALF_A_POINT if percent else _ONE_PERCENT * abs(full) if full else 0.0
    if not freedom or not std > 0 or not wanted:
        return []
    n = max(each.n for each in family)
    unit = unit_of(percent, settings.monitor)
    seen = detectable(std, n, len(family))
    seeds = seeds_for(wanted, std, len(family))
    size = "half a point" if percent else f"1 % of full data's {settings.monitor}"
    need = f"{size} is within reach" if seen <= wanted else f"{size} needs about {seeds or 'a thousand'} seeds"
    return [f"With {n} seeds, the smallest difference from fewer epochs that could show is {seen:.2g}{unit}; {need}."]


def _on_halving(outcome: Outcome) -> list[str]:
    """Say what the rule that gives methods up can miss."""
    by_noise = outcome.noise.given_up if outcome.noise is not None else ()
    dropped = {label: n for label, n in outcome.dropped.items() if label not in by_noise}
    if not dropped:
        return []
    told = ", ".join(f"{label} after {n} seed{'s' * (n > 1)}" for label, n in dropped.items())
    return [
        f"Given up on the way, as the worse half of those left: {told}. A method with bad luck in its first seeds is"
        " lost this way, and part of the lead of those that stayed is luck."
    ]


def _on_ends(rows: Sequence[Row]) -> list[str]:
    early = [row for row in rows if row.ended]
    if not early:
        return []
    told = "; ".join(f"{row.label} {row.ended}" for row in early)
    return [f"Some runs ended before their last epoch, and count as far as they got: {told}."]


def _on_what_was_dropped(rows: Sequence[Row]) -> list[str]:
    idle = [row.label for row in rows if not row.is_baseline and row.dropped < 0.005]
    if not idle:
        return []
    verb = "has" if len(idle) == 1 else "have"
    return [
        f"{', '.join(idle)} {verb} dropped nothing: too few epochs lie between those on full data at the start and at"
        " the end (warmup_epochs, anneal), or the method needs losses that it has not seen yet."
    ]


def _on_ties(rows: Sequence[Row], outcome: Outcome, settings: Settings) -> list[str]:
    """Say of a method that ends where full data does, seed by seed, that its fits were others all the same."""
    tied = [
        row.label
        for row in rows
        if not row.is_baseline
        and row.vs_full is not None
        and row.vs_full.n > 1
        and row.vs_full.mean == row.vs_full.std == 0
        and any(_goes_elsewhere(run, outcome) for run in outcome.runs if run.method == row.method)
    ]
    if not tied:
        return []
    return [
        f"{', '.join(tied)} ended at exactly the {settings.monitor} of full data with each seed, and yet by another"
        " way: where few samples are validated, a metric takes few values, and two fits may meet by chance."
    ]


def _goes_elsewhere(run: RunRecord, outcome: Outcome) -> bool:
    full = outcome.find(FULL, run.seed)
    return full is not None and [point.value for point in run.curve] != [point.value for point in full.curve]


def _on_clocks(rows: Sequence[Row], outcome: Outcome) -> list[str]:
    """A sentence where wall-clock, CPU time and counts tell different savings."""
    apart = [
        row
        for row in rows
        if row.saved is not None
        and row.saved_time is not None
        and not row.is_baseline
        and abs(row.saved - row.saved_time) > _AGREE
    ]
    noisy = [
        row
        for row in rows
        if outcome.clock == "cpu"
        and not row.is_baseline
        and row.saved_wall is not None
        and row.saved_time is not None
        and abs(row.saved_wall - row.saved_time) > _AGREE
    ]
    notes = []
    n_threads = sorted({run.n_threads for run in outcome.runs if run.device == "cpu"})
    if len(n_threads) > 1:
        notes.append(
            f"Some runs computed with {n_threads[0]} thread{'s' * (n_threads[0] > 1)} and others with {n_threads[-1]},"
            " so their times cannot be compared: repeat the comparison in another folder (--out)."
        )
    clock = "CPU time" if outcome.clock == "cpu" else "wall-clock time"
    if apart:
        told = "; ".join(f"{row.label} {_savings(row.saved or 0.0, row.saved_time or 0.0)}" for row in apart)
        notes.append(
            f"Samples saved are not time saved: {told}. The verdicts go by {clock}, which includes the"
            " method's own work."
        )
    if noisy:
        told = "; ".join(f"{row.label} {_saving(row.saved_wall or 0.0, 'time')}" for row in noisy)
        notes.append(
            f"The wall clock says otherwise: {told}. It also counts what other programs on the machine take, so the"
            " verdicts go by CPU time."
        )
    if outcome.clock == "wall" and (spread_of := _spread_of_wall(rows)) > _AGREE:
        notes.append(
            f"Wall-clock time is noisy here: the runs on full data differ by {share(spread_of)} of their time."
        )
    return notes


def _savings(samples: float, time: float) -> str:
    """Such as `saves 50% of the samples and 29% of the time`."""
    if samples >= 0 and time >= 0:
        return f"saves {share(samples)} of the samples and {share(time)} of the time"
    if samples < 0 and time < 0:
        return f"takes {share(-samples)} more samples and {share(-time)} more time"
    return f"{_saving(samples, 'samples')} but {_saving(time, 'time')}"


def _saving(saved: float, what: str) -> str:
    return f"saves {share(saved)} of the {what}" if saved >= 0 else f"takes {share(-saved)} more {what}"


def _spread_of_wall(rows: Sequence[Row]) -> float:
    full = next((row.seconds for row in rows if row.method == FULL), None)
    return full.std / full.mean if full is not None and full.n > 1 and full.mean else 0.0


def _on_loader(outcome: Outcome) -> list[str]:
    """A sentence on the loader, if full data is bound by it; a GPU that is busy all the same is not."""
    full = [run for run in outcome.runs if run.method == FULL]
    bound = [run for run in full if run.gpu_busy is None or run.gpu_busy < 1 - MOST_WAITING]
    waiting = median(run.waiting_seconds / run.seconds for run in bound) if bound else 0.0
    if waiting <= MOST_WAITING:
        return []
    return [
        f"Mind the loader: training on full data waits for it {waiting:.0%} of the time, and a method that chooses"
        " within batches waits as long, which hides what it saves. Give the DataLoader more num_workers, or its data"
        " set cheaper transforms or a __getitems__ that reads a whole batch."
    ]
