"""Advice for steps whose per-sample losses cannot be read, where the reason does not say it itself."""

from __future__ import annotations

from typing import Final

OWN_LOSS: Final = "Return each sample's own loss under a key and give sample_loss='that key'."
"""For a step in which each sample has a loss, but it is not told apart from the others'."""

NO_OWN_LOSS: Final = (
    "RandomPruning needs no per-sample loss; or return a score for each sample under a key and give sample_loss='that"
    " key'."
)
"""For a step in which no sample has a loss of its own."""

EITHER: Final = f"{OWN_LOSS} RandomPruning needs no per-sample loss at all."
"""For a step of which it is not known which of the two it is."""
