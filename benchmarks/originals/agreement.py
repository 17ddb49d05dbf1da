"""Compare two results side by side."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

DIFFERS = "differs"


class Compared(NamedTuple):
    """One line of the table: what was compared, what each side gave, and how far they agree."""

    what: str
    theirs: str
    ours: str
    agreement: str


def samples(what: str, theirs: Any, ours: Any) -> Compared:
    """Compare two sets of samples by their indices."""
    a, b = (set(np.asarray(each).astype(int).tolist()) for each in (theirs, ours))
    share = len(a & b) / max(len(a), len(b), 1)
    return Compared(what, f"{len(a):,}", f"{len(b):,}", "the same samples" if a == b else f"{_floor(share)} the same")


def _floor(share: float) -> str:
    return f"{np.floor(share * 1000) / 10:.1f} %"


def numbers(what: str, theirs: Any, ours: Any) -> Compared:
    """Compare two vectors, by the largest difference beside the largest number."""
    a, b = (torch.as_tensor(np.asarray(each, dtype=np.float64)) for each in (theirs, ours))
    gap = float((a - b).abs().max() / a.abs().max().clamp(min=1e-300))
    said = "the same" if gap == 0 else f"within {gap:.0e}"
    return Compared(what, f"mean {float(a.mean()):.4g}", f"mean {float(b.mean()):.4g}", said)


def shown(what: str, sides: Sequence[Any], form: str, agreement: str) -> Compared:
    """Show both sides in the same form."""
    theirs, ours = (form.format(*(side if isinstance(side, tuple) else (side,))) for side in sides)
    return Compared(what, theirs, ours, agreement)


def counts(what: str, theirs: object, ours: object) -> Compared:
    """Compare two numbers that are shown as they are."""
    a, b = (f"{each:,}" if isinstance(each, int) else str(each) for each in (theirs, ours))
    return Compared(what, a, b, "the same" if a == b else DIFFERS)


def chances(draw: Callable[[int], Any], n: int, times: int) -> Tensor:
    """Return how often each of ``n`` samples is taken by ``draw(seed)``, float64 (n,)."""
    taken = torch.zeros(n, dtype=torch.float64)
    for seed in range(times):
        taken[torch.as_tensor(np.asarray(draw(seed)).astype(np.int64))] += 1
    return taken / times


def tenths(what: str, order: Tensor, theirs: Tensor, ours: Tensor) -> Compared:
    """Compare chances by tenths of the samples in ``order`` of a score; chance alone moves them a little."""
    a, b = (torch.stack([each[part].mean() for part in order.argsort().chunk(10)]) for each in (theirs, ours))
    gap = float((a - b).abs().max())
    return shown(what, [(float(each[0]), float(each[-1])) for each in (a, b)], "{:.3f} to {:.3f}", f"within {gap:.3f}")
