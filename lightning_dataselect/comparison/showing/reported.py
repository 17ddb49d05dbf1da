"""A comparison, as those who write and draw it need it."""

from __future__ import annotations

from typing import Any, Protocol

from lightning_dataselect.comparison.findings.advice import Advice
from lightning_dataselect.comparison.findings.summary import Summary
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.tasks.task import Task


class Reported(Protocol):
    """Say what was compared, and what came out."""

    @property
    def task(self) -> Task:
        """The task that was compared on."""

    @property
    def settings(self) -> Settings:
        """The methods, seeds and metric."""

    @property
    def outcome(self) -> Outcome:
        """The runs, and those that failed."""

    @property
    def summary(self) -> Summary:
        """The rows and what they mean."""

    @property
    def advice(self) -> Advice:
        """The recommendation."""

    def described(self) -> dict[str, Any]:
        """Return everything as plain values."""

    def json(self) -> str:
        """Return the same as JSON."""
