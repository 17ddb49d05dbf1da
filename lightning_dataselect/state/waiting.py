"""Chosen samples that are still to be trained on, as a run keeps them and a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Waiting(Protocol):
    """Keep chosen samples that are still to be trained on."""

    def state_dict(self) -> dict[str, Any]:
        """Return them as they are saved; never empty."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was saved."""
