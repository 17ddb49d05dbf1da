"""From runs to rows: means, spreads, paired differences, verdicts, and one sentence that says what is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Literal

from lightning_dataselect.comparison.numbers import Spread, share, shown, spread
from lightning_dataselect.comparison.power import detectable, is_clear, pooled, seeds_for
from lightning_dataselect.comparison.records import RunRecord
from lightning_dataselect.comparison.runner import NEAR, Outcome, Settings, spent
from lightning_dataselect.comparison.spec import FULL, SHORT

Verdict = Literal["better", "worse", "mixed"]
# Share of the training time beyond which waiting for batches is held to hide what a method saves.
MOST_WAITING = 0.2
# What a method saves by one measure and by another may differ by so much of a full run before it is remarked on.
_AGREE = 0.1
_HALF_A_POINT = 0.5
_ONE_PERCENT = 0.01


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        label: The method; a `short` row names its epochs.
        method: The method as in `--methods`.
        value: The metric at the end, in `Summary.unit`.
        seconds: Wall-clock of training, without validation.
        n_forward: Mean samples forwarded.
        n_backward: Mean samples back-propagated.
        dropped: Share of the samples of its epochs that were not trained on; 0 for the baselines.
        saved: Share of the compute of `full` that was saved, or None without `full`.
        saved_time: Share of the time of `full` that was saved, by the clock that is believed; likewise.
        saved_wall: The same by the wall's clock.
        speedup: Wall-clock of `full` over this one's, the median over seeds, or None without `full`:
            a run that something else on the machine held up does not move it.
        vs_full: Metric minus that of `full` with the same seed, or None.
        vs_short: Metric minus that of full data at equal compute, or None.
        vs_time: Metric minus that of full data at equal time, by the clock that is believed, or None.
        short: The epochs of full data that cost as much, the mean over seeds, or None.
        short_time: The epochs of full data that take as long, likewise.
        dominated: Whether some run on full data ends as well or better, and takes no longer.
        pareto: Whether no other row ends as well or better, and takes no longer.
        ended: What has stopped its runs early, and after how many epochs; empty if nothing has.
    """

    label: str
    method: str
    value: Spread
    seconds: Spread
    n_forward: float
    n_backward: float
    dropped: float
    saved: float | None
    saved_time: float | None
    saved_wall: float | None
    speedup: float | None
    vs_full: Spread | None
    vs_short: Spread | None
    vs_time: Spread | None
    short: float | None
    short_time: float | None
    dominated: bool
    pareto: bool
    ended: str

    @property
    def is_baseline(self) -> bool:
        """True if it is trained on full data."""
        return self.method in (FULL, SHORT)


@dataclass(frozen=True)
class Summary:
    """The table and its meaning.

    Attributes:
        rows: In the order of `--methods`, a `short` row for each distinct number of epochs.
        percent: Whether values are shares shown in percent, and differences in points.
        maximize: Whether more of the metric is better.
        sentence: What the table means.
        notes: What a reader must know besides, a sentence each.
        verdicts: By the label of a method: `better` where it is ahead of full data at equal compute and not behind at
            equal time; `worse` where it is behind at either; `mixed` where it is ahead at equal compute alone. A method
            of which nothing can be said is missing.
    """

    rows: list[Row]
    percent: bool
    maximize: bool
    sentence: str
    notes: list[str]
    verdicts: dict[str, Verdict]

    @property
    def unit(self) -> str:
        """Of differences."""
        return "points" if self.percent else ""

    def row(self, label: str) -> Row | None:
        """Return the row of that label."""
        return next((row for row in self.rows if row.label == label), None)


Entries = Sequence[tuple[str, Spread]]


