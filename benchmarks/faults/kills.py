"""Fits that are killed at random moments, and at those that matter, and go on from their last checkpoint."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.fits import FITS, KilledFit
from benchmarks.faults.moments import Aim, Watch, watched
from benchmarks.faults.processes import error_left, free_port, same, start

_AT_ONCE = 4  # kills of one fit at most, before it may come to its end


@dataclass
class Whole:
    """A fit that was never killed.

    Attributes:
        folder: Where its outcome is.
        seconds: How long it took.
        watches: What each of its ranks marked.
    """

    folder: Path
    seconds: float
    watches: list[Watch]


class Running:
    """A fit under way, of one process or one a rank, whose moments are watched.

    Args:
        what: The fit.
        folder: Where it saves its checkpoints, and each of its ranks leaves its outcome.
        stack: Closes the pipes.
        aims: When a rank is to die by itself.
    """

    def __init__(
        self, what: KilledFit, folder: Path, stack: contextlib.ExitStack, aims: Mapping[int, Aim | None] | None = None
    ) -> None:
        pipes = [stack.enter_context(watched()) for _ in range(what.n_ranks)]
        for rank, aim in (aims or {}).items():
            pipes[rank][1].aim = aim
        port = free_port()
        self.folder = folder
        self.watches = [watch for watch, _ in pipes]
        self.processes = [
            start(_of_rank, folder, what=what, rank=rank, port=port, marker=marker)
            for rank, (_, marker) in enumerate(pipes)
        ]

    def is_alive(self) -> bool:
        """Return whether all of its processes are."""
        for watch in self.watches:
            watch.read()
        return all(process.is_alive() for process in self.processes)

    def error(self) -> str:
        """Wait for all processes; return the first error that one of them ends in."""
        errors = [error_left(process, self.folder) for process in self.processes]
        for watch in self.watches:
            watch.read()
        return next(filter(None, errors), "")


def _of_rank(folder: Path, *, what: KilledFit, rank: int, port: str, marker: Any) -> None:
    if what.n_ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    what.run(folder, marker)


def kills(new: Callable[[], Path], n: int, seed: int = 0) -> Iterator[tuple[str, bool, str]]:
    """Kill each of `FITS` in turn, several times each, until ``n`` kills have met one that was running.

    Half of them come at a random second, half a random part of the way through one of the moments that matter.
    """
    rng, done, met = random.Random(seed), 0, Counter[str]()
    at_once = min(_AT_ONCE, max(n // len(FITS), 1))  # so that each fit is killed
    wholes = {name: _whole(what, new()) for name, what in FITS.items()}
    while done < n:
        for name, what in FITS.items():
            if done == n:
                break
            folder, here, faults = new(), Counter[str](), []
            while done < n and here.total() < at_once:
                landed, fault = _kill(what, wholes[name], folder, rng)
                if fault:
                    faults.append(fault)
                if landed is None:
                    break
                done, here = done + 1, here + Counter([landed])
            error, met = _finish(what, folder), met + here
            if not error and not same(wholes[name].folder, folder):
                error = "it ended otherwise than the fit that was not killed"
            at = ", ".join(f"{moment} {times}" for moment, times in sorted(here.items()))
            words = "; ".join(filter(None, [*faults, error])) or "bit for bit"
            yield f"{name}: killed {here.total()} times ({at})", not (faults or error), words
    found = ", ".join(f"{times} {moment}" for moment, times in met.most_common())
    yield f"{met.total()} kills in all", True, found


def _whole(what: KilledFit, folder: Path) -> Whole:
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        running = Running(what, folder, stack)
        while running.is_alive():
            time.sleep(0.001)
        if error := running.error():
            raise RuntimeError(error)
        return Whole(folder, time.perf_counter() - begun, running.watches)


def _finish(what: KilledFit, folder: Path) -> str:
    """Let a fit come to its end; return the error that it ends in."""
    with contextlib.ExitStack() as stack:
        return Running(what, folder, stack).error()


def _kill(what: KilledFit, whole: Whole, folder: Path, rng: random.Random) -> tuple[str | None, str]:
    """Start a fit and kill it.

    Args:
        what: The fit.
        whole: The same, not killed.
        folder: Where it goes on from.
        rng: Chooses the time, and what is killed.

    Returns:
        What the fit was doing when it was killed, None if it came to its end before; and what was wrong, ``""`` for
        nothing.
    """
    rank, aim = rng.randrange(what.n_ranks), None
    if rng.random() < 0.5:
        moment, known = rng.choice(what.moments), whole.watches[rank]
        lasts = known.seconds[moment] / known.begun[moment]
        # a fit that goes on has fewer of them to come, and a worker that reads counts its own
        times = rng.randint(1, max(1, known.begun[moment] // (20 if moment == "reader" else 2)))
        aim = Aim(moment, times, rng.uniform(0, 0.8 * lasts))
    at, all_at_once = time.perf_counter() + rng.uniform(0, whole.seconds), rng.random() < 0.5
    with contextlib.ExitStack() as stack:
        running = Running(what, folder, stack, {rank: aim})
        one, watch = running.processes[rank], running.watches[rank]
        while running.is_alive() and (aim is not None or time.perf_counter() < at):
            time.sleep(0.001)
        if aim is None and running.is_alive():
            for process in running.processes if all_at_once else [one]:  # a machine, or one process of it
                process.kill()
            one.join()
        elif not any(process.exitcode == -signal.SIGALRM for process in running.processes):
            error = running.error()
            # a worker that reads has died
            return ("reader", "") if error and aim is not None and aim.moment == "reader" else (None, error)
        elif all_at_once:
            for process in running.processes:
                process.kill()
        watch.read()
        hangs = any(error_left(process, folder) == "it hangs" for process in running.processes)
        return " and ".join(sorted(watch.open)) or "between", "another process hangs" if hangs else ""
