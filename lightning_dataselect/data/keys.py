"""Keys of samples: strings and whole numbers, as plain as a checkpoint can hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from lightning_dataselect.state.stream_store import Key


def plain_key(given: Any) -> Key | None:
    """Return a key as Python's own ``str``, ``bytes`` or ``int``; None if it is none of them.

    Checkpoints are read without trust, by which those of NumPy would be refused.

    Example:
        >>> plain_key(np.str_("a")), plain_key(np.int64(7)), plain_key(True), plain_key(0.5)
        ('a', 7, None, None)
    """
    if isinstance(given, np.generic) or (isinstance(given, Tensor) and given.dim() == 0):
        given = given.item()
    if isinstance(given, str):
        return str(given)
    if isinstance(given, bytes):
        return bytes(given)
    return int(given) if isinstance(given, int) and not isinstance(given, bool) else None
