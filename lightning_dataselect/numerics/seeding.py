"""Random generators of our own, so that the user's global random state is never touched."""

from __future__ import annotations

import random

import torch


def epoch_generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments: what it draws is the same on every rank and resume.

    Args:
        seed: the selector's seed.
        epoch: 0-based epoch.
        purpose: keeps the draws of one epoch apart, say ``"order"`` and ``"select"``.

    Example:
        >>> a, b = (torch.rand(1, generator=epoch_generator(0, 3, "order")) for _ in range(2))
        >>> bool(a == b)
        True
    """
    mixed = random.Random(f"{seed}/{epoch}/{purpose}").getrandbits(63)
    return torch.Generator().manual_seed(mixed)
