"""The moment of a fit that a kill meets: its processes mark where they enter and leave what matters.

Such a moment may last less than a millisecond, in which nobody outside could aim at it: a process that is to die in one
sets an alarm that nobody handles, so that the system ends it as SIGKILL does, whatever it is doing by then.
"""

import contextlib
import functools
import os
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_MARK = struct.Struct("=?Bid")  # begins, which moment, process, second
MOMENTS = ["checkpoint", "selection", "merging", "Assistant", "reader"]


@dataclass(frozen=True)
class Aim:
    """When a process is to die.

    Attributes:
        moment: In which it dies.
        times: How many times it has entered that by then.
        seconds: How long after it has entered it.
    """

    moment: str
    times: int
    seconds: float


class Marker:
    """Write marks into a pipe; used in the processes of a fit.

    Args:
        pipe: The end of it that is written to.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._begun = Counter[str]()
        self.aim: Aim | None = None

    @contextlib.contextmanager
    def within(self, moment: str) -> Iterator[None]:
        """Mark the beginning and the end of a moment."""
        self._write(True, moment)
        self._begun[moment] += 1
        if self.aim is not None and (self.aim.moment, self.aim.times) == (moment, self._begun[moment]):
            signal.setitimer(signal.ITIMER_REAL, max(self.aim.seconds, 1e-6))
        yield
        self._write(False, moment)

    def around(self, owner: Any, name: str, moment: str) -> None:
        """Mark each call of the function ``name`` of ``owner``, for as long as the process lives."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            with self.within(moment):
                return function(*args, **kwargs)

        setattr(owner, name, marked)

    def _write(self, begins: bool, moment: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # of a worker whose fit was killed
            os.write(self._pipe, _MARK.pack(begins, MOMENTS.index(moment), os.getpid(), time.monotonic()))


@dataclass
class Watch:
    """Read the marks of a fit's processes, as they come.

    Attributes:
        pipe: The end of the pipe that is read from.
        begun: How often each moment was entered.
        seconds: How long its moments have lasted in all.
    """

    pipe: int
    begun: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    _since: dict[tuple[str, int], float] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what has been marked so far."""
        while True:
            try:
                found = os.read(self.pipe, _MARK.size)
            except BlockingIOError:
                return
            if not found:
                return
            begins, which, process, second = _MARK.unpack(found)
            moment = MOMENTS[which]
            if begins:
                self.begun[moment] += 1
                self._since[moment, process] = second
            else:
                self.seconds[moment] += second - self._since.pop((moment, process))  # type: ignore[assignment]

    @property
    def open(self) -> set[str]:
        """The moments that were entered and not left."""
        return {moment for moment, _ in self._since}


@contextlib.contextmanager
def watched() -> Iterator[tuple[Watch, Marker]]:
    """Make a pipe, and both of its ends."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    try:
        yield Watch(reads), Marker(writes)
    finally:
        os.close(reads)
        os.close(writes)
