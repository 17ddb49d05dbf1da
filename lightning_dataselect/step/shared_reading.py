"""Prepare a step that several readers read, each for the losses of the samples of its own train loader."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import lightning.pytorch as pl
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture, NoLossError, SharedSteps
from lightning_dataselect.data.batch_source import BatchSource
from lightning_dataselect.step.communication import Communication
from lightning_dataselect.step.hearings import Hearings
from lightning_dataselect.step.rehearsal import Rehearsal
from lightning_dataselect.trainer import patch_attribute
from lightning_dataselect.utils.errors import UnsupportedStepError


class Reader(Protocol):
    """Read the losses of the samples of one loader."""

    capture: LossCapture
    batches: BatchSource
    hearings: Hearings

    @property
    def captures(self) -> bool:
        """True if losses are captured."""

    def go_blind(self, error: CaptureError) -> None:
        """Read nothing from further steps, or raise."""


class SharedReading:
    """Let single samples, and probes, settle for each of several readers how it reads the steps of all.

    Where one reader alone would probe a step while it trains, the step is rehearsed for each of them that has to, since
    a probe would see what the others do to the losses of their samples.

    Args:
        module: The LightningModule.
        step: Its own ``training_step``.
        n_ranks: The number of processes that train.

    Attributes:
        steps: Makes the readers' captures.
        step: The step.
    """

    def __init__(self, module: pl.LightningModule, step: Callable[..., Any], n_ranks: int = 1) -> None:
        self.steps = SharedSteps(module)
        self.step = step
        self._module = module
        self._n_ranks = n_ranks
        self._rehearse = Rehearsal(module, keeps_modes=True)

    def prepare(
        self,
        readers: Mapping[Reader, Tensor | None],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Find out how a step is to be read, where that is open, before it trains.

        Args:
            readers: Their samples in the step's batch, int64 (B,); None for a loader that has ended.
            args: Positional arguments of the step.
            kwargs: Its keyword arguments.

        Raises:
            UnsupportedStepError: If ranks communicate within the step.
            CaptureError: If a method needs losses that the step does not show.
        """
        for reader in readers:
            if reader.captures and reader.batches.part is not None:
                reader.hearings.look_at_loaders(reader.batches.part, args, kwargs)
        present = {reader: indices for reader, indices in readers.items() if reader.captures and indices is not None}
        for reader, indices in present.items():
            reader.hearings.before_step(self.step, args, kwargs, indices)
        sizes = {reader.capture: indices.numel() for reader, indices in present.items()}
        of_capture = {reader.capture: reader for reader in present}
        for capture in self.steps.due(sizes):
            try:
                self._probe(capture, sizes[capture], args, kwargs)
            except NoLossError:
                return
            except CaptureError as error:
                reader = of_capture[capture]
                of_loader = "" if reader.batches.part is None else f"With loader={reader.batches.part.name!r}: "
                reader.go_blind(CaptureError(f"{of_loader}{error}"))

    def _probe(self, capture: LossCapture, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        module = self._module
        with self._rehearse() as rehearsed, ExitStack() as stack:
            if not module.automatic_optimization:
                rehearse_backward = module.manual_backward

                def manual_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
                    rehearse_backward(capture.register_backward_loss(loss), *args, **kwargs)

                stack.callback(patch_attribute(module, "manual_backward", manual_backward))
            step = rehearsed(functools.partial(self.step, *args, **kwargs))
            communication = stack.enter_context(Communication()) if self._n_ranks > 1 else None
            capture.probe(step, size, args or tuple(kwargs.values()))
        if communication is not None and communication.was_met:
            raise UnsupportedStepError(
                "The ranks communicate within training_step, as SyncBatchNorm, a sharded model or a metric that is"
                " summed over them makes them do, but with a selector for each of several train loaders, a rank runs"
                " the step once more now and then, when the others do not. Keep the selector of one loader, or let the"
                " ranks communicate outside of the step."
            )
