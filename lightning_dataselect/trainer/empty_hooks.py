"""The batch hooks that a callback leaves empty, but which the Trainer calls all the same."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import Restore, patch_attribute

# without the hooks that selectors define themselves
HOOKS_OF_A_BATCH = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_validation_batch_start",
    "on_validation_batch_end",
)


def pass_over_empty_hooks(callback: Any) -> Restore:
    """Make the Trainer skip the batch hooks that ``callback`` does not define.

    It calls whatever is callable, and starts and stops its profiler around each call: in a training step of a
    millisecond, four such hooks cost more than 1 %.

    Args:
        callback: A callback of the Trainer; hooks that are defined by its class, or set on the instance, stay.

    Returns:
        A function that undoes this.

    Example:
        >>> class Counting(pl.Callback):
        ...     def on_before_backward(self, *given): ...
        >>> counting = Counting()
        >>> restore = pass_over_empty_hooks(counting)
        >>> counting.on_before_backward is None, counting.on_after_backward is None
        (False, True)
        >>> restore()
        >>> counting.on_after_backward is None
        False
    """
    cls, own = type(callback), vars(callback)
    empty = [name for name in HOOKS_OF_A_BATCH if name not in own and getattr(cls, name) is getattr(pl.Callback, name)]
    restores = [patch_attribute(callback, name, None) for name in empty]

    def restore() -> None:
        for undo in restores:
            undo()

    return restore
