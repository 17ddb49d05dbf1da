"""Advice drawn from a comparison: one sentence, and the lines of Python and YAML that follow it."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_dataselect.comparison.findings.rows import Row, short_label
from lightning_dataselect.comparison.findings.sentence import unit_of
from lightning_dataselect.comparison.findings.summary import Summary
from lightning_dataselect.comparison.plans.numbers import Spread, share, shown
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import FULL, SHORT, MethodSpec


@dataclass(frozen=True)
class Advice:
    """A recommendation, and the code that follows it; printed, it is the headline.

    Attributes:
        headline: In a sentence or two.
        label: The row that is recommended, such as `InfoBatch` or `short, 4 epochs`; None where nothing can be.
        python: Lines of Python that do it.
        yaml: The same for a LightningCLI config.
        pays_after: After how many trainings the comparison has paid for itself, or None where it never does.
    """

    headline: str
    label: str | None
    python: str
    yaml: str
    pays_after: int | None

    def __str__(self) -> str:
        """The headline, which says what to do."""
        return self.headline


def advise(summary: Summary, outcome: Outcome, settings: Settings) -> Advice:
    """Return what to do after a comparison.

    A method that is better than training for fewer epochs is recommended: of several, the one that ends best. Or else
    the cheapest of the runs on full data that lose no more than the standard deviation over seeds.
    """
    better = [row for row in summary.rows if summary.verdicts.get(row.label) == "better"]
    sign = 1 if summary.maximize else -1
    unit = unit_of(summary.percent, settings.monitor)
    if better:
        row = max(better, key=lambda each: sign * each.value.mean)
        spec = next(spec for spec in settings.methods if spec.label == row.label)
        headline = (
            f"Use {row.label}: {_cheaper(row)}, {_against_full(row, unit, summary.maximize)}, and"
            f" {shown(row.vs_short, signed=True)}{unit} against full data at equal compute."
        )
        return Advice(headline, row.label, *_lines_of(spec, settings, outcome.epochs), _pays_after(row, outcome))
    full = summary.row(FULL)
    shorts = [row for row in summary.rows if row.method == SHORT and row.vs_full is not None and (row.saved or 0) > 0]
    if full is None or not shorts:
        asked = {spec.label for spec in settings.methods}
        missing = [name for name in (FULL, SHORT) if name not in asked]
        why = f"add {' and '.join(missing)} to the methods" if missing else "no cheaper run on full data has finished"
        return _nothing(f"Nothing to recommend: {why}.")
    if full.value.n < 2:
        return _nothing(
            "One seed decides nothing: run at least three, as with --seeds 3, before you change how you train."
        )
    shorts = [row for row in shorts if row.value.n > 1]
    if not shorts:
        return _nothing("Nothing to recommend: no cheaper run on full data has more than one seed; give more --seeds.")
    # a loss that another seed makes, too
    enough = [
        row
        for row in shorts
        if row.vs_full is not None and -sign * row.vs_full.mean <= max(full.value.std, row.vs_full.std)
    ]
    if not enough:
        keep = f"Keep all {outcome.epochs} epochs on full data: whatever is cheaper loses more than another seed does."
        return Advice(keep, FULL, "", "", None)
    row = max(enough, key=lambda each: each.saved or 0.0)
    epochs = next(run.epochs for run in outcome.runs if run.method == SHORT and short_label(run.epochs) == row.label)
    few = f" over {row.value.n} of {full.value.n} seeds"
    headline = (
        f"Train {epochs} epoch{'s' * (epochs != 1)} instead of {outcome.epochs}: {_cheaper(row)},"
        f" {_against_full(row, unit, summary.maximize)}{'' if row.value.n == full.value.n else few}."
    )
    lines = f"trainer = L.Trainer(max_epochs={epochs})", f"trainer:\n  max_epochs: {epochs}"
    return Advice(headline, row.label, *lines, _pays_after(row, outcome))


def _nothing(why: str) -> Advice:
    return Advice(why, None, "", "", None)


def _cheaper(row: Row) -> str:
    saved = row.saved_time if not row.is_baseline and row.saved_time is not None else row.saved or 0.0
    return f"{share(saved)} cheaper" if saved > 0 else f"{share(-saved)} more expensive"


def _against_full(row: Row, unit: str, maximize: bool) -> str:
    """Such as `0.7 ± 0.7 points lower than full data`."""
    difference = row.vs_full
    if difference is None or not difference.mean:
        return "and it ends where full data does"
    way = "higher" if difference.mean > 0 else "lower"
    size = shown(Spread(abs(difference.mean), difference.std, difference.n))
    judged = "" if maximize else f", which is {'worse' if difference.mean > 0 else 'better'}"
    return f"{size}{unit} {way} than full data{judged}"


def _pays_after(row: Row, outcome: Outcome) -> int | None:
    """Trainings whose savings add up to what the comparison has cost."""
    full = [run for run in outcome.runs if run.method == FULL]
    saved = row.saved_time if row.saved_time is not None and not row.is_baseline else row.saved
    if not full or not saved or saved <= 0:
        return None
    one = sum(run.cost for run in full) / len(full)
    return -int(-(sum(run.cost for run in outcome.runs) / one) // saved)


def _lines_of(spec: MethodSpec, settings: Settings, epochs: int) -> tuple[str, str]:
    name, path, arguments = spec.written(settings.prune_ratio)
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    python = f"from {path} import {name}\ntrainer = L.Trainer(max_epochs={epochs}, callbacks=[{name}({given})])"
    entry = f"    - class_path: {path}.{name}"
    inner = "".join(f"\n        {key}: {_yaml(value)}" for key, value in arguments.items())
    return python, f"trainer:\n  callbacks:\n{entry}" + (f"\n      init_args:{inner}" if inner else "")


def _yaml(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
