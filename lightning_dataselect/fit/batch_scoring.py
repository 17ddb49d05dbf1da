"""Score a batch before samples are chosen from it, at a lower precision or on smaller images where that is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from lightning_dataselect.data.scaled_images import scale_images
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.state.selection import BatchSamples, Observation
from lightning_dataselect.step.isolation import SideEffectGuard


class BatchScorer:
    """Measure the samples of a batch by a step in eval mode, without a graph and without side effects.

    Args:
        context: The fit.
        scale: Factor on the height and width of images.
        dtype: ``"bfloat16"`` or ``"float16"`` to run under autocast, None for the Trainer's own precision.
    """

    def __init__(self, context: FitContext, scale: float, dtype: str | None) -> None:
        self._context = context
        self._scale = scale
        self._dtype = dtype
        self._guard = SideEffectGuard(context.module)

    def score(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], batch: BatchSamples
    ) -> Observation:
        """Measure the batch.

        Args:
            step: The module's own ``training_step``.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            batch: The samples of the batch.
        """
        if self._scale < 1:
            args, kwargs = scale_images((args, kwargs), self._scale)
        with self._guard(), self._precision(batch.indices.device):
            return self._context.score_step(step, args, kwargs, batch.indices)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self._dtype))
