"""The hooks of a batch that a callback has left empty, which the Trainer calls all the same."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import Restore, patch_attribute

# those that selectors define themselves are left out
HOOKS_OF_A_BATCH = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_validation_batch_start",
    "on_validation_batch_end",
)


def pass_over_empty_hooks(callback: Any) -> Restore:
    """Have the Trainer pass over the hooks of a batch that ``callback`` does not define.

    It calls what is callable, and around each call it starts and stops its profiler: four such hooks in a training step
    of a millisecond cost more than one in a hundred of it.

    Args:
        callback: A callback of the Trainer; what its class defines, or is set on itself, stays.

    Returns:
        A function that takes it back.

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
