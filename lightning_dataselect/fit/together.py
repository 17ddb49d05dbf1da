"""Run a training step for several selectors, each for the samples of its own train loader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.state.selection import BatchSamples
from lightning_dataselect.step.shared_reading import Reader

RunStep = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Participant(Protocol):
    """Take part in the training steps of a fit.

    Attributes:
        context: The fit.
        batch: The samples of the current batch; None if there are none of its loader in it.
    """

    context: FitContext | None
    batch: BatchSamples | None

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a step on the current batch."""


def run_for_all(
    participants: Sequence[Participant], step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a step once, within that of each participant that has samples in the batch.

    Args:
        participants: All selectors of the fit.
        step: The module's own ``training_step``.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        What the step returned, with the weights of all methods in its loss.
    """
    contexts = {participant.context: participant for participant in participants if participant.context is not None}
    shared = next(iter(contexts)).shared
    assert shared is not None
    readers: dict[Reader, Tensor | None] = {
        context.reader: None if one.batch is None else one.batch.indices for context, one in contexts.items()
    }
    shared.prepare(readers, args, kwargs)
    for participant in contexts.values():
        if participant.batch is not None:
            step = partial(_run, participant.run_step, step)
    return step(*args, **kwargs)


def _run(run_step: RunStep, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return run_step(step, args, kwargs)
