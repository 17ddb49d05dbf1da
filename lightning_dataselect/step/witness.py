"""Run a step on single samples of its first batch, to settle how what it loses on all of them is read."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from lightning_dataselect.capture import CaptureError, LossCapture, Shown, WouldChangeModel
from lightning_dataselect.step.isolation import SideEffectGuard
from lightning_dataselect.utils.errors import SideEffectError

Part = Callable[[Sequence[int]], Callable[[], Any]]
"""Makes the step on the samples at some positions of a batch, in that order."""

# Of three samples, two can be in their places by chance, but not all; together they are no more than a small batch.
_N_SAMPLES = 3
# Batches whose samples all are of one length show nothing of what a step does that sorts them.
_MOST_TRIED = 8


class Witness:
    """Let single samples say what they lose, before a step's loss is read for the first time.

    The step runs in isolation and in eval mode, on three samples of the batch together and on each of them alone; on
    the three in reverse, too, if it sorts something. A step that draws random numbers, that writes to parameters or
    whose batch cannot be cut shows nothing, and is read by the algebra alone.

    Args:
        module: The LightningModule.
        capture: Reads its steps.
    """

    def __init__(self, module: pl.LightningModule, capture: LossCapture) -> None:
        self._capture = capture
        self._guard = SideEffectGuard(module)
        self._is_able = module.automatic_optimization  # else a step trains while it runs
        self._n_left = _MOST_TRIED

    def hear(self, part: Part, size: int) -> None:
        """Settle how the terms of a step are read, as far as can be told; nothing where no look is due.

        Args:
            part: See `Part`.
            size: The number of samples in the batch.
        """
        if not (self._is_able and self._n_left and self._capture.is_probing and size > 1):
            return
        self._n_left -= 1
        positions = [size - 1, 0, size // 2][: min(_N_SAMPLES, size)]
        try:
            is_settled = self._hear(part, positions)
        except (CaptureError, WouldChangeModel, _DrawsNumbersError):
            is_settled = True
        except SideEffectError:
            raise
        except Exception:  # the user's step, on fewer samples than it is made for
            is_settled = True
        if is_settled:
            self._n_left = 0

    @property
    def is_waiting(self) -> bool:
        """True if batches so far have left it open what the step does."""
        return 0 < self._n_left < _MOST_TRIED

    def _hear(self, part: Part, positions: list[int]) -> bool:
        whole = self._show(part, positions)
        singles = [self._show(part, [position]) for position in positions]
        self._capture.decide(whole, singles)
        if not whole.sorts:
            return True
        turned = self._show(part, positions[::-1])
        self._capture.decide(turned, singles[::-1])
        return whole.reorders or turned.reorders

    def _show(self, part: Part, positions: list[int]) -> Shown:
        with self._guard(grad=True):
            before = _random_states()
            shown = self._capture.show(part(positions), len(positions))
            if _random_states() != before:
                raise _DrawsNumbersError
        return shown


class _DrawsNumbersError(Exception):
    """A step makes something else of a sample in each run."""


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else b""
    numpy_state: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), cuda, repr(numpy_state[1:3]), str(numpy_state[1]), random.getstate()
