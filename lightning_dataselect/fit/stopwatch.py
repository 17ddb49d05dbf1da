"""The seconds that an epoch trains, validation left out."""

from __future__ import annotations

import time


class Stopwatch:
    """Count seconds since the last :meth:`restart`, but for those between :meth:`pause` and :meth:`resume`."""

    def __init__(self) -> None:
        self._started = self._paused = 0.0

    def restart(self) -> None:
        """Begin at zero."""
        self._started = time.perf_counter()

    def pause(self) -> None:
        """Stop counting."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """Go on counting."""
        self._started += time.perf_counter() - self._paused

    def read(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._started
