"""Estimate the cost of a comparison before it runs, and cut it to fit a budget.

The budget is spent by sequential halving (Karnin, Koren and Somekh, Almost Optimal Exploration in Multi-Armed Bandits,
ICML 2013; Jamieson and Talwalkar, AISTATS 2016, as successive halving): every method runs with the first seed, the
better half of them with the second, and so on. Methods are ranked by their paired differences, each from full data at
equal compute with the same seed. What the rule can miss: a method that is better on average and had bad luck with the
first seed. Libraries for this, such as Optuna's pruners, rank single trials by one number; here a trial is a pair.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_dataselect.comparison.plans.numbers import share
from lightning_dataselect.comparison.plans.spec import FULL, SHORT, MethodSpec
from lightning_dataselect.comparison.runs.rehearsal import Rehearsal
from lightning_dataselect.numerics.ratio_schedule import RatioSchedule, first_ratio, read_prune_ratio
from lightning_dataselect.utils.arguments import accepted_arguments
from lightning_dataselect.utils.errors import UserInputError

# A budget cuts the epochs before the third seed, but not below these: a schedule needs some room.
MIN_SEEDS, MIN_EPOCHS, MIN_SHARE = 3, 3, 0.25
# Then it takes a part of the data, which tells less of the whole of it the smaller it is.
PARTS, MIN_SAMPLES = (0.5, 0.25, 0.1), 1000
MOST_SEEDS = 10
_TYPICAL_SAVING = 0.3


@dataclass(frozen=True)
class Plan:
    """The runs that a comparison will make.

    Attributes:
        epochs: Of a full run.
        of_epochs: Of a full run as the task has it.
        seeds: In their order.
        halving: Whether methods are given up on the way.
        n_runs: About how many runs.
        full_runs: What they cost, in full runs of the task.
        minutes: What they take, from a few timed steps; NaN where nothing was timed.
        share_of_data: Of the training samples that they train on.
    """

    epochs: int
    of_epochs: int
    seeds: Sequence[int]
    halving: bool
    n_runs: int
    full_runs: float
    minutes: float
    share_of_data: float = 1.0

    @property
    def pays_after(self) -> int:
        """Trainings that must follow, if each then saves as much as methods often do."""
        return math.ceil(self.full_runs / _TYPICAL_SAVING)

    def text(self) -> str:
        """Return the plan in words."""
        cut = f" of {self.epochs} epochs (a full run has {self.of_epochs})" if self.epochs != self.of_epochs else ""
        cut += f" on {share(self.share_of_data)} of the data" if self.share_of_data < 1 else ""
        time = "" if math.isnan(self.minutes) else f", about {_duration(self.minutes)}"
        given_up = ", giving up the worse half of the methods after each seed" if self.halving else ""
        return (
            f"Plan: about {self.n_runs} runs{cut} over {_counted(len(self.seeds), 'seed')}{given_up}; they cost as much"
            f" as {self.full_runs:.3g} full runs{time}. If what is found saves {share(_TYPICAL_SAVING)} of a training,"
            f" that is paid back after {_counted(self.pays_after, 'training')}."
        )


def parse_budget(text: str, name: str = "--budget ") -> tuple[float, str]:
    """Read a budget: full runs, or a time.

    Args:
        text: `30` or `30 runs`; `20min`, `2h`.
        name: The argument, as the user writes it.

    Returns:
        The number, and `runs` or `minutes`.

    Raises:
        UserInputError: If it is neither.

    Example:
        >>> parse_budget("30"), parse_budget("1.5h")
        ((30.0, 'runs'), (90.0, 'minutes'))
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(|runs?|m|min|minutes?|h|hours?)\s*", text)
    if not found or not float(found[1]):
        raise UserInputError(f"{name}{text!r}: give full runs, as in 30, or a time, as in 20min or 2h.")
    number, unit = float(found[1]), found[2]
    if unit in ("", "run", "runs"):
        return number, "runs"
    return number * (60 if unit.startswith("h") else 1), "minutes"


