"""A comparison ends with what to do, then a table of one line a row."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from comparison_records import EPOCHS, pruned, record
from rich.console import Console

from lightning_dataselect.comparison.findings.advice import advise
from lightning_dataselect.comparison.findings.summary import summarise
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.comparison.runs.records import Failure
from lightning_dataselect.comparison.showing.table import render

LONG = "my_package.selection.methods.MyVeryOwnMethod(every_n_epochs=2, uncertainty='cross_entropy')"


def outcome_of(method, full=(0.90, 0.91, 0.92), ahead=0.03, **others):
    runs = []
    for seed, value in enumerate(full):
        runs += [record("full", seed, value, seconds=10.0)]
        runs += [record("short", seed, value - 0.02 - 0.001 * seed, epochs=5, seconds=5.0)]
        runs += [pruned(method, seed, value - 0.02 + ahead, seconds=5.0, **others)]
    return Outcome(EPOCHS, runs)


def settings(methods, maximize=True):
    return Settings(parse_methods(methods), [0, 1, 2], 0.5, "val_acc", maximize, Path("."))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("scale", [1.0, -54321.0])
def test_a_row_is_one_line_whatever_the_names(width, scale):
    outcome = outcome_of("UCB")
    outcome.runs = [replace(run, value=run.value * scale) for run in outcome.runs]
    outcome.runs += [replace(run, method=LONG) for run in outcome.runs if run.kept]
    outcome.failures = [Failure(LONG, 3, "the sky is falling " * 10, "log")]
    asked = settings("full,short,UCB")
    asked = replace(asked, methods=[*asked.methods, replace(asked.methods[-1], label=LONG)], monitor="val_a" * 4)
    console = Console(file=io.StringIO(), width=width)
    summary = summarise(outcome, asked)
    console.print(render(summary, outcome, asked.monitor, width))
    lines = console.file.getvalue().rstrip().split("\n")
    body = lines[next(i for i, line in enumerate(lines) if "──" in line) + 1 :]
    assert len(body) == 5 and all(len(line) <= width for line in lines)
    assert "full" in body[0] and "my_package" in body[3] and "…" in body[3] and "failed" in body[4]
    # only the name may be cut
    name = max(len(line.split("…")[0]) for line in body)
    assert all("…" not in line[name + 1 :] for line in lines), lines


def test_the_first_line_says_which_method_to_use_and_how():
    outcome, asked = outcome_of("UCB(c=2.0)"), settings("full,short,UCB(c=2.0)")
    summary = summarise(outcome, asked)
    advice = advise(summary, outcome, asked)
    assert summary.verdicts == {"UCB(c=2.0)": "better"} and advice.label == "UCB(c=2.0)"
    start = "Use UCB(c=2.0): 50% cheaper, 1 ± 0 points higher than full data, and +3.10 ± 0.10 points against full data"
    assert advice.headline.startswith(start)
    assert advice.python.split("\n") == [
        "from lightning_dataselect import UCB",
        f"trainer = L.Trainer(max_epochs={EPOCHS}, callbacks=[UCB(prune_ratio=0.5, c=2.0)])",
    ]
    entry = {"class_path": "lightning_dataselect.UCB", "init_args": {"prune_ratio": 0.5, "c": 2.0}}
    assert yaml.safe_load(advice.yaml) == {"trainer": {"callbacks": [entry]}}
    # 3 full runs, 3 of half and 3 of half; each training then saves half
    assert advice.pays_after == 12


def test_without_a_better_method_the_cheapest_run_is_named_that_loses_no_more_than_a_seed_does():
    outcome, asked = outcome_of("UCB", ahead=0.0), settings("full,short,UCB")
    for seed, value in enumerate((0.905, 0.90, 0.922)):
        outcome.runs.append(record("short", seed, value, epochs=8, seconds=8.0))
    advice = advise(summarise(outcome, asked), outcome, asked)
    # seeds differ by 1.0; 5 epochs lose 2.1
    assert advice.headline == "Train 8 epochs instead of 10: 20% cheaper, 0.1 ± 0.8 points lower than full data."
    assert yaml.safe_load(advice.yaml) == {"trainer": {"max_epochs": 8}} and "max_epochs=8" in advice.python
    outcome.runs = [run for run in outcome.runs if (run.epochs, run.seed) != (8, 0)]
    headline = advise(summarise(outcome, asked), outcome, asked).headline
    assert headline.startswith("Train 8 epochs") and headline.endswith("full data over 2 of 3 seeds.")
    outcome.runs = [run for run in outcome.runs if run.epochs != 8]
    advice = advise(summarise(outcome, asked), outcome, asked)
    assert advice.headline == "Keep all 10 epochs on full data: whatever is cheaper loses more than another seed does."
    lower = settings("full,short,UCB", maximize=False)
    outcome.runs = [replace(run, value=-run.value) for run in outcome.runs]
    assert advise(summarise(outcome, lower), outcome, lower).headline.startswith("Keep all 10 epochs")


def test_one_seed_decides_nothing():
    outcome, asked = outcome_of("UCB", full=(0.9,)), settings("full,short,UCB")
    advice = advise(summarise(outcome, asked), outcome, asked)
    assert advice.headline.startswith("One seed decides nothing") and advice.label is None
