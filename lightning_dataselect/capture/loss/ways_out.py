"""Advice for steps whose per-sample losses cannot be read, where the reason does not say it itself."""

from __future__ import annotations

from typing import Final

NEED_NONE: Final = "RandomPruning and FewerEpochs need no per-sample losses."
"""For a user whose method needs them."""

OWN_LOSS: Final = "Return each sample's own loss under a key and give sample_loss='that key'."
"""For a step in which each sample has a loss, but it is not told apart from the others'."""

NO_OWN_LOSS: Final = f"Return a score for each sample under a key and give sample_loss='that key'. {NEED_NONE}"
"""For a step in which no sample has a loss of its own."""

EITHER: Final = f"{OWN_LOSS} {NEED_NONE}"
"""For a step of which it is not known which of the two it is."""


def without_other_methods(advice: str) -> str:
    """Return advice for a user whose method needs no per-sample losses.

    Example:
        >>> without_other_methods(f"The step mixes its samples. {EITHER}")
        "The step mixes its samples. Return each sample's own loss under a key and give sample_loss='that key'."
    """
    return advice.replace(f" {NEED_NONE}", "")
