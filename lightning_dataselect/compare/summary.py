"""From runs to rows: means, spreads, paired differences, and one sentence that says what is so."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy.stats import t as student

from lightning_dataselect.compare.comparison import Outcome, Settings
from lightning_dataselect.compare.records import RunRecord
from lightning_dataselect.compare.spec import FULL, SHORT

RISK = 0.05
# Share of the training time beyond which waiting for batches is held to hide what a method saves.
MOST_WAITING = 0.2


@dataclass(frozen=True)
class Spread:
    """Numbers, one a seed, by their mean and sample standard deviation.

    Attributes:
        mean: Their mean.
        std: Their standard deviation (n - 1); NaN of a single one.
        n: How many.
    """

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        label: The method; a `short` row names its epochs.
        value: The metric at the end, in `Summary.unit`.
        seconds: Wall-clock of training, without validation.
        n_forward: Mean samples forwarded.
        n_backward: Mean samples back-propagated.
        speedup: Wall-clock of `full` over this one's, the median over seeds, or None without `full`:
            a run that something else on the machine held up does not move it.
        vs_full: Metric minus that of `full` with the same seed, or None.
        vs_short: Metric minus that of full data at equal compute, or None.
        short: The epochs of full data that cost as much, the mean over seeds, or None.
    """

    label: str
    value: Spread
    seconds: Spread
    n_forward: float
    n_backward: float
    speedup: float | None
    vs_full: Spread | None
    vs_short: Spread | None
    short: float | None


@dataclass(frozen=True)
class Summary:
    """The table and its meaning.

    Attributes:
        rows: In the order of `--methods`, a `short` row for each distinct number of epochs.
        percent: Whether values are shares shown in percent, and differences in points.
        sentence: What the table means.
        verdicts: `better` or `worse` by the label of a method whose difference from `short` is real.
    """

    rows: list[Row]
    percent: bool
    sentence: str
    verdicts: dict[str, str]

    @property
    def unit(self) -> str:
        """Of differences."""
        return "points" if self.percent else ""


Entries = Sequence[tuple[str, Spread]]


def spread(values: Iterable[float]) -> Spread:
    """Mean and standard deviation.

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, std=1.4142135623730951, n=2)
    """
    numbers = list(values)
    return Spread(fmean(numbers), stdev(numbers) if len(numbers) > 1 else math.nan, len(numbers))


def summarise(outcome: Outcome, settings: Settings) -> Summary:
    """Rows of what has finished, and the sentence."""
    percent = settings.maximize and all(0 <= run.value <= 1 for run in outcome.runs)
    scale = 100.0 if percent else 1.0
    rows: list[Row] = []
    for spec in settings.methods:
        if spec.label == SHORT:
            short = [run for run in outcome.runs if run.method == SHORT]
            for epochs in sorted({run.epochs for run in short}):
                group = [run for run in short if run.epochs == epochs]
                rows.append(_row(short_label(epochs), group, outcome, scale))
        elif runs := [run for run in outcome.runs if run.method == spec.label]:
            rows.append(_row(spec.label, runs, outcome, scale))
    verdicts = _verdicts(rows, settings)
    sentence = " ".join([_sentence(rows, verdicts, settings, percent), *_on_loader(outcome)])
    return Summary(rows, percent, sentence, verdicts)


def _verdicts(rows: Sequence[Row], settings: Settings) -> dict[str, str]:
    held = {row.label: row.vs_short for row in rows if row.vs_short is not None}
    family = list(held.values())
    return {
        label: "better" if (difference.mean > 0) == settings.maximize else "worse"
        for label, difference in held.items()
        if _is_clear(difference, family)
    }


def _row(label: str, runs: Sequence[RunRecord], outcome: Outcome, scale: float) -> Row:
    full = [(run, other) for run in runs if (other := outcome.find(FULL, run.seed)) is not None]
    short = [(run, value) for run in runs if run.kept and (value := outcome.at_equal_compute(run)) is not None]
    is_full = runs[0].method == FULL
    return Row(
        label=label,
        value=spread(scale * run.value for run in runs),
        seconds=spread(run.seconds for run in runs),
        n_forward=fmean(run.n_forward for run in runs),
        n_backward=fmean(run.n_backward for run in runs),
        speedup=median(b.seconds / a.seconds for a, b in full) if full else None,
        vs_full=spread(scale * (a.value - b.value) for a, b in full) if full and not is_full else None,
        vs_short=spread(scale * (run.value - value) for run, value in short) if short else None,
        short=fmean(outcome.short_epochs(run) for run, _ in short) if short else None,
    )


