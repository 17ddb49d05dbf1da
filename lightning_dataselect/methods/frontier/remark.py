"""The remark on Frontier's choices in the line that ends a fit."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_dataselect.methods.frontier.held_out import HeldOut
from lightning_dataselect.methods.frontier.rule import Decision

_ADVICE = (
    ". Some labels seem to be wrong, and the model learns them by heart: a smaller budget may well end higher, so"
    " compare with one of half the size"
)


def say_what_was_left_out(decisions: Sequence[Decision]) -> str:
    """Return which kinds of samples were left out, and since when; the others had their turn, one after the other.

    Example:
        >>> say_what_was_left_out([])
        '; all samples in turn, as losses gave no reason to leave any out'
    """
    since = {
        kind: next((decision.epoch for decision in decisions if getattr(decision, kind)), None)
        for kind in ("learnt", "contradicted")
    }
    kinds = [f"{kind} ones after {epoch} epochs" for kind, epoch in since.items() if epoch is not None]
    why = f"but for {' and '.join(kinds)}" if kinds else "as losses gave no reason to leave any out"
    return f"; all samples in turn, {why}"


def say_why_it_stopped(taken: float, planned: float, measured: Sequence[HeldOut]) -> str:
    """Return why a fit stopped early.

    Args:
        taken: Passes that it took.
        planned: Passes that the budget has room for.
        measured: The measurements of held-out samples.

    Example:
        >>> before, last = HeldOut(4, 2.0, 1.4, 1.2), HeldOut(6, 3.0, 1.5, 1.1)
        >>> say_why_it_stopped(4.5, 10.0, [before, last])
        '. It stopped early, after 4.5 of 10.0 passes, as more of them would only memorize: the mean loss of held-out \
samples went from 1.400 to 1.500, and that of others, trained on, from 1.200 to 1.100'
    """
    before, last = measured[-2:]
    return (
        f". It stopped early, after {taken:.1f} of {planned:.1f} passes, as more of them would only memorize: the mean"
        f" loss of held-out samples went from {before.loss:.3f} to {last.loss:.3f}, and that of others, trained on,"
        f" from {before.control_loss:.3f} to {last.control_loss:.3f}"
    )


def advise(last: Decision) -> str:
    """Return the advice that follows from the last decision; ``""`` for none."""
    return _ADVICE if last.memorizes and last.suspected else ""
