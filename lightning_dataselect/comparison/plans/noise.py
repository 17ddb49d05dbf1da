"""React to labels that the rest of the data contradicts: some methods join `--methods auto`, others are given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_dataselect.comparison.plans.numbers import share
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods

# Of those that `benchmarks.noisy_labels` has measured with 20 % and 40 % of the labels flipped: level with full data at
# equal compute, and those that lost to it because they train on the highest losses.
STANDS_NOISE = ("InfoBatch", "SeTa", "random")
PREFERS_HIGH_LOSSES = ("EL2N", "ESWP", "RHOLoss", "SelectiveBackprop", "UCB")


@dataclass(frozen=True)
class Noise:
    """Wrong labels that a run has found, and the methods that it changes.

    Attributes:
        found_by: The method that found them.
        share: Of the training samples, those that it left out of a pass as contradicted.
        joined: Methods that run from now on.
        given_up: Methods that run no more.
    """

    found_by: str
    share: float
    joined: Sequence[str]
    given_up: Sequence[str]

    def text(self) -> str:
        """Return what was found, and what follows from it."""
        found = (
            f"{self.found_by} found in its first run that the rest of the data contradicts the labels of"
            f" {share(self.share)} of the samples"
        )
        told = []
        if self.joined:
            verb = "has" if len(self.joined) == 1 else "have"
            told.append(f"{_listed(self.joined)}, which coped with wrong labels in our measurements, {verb} joined")
        if self.given_up:
            verb = "is" if len(self.given_up) == 1 else "are"
            told.append(f"{_listed(self.given_up)}, which trains on the highest losses, {verb} given up")
        return f"{found}. So {', and '.join(told)}." if told else f"{found}."


def read_noise(
    decisions: Mapping[str, Sequence[Mapping[str, Any]]],
    n_total: int,
    going: Sequence[str],
    *,
    more_seeds: bool,
    grows: bool,
) -> Noise | None:
    """Return what the methods' decisions say of wrong labels, or None if none has found any.

    Args:
        decisions: By method, what it has decided in its first run.
        n_total: Samples of the training set.
        going: Labels of the methods that still run.
        more_seeds: True if there are seeds to come, which a method can be given up before.
        grows: True if more may join than are given up, as a budget does not allow.

    Example:
        >>> made = read_noise({"Frontier": [{"contradicted": True, "n_contradicted": 30}]}, 100, ["Frontier", "ESWP"],
        ...                   more_seeds=True, grows=False)
        >>> made.joined, made.given_up
        (['InfoBatch'], ['ESWP'])
    """
    for method, decided in decisions.items():
        if any(decision["contradicted"] for decision in decided):
            found = max(decision["n_contradicted"] for decision in decided) / n_total
            given_up = [label for label in going if label in PREFERS_HIGH_LOSSES and more_seeds]
            joined = [name for name in STANDS_NOISE if name not in going]
            return Noise(method, found, joined if grows else joined[: len(given_up)], given_up)
    return None


def with_joined(settings: Settings, noise: Noise | None) -> Settings:
    """Return the settings with the methods that have joined, at the end of the table."""
    joined = parse_methods(",".join(noise.joined)) if noise is not None and noise.joined else []
    return replace(settings, methods=[*settings.methods, *joined])


def announced(methods: Sequence[str]) -> str:
    """Return what would happen to the methods of `auto`, for the plan."""
    joined = [name for name in STANDS_NOISE if name not in methods]
    given_up = [name for name in methods if name in PREFERS_HIGH_LOSSES]
    told = [f"{_listed(joined)} join" if len(joined) > 1 else f"{_listed(joined)} joins"] if joined else []
    told += [f"{_listed(given_up)} is given up"] if given_up else []
    return f"If Frontier finds contradicted labels with the first seed, {', and '.join(told)}." if told else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
