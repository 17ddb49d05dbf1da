"""The seconds that an epoch trains, without validation."""

from __future__ import annotations

import time


class Stopwatch:
    """Count the seconds since the last :meth:`restart`, except those between :meth:`pause` and :meth:`resume`."""

    def __init__(self) -> None:
        self._started = self._paused = 0.0

    def restart(self) -> None:
        """Start from zero."""
        self._started = time.perf_counter()

    def pause(self) -> None:
        """Stop counting."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """Continue counting."""
        self._started += time.perf_counter() - self._paused

    def read(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._started