def short_label(epochs: int) -> str:
    """The row of `short` with that many epochs.

    Example:
        >>> short_label(1), short_label(2)
        ('short, 1 epoch', 'short, 2 epochs')
    """
    return f"{SHORT}, {epochs} epoch{'s' * (epochs != 1)}"


def _sentence(rows: Sequence[Row], verdicts: Mapping[str, str], settings: Settings, percent: bool) -> str:
    held = [(row.label, row.vs_short) for row in rows if row.vs_short is not None]
    if not held:
        return "Nothing can be said of a method before it and its short run have finished."
    if all(difference.n < 2 for _, difference in held):
        return (
            "One seed cannot tell a difference from chance: "
            "whether a method beats training for fewer epochs needs more, as with --seeds 3."
        )
    sign = 1 if settings.maximize else -1
    better = [(label, d) for label, d in held if verdicts.get(label) == "better"]
    worse = [(label, d) for label, d in held if verdicts.get(label) == "worse"]
    unit = " points" if percent else f" {settings.monitor}"
    n = max(difference.n for _, difference in held)
    return f"Over {n} seeds and at equal compute, {_meaning(held, better, worse, sign, unit)}."


def _on_loader(outcome: Outcome) -> list[str]:
    """A sentence on the loader, if full data is bound by it; a GPU that is busy all the same is not."""
    full = [run for run in outcome.runs if run.method == FULL]
    bound = [run for run in full if run.gpu_busy is None or run.gpu_busy < 1 - MOST_WAITING]
    share = median(run.waiting_seconds / run.seconds for run in bound) if bound else 0.0
    if share <= MOST_WAITING:
        return []
    return [
        f"Mind the loader: training on full data waits for it {share:.0%} of the time, and a method that chooses"
        " within batches waits as long, which hides what it saves. Give the DataLoader more num_workers, or its data"
        " set cheaper transforms or a __getitems__ that reads a whole batch."
    ]


def _meaning(held: Entries, better: Entries, worse: Entries, sign: int, unit: str) -> str:
    simply = "simply training on full data for fewer epochs"
    if worse and len(worse) == len(held):
        return f"{_names(worse, unit)} {_is(worse)} worse than {simply}"
    if better:
        text = f"{_names(better, unit)} {_is(better)} better than {simply}"
    elif len(held) == 1:
        text = f"{_names(held, unit)} is not measurably better or worse than {simply}"
    else:
        nearest = max(held, key=lambda entry: sign * entry[1].mean)
        text = (
            f"none of the {len(held)} methods is measurably better than {simply} "
            f"(the nearest, {nearest[0]}, by {_signed(nearest[1])}{unit})"
        )
    return f"{text}, and {_names(worse, unit)} {_is(worse)} worse" if worse else text


def _is(entries: Entries) -> str:
    return "is" if len(entries) == 1 else "are"


def _is_clear(difference: Spread, family: Sequence[Spread]) -> bool:
    """Whether chance alone is an unlikely reason: a t-test, corrected for how many are tried.

    With few seeds a method's own spread can be small by luck, so it counts for no less than the
    spread pooled over all methods.
    """
    several = [other for other in family if other.n > 1]
    if difference.n < 2 or not several:
        return False
    freedom = sum(other.n - 1 for other in several)
    pooled = math.sqrt(sum((other.n - 1) * other.std**2 for other in several) / freedom)
    error = max(difference.std, pooled) / math.sqrt(difference.n)
    return abs(difference.mean) > float(student.ppf(1 - RISK / 2 / len(family), freedom)) * error


def _names(entries: Entries, unit: str) -> str:
    texts = [f"{label} ({_signed(difference)}{unit})" for label, difference in entries]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


def _signed(value: Spread) -> str:
    return f"{value.mean:+.3g}" if value.n < 2 else f"{value.mean:+.2f} ± {value.std:.2f}"
