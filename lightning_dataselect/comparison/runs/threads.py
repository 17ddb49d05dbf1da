"""The number of threads that runs compute with: one, unless several are faster.

A small operation that is shared out among threads waits for the last of them. Where anything else runs on the machine,
that one waits for a core while the others spin, and a step takes many times as long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

# A longer step has operations that are large enough to be shared out; trying it on one thread could take minutes.
_LONGEST_TRIED = 1.0
# By less than this it may be chance, and one thread takes less CPU time for the same.
GAIN = 0.9
_VARIABLES = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}


def choose(
    seconds: float,
    time_on_one: Callable[[], float],
    *,
    device: str,
    environment: Mapping[str, str] = os.environ,
) -> tuple[int, str]:
    """Return how many threads runs should have, and what to tell the user about it.

    Args:
        seconds: Time of a step with the threads that torch has now.
        time_on_one: Measures the same with one thread; called only where that can matter.
        device: What is trained on.
        environment: Variables that may set the number of threads, which is the user's then.

    Returns:
        The number of threads, and a sentence, which is empty if torch keeps those that it has.

    Example:
        >>> with using(2):
        ...     small = choose(0.060, lambda: 0.0015, device="cpu", environment={})
        ...     large = choose(0.060, lambda: 0.1, device="cpu", environment={})
        >>> small[0], large[0]
        (1, 2)
    """
    n_threads = torch.get_num_threads()
    is_asked_for = not _VARIABLES.isdisjoint(environment)
    if n_threads == 1 or is_asked_for or device != "cpu" or seconds > _LONGEST_TRIED:
        return n_threads, ""
    with using(1):
        on_one = time_on_one()
    if seconds < GAIN * on_one:
        return n_threads, ""
    return 1, (
        f"Runs compute with one thread: a step takes {1000 * on_one:.3g} ms that way, and {1000 * seconds:.3g} ms with"
        f" {n_threads} (the environment variable OMP_NUM_THREADS={n_threads} keeps these)."
    )


@contextmanager
def using(n_threads: int) -> Iterator[None]:
    """Let torch compute with so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
