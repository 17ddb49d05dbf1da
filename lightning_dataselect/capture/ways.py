"""When a step is to be probed: at first, and when it goes a way that no probe has seen."""

from __future__ import annotations

from collections.abc import Hashable

# Steps of two kinds may take turns: the one that was missed is at most this many steps away.
_PROBES = 2


class Ways:
    """The kinds of step that are known, each by the terms of its loss.

    Attributes:
        known: the ways that probes have seen.
        probes: how many of the next steps are to be probed.

    Example:
        >>> ways = Ways()
        >>> ways.settle(frozenset("a")), ways.probes
        (True, 0)
        >>> ways.check(frozenset("b")), ways.probes
        (False, 2)
    """

    def __init__(self) -> None:
        self.known: set[frozenset[Hashable]] = set()
        self.probes = 1
        self._lost = False

    def probe_next(self) -> None:
        """Call for a probe of the next step."""
        self.probes = max(self.probes, 1)

    def give_up(self) -> None:
        """After a probe that has found nothing sound: call for no more of them."""
        self.probes, self._lost = 0, False

    def check(self, way: frozenset[Hashable]) -> bool:
        """After a step without a probe: whether its way is known; if not, call for probes."""
        if way in self.known:
            return True
        self.probes, self._lost = _PROBES, True
        return False

    def settle(self, way: frozenset[Hashable]) -> bool:
        """After a probe: whether steps of this kind can be followed without.

        They cannot if a step has been lost, and probes show nothing that was not known.
        """
        if way and way not in self.known:
            self.known.add(way)
            self.probes, self._lost = 0, False
            return True
        self.probes -= 1
        found = self.probes > 0 or not self._lost
        if not found:
            self._lost = False
        return found
