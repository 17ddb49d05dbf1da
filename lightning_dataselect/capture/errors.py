"""What is said when no per-sample loss can be had."""

from lightning_dataselect.utils.errors import DataSelectError

FIX = (
    "Return a dict with a per-sample loss from the step and set sample_loss='its key', or set "
    "sample_loss to a callable that computes it from what the step returns; RandomPruning needs no per-sample loss at "
    "all."
)


class CaptureError(DataSelectError, ValueError):
    """No sound per-sample loss was found; the message says what was, and what to do.

    Example:
        >>> print(str(CaptureError("The step returned no loss."))[:42])
        The step returned no loss. Return a dict w
    """

    def __str__(self) -> str:
        # not in the constructor, which copying and pickling call again
        return f"{super().__str__()} {FIX}"


class NoLossReturned(CaptureError):
    """The step returned None before it computed a loss, as Lightning lets it do for a batch that it cannot use."""