def summarise(outcome: Outcome, settings: Settings) -> Summary:
    """Return rows of what has finished, and what they mean."""
    percent = settings.maximize and all(0 <= run.value <= 1 for run in outcome.runs)
    scale = 100.0 if percent else 1.0
    rows: list[Row] = []
    groups: list[list[RunRecord]] = []
    for spec in settings.methods:
        runs = [run for run in outcome.runs if run.method == spec.label]
        by_epochs = sorted({run.epochs for run in runs}) if spec.label == SHORT else [None] if runs else []
        for epochs in by_epochs:
            group = [run for run in runs if epochs in (None, run.epochs)]
            label = spec.label if epochs is None else short_label(epochs)
            rows.append(_row(label, group, outcome, scale))
            groups.append(group)
    rows = _placed(rows, groups, outcome, settings.maximize)
    verdicts = _verdicts(rows, settings.maximize)
    sentence = _sentence(rows, verdicts, outcome, settings, percent)
    notes = [
        *_on_halving(outcome),
        *_on_resolution(rows, settings, percent),
        *_on_ends(rows),
        *_on_what_was_dropped(rows),
        *_on_clocks(rows, outcome),
        *_on_loader(outcome),
    ]
    return Summary(rows, percent, settings.maximize, sentence, notes, verdicts)


def short_label(epochs: int) -> str:
    """Return the row of `short` with that many epochs.

    Example:
        >>> short_label(1), short_label(2)
        ('short, 1 epoch', 'short, 2 epochs')
    """
    return f"{SHORT}, {epochs} epoch{'s' * (epochs != 1)}"


# ---- rows ------------------------------------------------------------------------------------------------------------


def _row(label: str, runs: Sequence[RunRecord], outcome: Outcome, scale: float) -> Row:
    method = runs[0].method
    full = [(run, other) for run in runs if (other := outcome.find(FULL, run.seed)) is not None]
    pruned = [run for run in runs if run.kept]
    by_compute = [(run, value) for run in pruned if (value := outcome.at_equal_compute(run)) is not None]
    by_time = [(run, value) for run, _ in by_compute if (value := outcome.at_equal_time(run)) is not None]
    epochs = [outcome.time_epochs(run) for run, _ in by_time]
    return Row(
        label=label,
        method=method,
        value=spread(scale * run.value for run in runs),
        seconds=spread(run.seconds for run in runs),
        n_forward=fmean(run.n_forward for run in runs),
        n_backward=fmean(run.n_backward for run in runs),
        dropped=fmean(run.dropped for run in pruned) if pruned else 0.0,
        saved=1 - fmean(run.cost / other.cost for run, other in full) if full else None,
        saved_time=1 - median(outcome.time_of(run) / outcome.time_of(other) for run, other in full) if full else None,
        saved_wall=1 - median(run.seconds / other.seconds for run, other in full) if full else None,
        speedup=median(other.seconds / run.seconds for run, other in full) if full else None,
        vs_full=spread(scale * (a.value - b.value) for a, b in full) if full and method != FULL else None,
        vs_short=spread(scale * (run.value - value) for run, value in by_compute) if by_compute else None,
        vs_time=spread(scale * (run.value - value) for run, value in by_time) if by_time else None,
        short=fmean(outcome.short_epochs(run) for run, _ in by_compute) if by_compute else None,
        short_time=fmean(each for each in epochs if each is not None) if epochs else None,
        dominated=False,
        pareto=False,
        ended=_ended(runs),
    )


def _ended(runs: Sequence[RunRecord]) -> str:
    early = [run for run in runs if run.ended_by]
    if not early:
        return ""
    done = sorted({run.epochs_done for run in early})
    epochs = f"{done[0]}" if len(done) == 1 else f"{done[0]} to {done[-1]}"
    of = "" if len(early) == len(runs) else f" in {len(early)} of {len(runs)} runs"
    return f"stopped by {' and '.join(sorted({run.ended_by for run in early}))} after {epochs} of {runs[0].epochs}{of}"


