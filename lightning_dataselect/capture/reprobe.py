"""The rule for when a step is probed again: by the kinds of step that are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TypeAlias

from lightning_dataselect.capture.loss.graph import Unknown

Way: TypeAlias = frozenset[Hashable]


# Two kinds of step may alternate: the one that was missed is at most this many steps away.
_PROBES = 2


# A loss with the same terms that is put together differently may have a new term, or a compiler may have changed the
# names: it is probed at most this often to find out.
_TRIES = 2


class ReprobePolicy:
    """Keep the kinds of step that are known, each by the terms of its loss, and say when to probe again.

    Attributes:
        known: The ways that probes have seen.
        probes: How many of the next steps are to be probed.

    Example:
        >>> policy = ReprobePolicy()
        >>> policy.settle(frozenset("a")), policy.probes
        (True, 0)
        >>> policy.check(frozenset("b")), policy.probes
        (False, 2)
        >>> policy.settle(frozenset("b")), policy.check(frozenset("b"), unknown=(("MeanBackward0",),))
        (True, False)
    """

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Know no kind of step, and call for a probe."""
        self.known: set[Way] = set()
        self.probes = 1
        self._lost = False
        self._tries: Counter[tuple[Way, Unknown]] = Counter()

    def probe_next(self, n: int = 1) -> None:
        """Call for a probe of the next step, or of the next ``n``."""
        self.probes = max(self.probes, n)

    def probe_turns(self) -> None:
        """Call for enough probes to meet a step of this kind again, even if it alternates with another kind."""
        self.probes, self._lost = _PROBES, True

    def give_up(self) -> None:
        """Call for no more probes, after one that has found nothing sound."""
        self.probes, self._lost = 0, False

    def check(self, way: Way, unknown: Unknown | None = None) -> bool:
        """Tell, after a step without a probe, if its way is known; if not, call for probes.

        Args:
            way: The terms of its loss.
            unknown: What else each of its losses was put together from; None if that is not known.
        """
        if way not in self.known:
            self.probe_turns()
            return False
        if unknown is None or self._tries[way, unknown] >= _TRIES:
            return True
        self._tries[way, unknown] += 1
        self.probes = _PROBES
        return False

    def settle(self, way: Way, unknown: Unknown | None = None) -> bool:
        """Tell, after a probe, if steps of this kind can be read without further probes.

        They cannot if a step was lost although probes show nothing new.
        """
        seen = unknown is None or self._tries[way, unknown] >= _TRIES
        if unknown is not None:
            self._tries[way, unknown] = _TRIES
        if way and (way not in self.known or not (seen or self._lost)):
            self.known.add(way)
            self.probes, self._lost = 0, False
            return True
        self.probes -= 1
        found = self.probes > 0 or not self._lost
        if not found:
            self._lost = False
        return found
