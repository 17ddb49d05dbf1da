"""Chosen samples that are still to be trained on, as kept by a run and saved in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Waiting(Protocol):
    """Keep chosen samples that are still to be trained on."""

    def state_dict(self) -> dict[str, Any]:
        """Return them in the form in which they are saved; never empty."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what was saved."""
