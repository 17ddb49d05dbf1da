"""The settings of a comparison: which methods, on which seeds, and the metric that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_dataselect.comparison.plans.spec import MethodSpec


@dataclass(frozen=True)
class Settings:
    """The methods to compare, and the metric that compares them.

    Attributes:
        methods: In the order of the table.
        seeds: Each method runs once with each.
        prune_ratio: Handed to each method that takes one and names none itself.
        monitor: The metric that counts.
        maximize: Whether more of it is better.
        out: The folder for runs and report.
        test: Whether each run ends with a look at the test set, kept as `RunRecord.tested`.
        halving: Whether the worse half of the methods is dropped after each seed; see `plan`.
        jobs: How many runs go on at once.
        auto: True if the methods are those of `auto`, which wrong labels that are found change; see `noise`.
    """

    methods: Sequence[MethodSpec]
    seeds: Sequence[int]
    prune_ratio: float
    monitor: str
    maximize: bool
    out: Path
    test: bool = False
    halving: bool = False
    jobs: int = 1
    auto: bool = False