def _placed(rows: Sequence[Row], groups: Sequence[Sequence[RunRecord]], outcome: Outcome, maximize: bool) -> list[Row]:
    """The rows again, each with its place among the others."""
    sign = 1 if maximize else -1
    epoch = outcome.epoch_time()
    places = []
    for row, group in zip(rows, groups, strict=True):
        if row.is_baseline:
            time = fmean(spent(run) for run in group)
        else:
            time = fmean(outcome.short_epochs(run) if epoch is None else outcome.time_of(run) / epoch for run in group)
        places.append((time, sign * row.value.mean, row))
    placed = []
    # rows of fewer seeds are no match for the others: what a seed is good for is in their means
    most = max((row.value.n for row in rows), default=0)
    for time, value, row in places:
        if row.value.n < most:
            placed.append(row)
            continue
        no_slower = [
            (v, other)
            for t, v, other in places
            if other is not row and other.value.n == most and t <= time * (1 + NEAR)
        ]
        dominated = not row.is_baseline and any(v >= value for v, other in no_slower if other.is_baseline)
        placed.append(replace(row, dominated=dominated, pareto=all(v < value for v, _ in no_slower)))
    return placed


# ---- verdicts --------------------------------------------------------------------------------------------------------


def _verdicts(rows: Sequence[Row], maximize: bool) -> dict[str, Verdict]:
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


# ---- words -----------------------------------------------------------------------------------------------------------


def _sentence(
    rows: Sequence[Row], verdicts: Mapping[str, Verdict], outcome: Outcome, settings: Settings, percent: bool
) -> str:
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
    by_time_alone = {label for label, compute in worse if sign * compute.mean >= 0}
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
        texts.append(f"{_names(mixed, unit)} {_is(mixed)} ahead by what it computes, but not by the time it takes")
    if late:
        texts.append(f"{_names(late, unit)} {_is(late)} worse than full data that trains for as long")
    return "; ".join(texts)


def _is(entries: Entries) -> str:
    return "is" if len(entries) == 1 else "are"


def _names(entries: Entries, unit: str) -> str:
    texts = [f"{label} ({shown(difference, signed=True)}{unit})" for label, difference in entries]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


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
    return [f"With {n} seeds a difference of {seen:.2g}{unit} from fewer epochs could have been seen; {need}."]


def _on_halving(outcome: Outcome) -> list[str]:
    """Say what the rule that gives methods up can miss."""
    if not outcome.dropped:
        return []
    told = ", ".join(f"{label} after {n} seed{'s' * (n > 1)}" for label, n in outcome.dropped.items())
    return [
        f"Given up on the way, as the worse half of those left: {told}. So a method with bad luck in its first seeds is"
        " missed, and the lead of those that stayed holds some of the luck that kept them."
    ]


def _on_ends(rows: Sequence[Row]) -> list[str]:
    early = [row for row in rows if row.ended]
    if not early:
        return []
    told = "; ".join(f"{row.label} {row.ended}" for row in early)
    return [f"Not every run had all its epochs, and each counts as what it did: {told}."]


def _on_what_was_dropped(rows: Sequence[Row]) -> list[str]:
    idle = [row.label for row in rows if not row.is_baseline and row.dropped < 0.005]
    if not idle:
        return []
    verb = "has" if len(idle) == 1 else "have"
    return [
        f"{', '.join(idle)} {verb} dropped nothing: too few epochs lie between those on full data at the start and at"
        " the end (warmup_epochs, anneal), or the method needs losses that it has not seen yet."
    ]


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
    clock = "CPU time" if outcome.clock == "cpu" else "the wall's clock"
    if apart:
        told = ", ".join(
            f"{row.label} {_saving(row.saved)} by samples, {_saving(row.saved_time)} by time" for row in apart
        )
        notes.append(f"Counts and time disagree: {told}. Time is believed, by {clock}: it holds the method's own work.")
    if noisy:
        told = ", ".join(f"{row.label} {_saving(row.saved_wall)}" for row in noisy)
        notes.append(
            f"By the wall's clock it would be {told}: something else ran on the machine, so CPU time is believed."
        )
    if outcome.clock == "wall" and (spread_of := _spread_of_wall(rows)) > _AGREE:
        notes.append(
            f"The wall's clock is noisy here: the runs on full data differ by {share(spread_of)} of their time."
        )
    return notes


def _saving(saved: float | None) -> str:
    return f"{share(saved or 0.0)} saved" if (saved or 0.0) >= 0 else f"{share(-(saved or 0.0))} more"


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