def plan(
    specs: Sequence[MethodSpec],
    seeds: Sequence[int],
    epochs: int,
    prune_ratio: float,
    rehearsal: Rehearsal,
    budget: tuple[float, str] | None = None,
    jobs: int = 1,
) -> Plan:
    """Return what will be run: all of it, or what fits into a budget.

    Args:
        specs: The methods.
        seeds: What the user asks for; a budget may take fewer, or go on to more.
        epochs: Of a full run.
        prune_ratio: As in the settings.
        rehearsal: Of the task, which has timed its steps.
        budget: As `parse_budget` gives it.
        jobs: Runs at once.

    Raises:
        UserInputError: If not even the smallest comparison fits.
    """
    minute = epochs * rehearsal.epoch_seconds / 60 if rehearsal.n_batches else math.nan
    if budget is None:
        return _sized(specs, seeds, epochs, epochs, prune_ratio, False, minute / jobs)
    limit, unit = budget
    if unit == "minutes":
        if math.isnan(minute):
            raise UserInputError("--budget in minutes needs a loader whose length is known: give it in full runs.")
        limit = limit * jobs / minute
    for n_seeds in range(max(len(seeds), MOST_SEEDS), MIN_SEEDS - 1, -1):
        found = _sized(specs, _at_least(seeds, n_seeds), epochs, epochs, prune_ratio, True, minute / jobs)
        if found.full_runs <= limit:
            return found
    for fewer in range(epochs - 1, max(MIN_EPOCHS, math.ceil(MIN_SHARE * epochs)) - 1, -1):
        found = _sized(specs, _at_least(seeds, MIN_SEEDS), fewer, epochs, prune_ratio, True, minute / jobs)
        if found.full_runs <= limit:
            return found
    whole = found
    for part in PARTS:
        if part * rehearsal.n_train < MIN_SAMPLES:
            break
        full_runs, minutes = part * whole.full_runs, part * whole.minutes
        found = replace(whole, full_runs=full_runs, minutes=minutes, share_of_data=part)
        if found.full_runs <= limit:
            return found
    of_data = f" on {share(found.share_of_data)} of the data" if found.share_of_data < 1 else ""
    raise UserInputError(
        f"--budget: the smallest comparison that says anything, {found.epochs} epochs and"
        f" {MIN_SEEDS} seeds{of_data}, costs {found.full_runs:.3g} full runs, not {limit:.3g}: give more, or fewer"
        " methods."
    )


def _at_least(seeds: Sequence[int], n: int) -> list[int]:
    """The first n seeds, the user's own first."""
    more = (seed for seed in range(n + len(seeds)) if seed not in seeds)
    return [*seeds, *more][:n]


def _sized(
    specs: Sequence[MethodSpec],
    seeds: Sequence[int],
    epochs: int,
    of_epochs: int,
    prune_ratio: float,
    halving: bool,
    minutes_of_full: float,
) -> Plan:
    share_of_epochs = epochs / of_epochs
    full = any(spec.label == FULL for spec in specs)
    short = any(spec.label == SHORT for spec in specs)
    costs = sorted((_cost(spec, prune_ratio) for spec in specs if spec.cls is not None), reverse=True)
    n_runs, cost = 0, 0.0
    for done in range(len(seeds)):
        going = costs[: math.ceil(len(costs) / 2**done)] if halving else costs
        n_runs += full + len(going) * (1 + short)
        # a method's line on full data is bracketed by two runs at most, many of which it shares with others
        cost += full + sum(going) * (1 + short)
    cost *= share_of_epochs
    return Plan(epochs, of_epochs, list(seeds), halving, n_runs, cost, cost * minutes_of_full)


def _cost(spec: MethodSpec, prune_ratio: float) -> float:
    """Of a run in full runs, roughly: its budget, or what it says it drops; one that says nothing is taken for full."""
    assert spec.cls is not None
    _, _, arguments = spec.written(prune_ratio)
    accepted = accepted_arguments(spec.cls)
    budget = arguments.get("budget", accepted["budget"].default if "budget" in accepted else None)
    if budget is not None:
        return float(budget)
    ratio = read_prune_ratio(arguments.get("prune_ratio", 0.0))
    return 1 - (ratio.average() if isinstance(ratio, RatioSchedule) else first_ratio(ratio, 0))


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
