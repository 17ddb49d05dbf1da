"""Keep what code says to itself where it runs along a way that it has not taken."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Show nothing that is printed, logged or warned of meanwhile; what has been shown once can be shown again.

    Example:
        >>> with quietly():
        ...     print("the loss is NaN")
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
    finally:
        logging.disable(disabled)
