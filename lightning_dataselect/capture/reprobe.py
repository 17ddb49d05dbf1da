"""When a step is to be probed: at first, and when it goes a way that no probe has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TypeAlias

Way: TypeAlias = frozenset[Hashable]
Unknown: TypeAlias = tuple[tuple[str, ...], ...]

# Steps of two kinds may take turns: the one that was missed is at most this many steps away.
_PROBES = 2
# A loss with the same terms that is put together from something else may have got a new term, or a compiler may have
# changed the names: this often probes go and see.
_TRIES = 2


class ReprobePolicy:
    """The kinds of step that are known, each by the terms of its loss.

    Attributes:
        known: the ways that probes have seen.
        probes: how many of the next steps are to be probed.

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
        self.known: set[Way] = set()
        self.probes = 1
        self._lost = False
        self._tries: Counter[tuple[Way, Unknown]] = Counter()

    def probe_next(self) -> None:
        """Call for a probe of the next step."""
        self.probes = max(self.probes, 1)

    def give_up(self) -> None:
        """After a probe that has found nothing sound: call for no more of them."""
        self.probes, self._lost = 0, False

    def check(self, way: Way, unknown: Unknown | None = None) -> bool:
        """After a step without a probe: whether its way is known; if not, call for probes.

        Args:
            way: the terms of its loss.
            unknown: what else each of its roots was put together from; None where nobody can tell.
        """
        if way not in self.known:
            self.probes, self._lost = _PROBES, True
            return False
        if unknown is None or self._tries[way, unknown] >= _TRIES:
            return True
        self._tries[way, unknown] += 1
        self.probes = _PROBES
        return False

    def settle(self, way: Way, unknown: Unknown | None = None) -> bool:
        """After a probe: whether steps of this kind can be followed without.

        They cannot if a step has been lost, and probes show nothing that was not known.
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
