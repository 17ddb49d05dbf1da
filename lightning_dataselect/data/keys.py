"""Keys of samples: strings and whole numbers, as plain as a checkpoint can hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from lightning_dataselect.state.stream_store import Key
from lightning_dataselect.utils.errors import DataSelectError, InvalidArgumentError, one_line


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


def named(sample_id: object) -> str:
    """Return what to call a ``sample_id`` in a message: a function by its name, without its address.

    Example:
        >>> named("id"), named(plain_key)
        ("sample_id='id'", 'sample_id=plain_key')
    """
    return f"sample_id={getattr(sample_id, '__name__', sample_id) if callable(sample_id) else repr(sample_id)}"


def call_for_keys(sample_id: Callable[[Any], Any], given: Any, what: str) -> Any:
    """Return what the user's function says of a batch, or of a data set.

    Args:
        sample_id: The function.
        given: What it is given.
        what: What that is, for the message.

    Raises:
        InvalidArgumentError: If the function fails.

    Example:
        >>> call_for_keys(lambda batch: batch["key"], {"id": [1]}, "the batch (dict)")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: sample_id=<lambda> fails for the batch (dict): Key...
    """
    try:
        return sample_id(given)
    except DataSelectError:
        raise
    except Exception as error:
        raise InvalidArgumentError(
            f"{named(sample_id)} fails for {what}: {one_line(error)}. It must return one key per sample, in a list,"
            " an array or a tensor."
        ) from error
