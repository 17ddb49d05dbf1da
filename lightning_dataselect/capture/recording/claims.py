"""Check what is claimed to divide a term against its coefficient in every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.terms import Key, Scale

_SAME = 1e-3  # of two products that are equal but for rounding


class Claims:
    """Tell from step to step which of several divisors a term has.

    The product of the coefficient and the right divisor stays the same, whatever the batch; that of another one
    does so while the two happen to be equal. A coefficient that changes by itself, as one that is drawn does, rules
    out nothing. Nothing here waits for the device but `read` and `left`.

    Example:
        >>> claims, size = Claims(), 8
        >>> for size in (8, 8, 5):  # a sum over the samples times 1 / size, which might have been 1 / 8
        ...     choice = claims.choose(("sum", 0), [0.125, 1.0], [1 / size, 1.0], torch.device("cpu"))
        ...     choice.item(), claims.read()
        (0, False)
        (0, False)
        (1, True)
    """

    def __init__(self) -> None:
        self._standing: dict[Key, tuple[Tensor, Tensor]] = {}  # the products that were found, and which may be right
        self._turned: Tensor | None = None

    def choose(self, key: Key, found: Sequence[float], products: Sequence[Scale], device: torch.device) -> Tensor:
        """Return the turn of the first divisor that all steps have left standing, int64 (1,).

        Args:
            key: Of the term.
            found: The product of each divisor and the coefficient when the claims were made.
            products: Those of this step.
            device: Of the term.
        """
        if key not in self._standing:
            self._standing[key] = torch.tensor(found, device=device), torch.ones(len(found), device=device).bool()
        before, standing = (part.to(device) for part in self._standing[key])
        now = torch.stack(
            [torch.as_tensor(product, device=device).detach().float().reshape(()) for product in products]
        )
        fits = standing & ((now - before).abs() <= _SAME * before.abs())
        left = torch.where(fits.any(), fits, standing)
        self._standing[key] = before, left
        choice = left.int().argmax(0, keepdim=True)
        turned = choice != standing.int().argmax(0, keepdim=True)
        self._turned = turned if self._turned is None else self._turned.to(device) | turned
        return choice

    def contradict(self) -> None:
        """Note that a claim has turned out wrong by other means."""
        self._turned = torch.ones(1, dtype=torch.bool)

    def read(self, *, wait: bool = True) -> bool:
        """Tell if a claim that steps were read by has turned out wrong since the last call.

        Args:
            wait: False to leave an answer that is still on a device to a later call.
        """
        turned = self._turned
        if turned is None or not (wait or turned.is_cpu):
            return False
        self._turned = None
        return bool(turned)

    def left(self) -> dict[Key, list[bool]]:
        """Return of each term's divisors whether they may be right, and begin anew."""
        found = {key: standing.tolist() for key, (_, standing) in self._standing.items()}
        self._standing = {}
        return found
