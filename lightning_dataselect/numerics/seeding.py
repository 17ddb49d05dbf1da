"""Random generators of our own, so that the user's global random state is never touched."""

from __future__ import annotations

import random

import torch


def epoch_generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded by its arguments alone, so that it draws the same on every rank and resume.

    Args:
        seed: The selector's seed.
        epoch: 0-based epoch.
        purpose: Keeps the draws of one epoch apart, say ``"order"`` and ``"select"``.

    Example:
        >>> a, b = (torch.rand(1, generator=epoch_generator(0, 3, "order")) for _ in range(2))
        >>> bool(a == b)
        True
    """
    mixed = random.Random(f"{seed}/{epoch}/{purpose}").getrandbits(63)
    return torch.Generator().manual_seed(mixed)
