"""Notice steps that differ from those by which the reading of their loss was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.terms import Key, Scale

_SAME = 1e-3  # of two products that are equal but for rounding


class Doubts:
    """Note what may have been misread because the batches so far could not show it.

    A coefficient that changes may be drawn, learned or scheduled. But it may also hold a number that is counted in the
    batch out of sight, such as the share of a mask, and was the same for all samples so far. Where each element is
    divided by such a number before the mean, no coefficient shows it, but there are elements that are 0 all at once,
    more in some samples than in others. And where the rows of samples lie one after the other, they may be as many of
    each sample by chance, until there are more of all. None of this proves anything: the witness has to run again.

    Nothing here waits for a device but `read`.

    Example:
        >>> import torch
        >>> doubts = Doubts()
        >>> doubts.coefficient("mean", [1.0], [torch.tensor(1.0)])
        >>> doubts.read()
        set()
        >>> doubts.coefficient("mean", [1.0], [torch.tensor(1.25)])
        >>> doubts.rows("mean", torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
        >>> doubts.read()
        {'mean'}
    """

    def __init__(self) -> None:
        self.found: dict[Key | None, bool | Tensor] = {}
        """The terms that may be doubtful since they were read last, None for the step; {} in most steps."""
        self.changed: dict[Key, bool | Tensor] = {}
        """The terms that no single sample has shown, whose coefficients have changed for no known reason."""
        self._products: dict[Key, list[Tensor]] = {}  # of these, as they were met first
        self._directions: dict[Key, Tensor] = {}
        self.counts: list[int] | None = None
        """Of the last step that has shown unlike samples: how many of its elements are not 0, sample by sample."""

    def coefficient(self, key: Key, found: Sequence[float], products: Sequence[Scale]) -> None:
        """Doubt a term if none of its readings leaves the product of coefficient and divisor as it was found.

        Args:
            key: Of the term.
            found: The product by each reading when it was found.
            products: Those of this step.
        """
        self._note(self.found, key, _are_others(found, products))

    def change(self, key: Key, products: Sequence[Scale]) -> None:
        """Take note if the product of coefficient and divisor is another one than at first by each reading of a term.

        Args:
            key: Of the term.
            products: By each reading, in this step.
        """
        before = self._products.get(key, ())
        if len(before) == len(products):
            self._note(self.changed, key, _are_others(before, products))
        else:
            self._products[key] = [torch.as_tensor(product).detach() for product in products]

    def read_changes(self) -> set[Key]:
        """Return the terms that have changed since the last call, but for what would have to be waited for."""
        ready = {key: found for key, found in self.changed.items() if isinstance(found, bool) or found.is_cpu}
        self.changed = {key: found for key, found in self.changed.items() if key not in ready}
        return {key for key, found in ready.items() if bool(found)}

    def direction(self, key: Key, direction: Tensor) -> None:
        """Doubt a term if its outputs weigh otherwise by each other than they did so far.

        Args:
            key: Of the term.
            direction: The coefficients of its outputs, of which the largest is 1.
        """
        before = self._directions.setdefault(key, direction)
        if before is not direction:
            differs = ((before.to(direction.device) - direction).abs() > _SAME).any()
            self._directions[key] = direction
            self._note(self.found, key, bool(differs) if differs.is_cpu else differs)

    def rows(self, key: Key, rows: Tensor) -> None:
        """Doubt a term if some samples have more elements that are 0 than others.

        Args:
            key: Of the term, of whose samples all had as many so far.
            rows: (B, n), its elements.
        """
        counts = rows.count_nonzero(1)
        differs = (counts != counts[0]).any()
        if not differs.is_cpu:
            self._note(self.found, key, differs)
        elif differs:
            self.counts = counts.tolist()
            self._note(self.found, key, True)

    def note(self, key: Key | None) -> None:
        """Doubt a term, or, by None, all of the step."""
        self.found[key] = True

    @staticmethod
    def _note(found: dict[Any, bool | Tensor], key: Key, is_doubtful: bool | Tensor) -> None:
        if is_doubtful is False:
            return
        before = found.get(key)
        found[key] = is_doubtful if before is None else before | is_doubtful

    def read(self, *, wait: bool = True) -> set[Key | None]:
        """Return the terms that are doubtful since the last call, None for the step.

        Args:
            wait: False to keep for a later call what would have to be waited for.
        """
        ready = {key: found for key, found in self.found.items() if wait or isinstance(found, bool)}
        self.found = {key: found for key, found in self.found.items() if key not in ready}
        return {key for key, found in ready.items() if bool(found)}


def _are_others(found: Sequence[Scale], products: Sequence[Scale]) -> bool | Tensor:
    """Tell if each of some numbers is another one than before; without waiting for a device."""
    are_others: Any = True
    pairs: Any = zip(found, products, strict=True)
    for before, now in pairs:
        number: Any = float(now) if not isinstance(now, Tensor) or now.is_cpu else now
        are_others = (abs(number - before) > _SAME * abs(before)) & are_others
    return bool(are_others) if not isinstance(are_others, Tensor) or are_others.is_cpu else are_others
