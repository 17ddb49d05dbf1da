"""Run a step on some samples of its batch, to see what it computes of them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_dataselect.capture import LossCapture, Shown
from lightning_dataselect.step.rehearsal import Rehearsal
from lightning_dataselect.step.steady_draws import SteadyDraws
from lightning_dataselect.utils.errors import UnsupportedLoaderError

Part = Callable[[Sequence[int]], Callable[[], Any]]
"""Returns the step on the samples at some positions of a batch, in that order."""


class NothingShownError(Exception):
    """A step cannot be run on single samples."""


class PartRuns:
    """Rehearse a step on parts of a batch, in eval mode, with draws that do not depend on the number of samples.

    It is rehearsed without autocast if it can be: in half precision, kernels round so differently for another number of
    samples, or another layout of a mask, that equal losses look different.

    Args:
        module: The LightningModule.
        capture: Reads its steps.
        n_ranks: The number of processes that train.
    """

    def __init__(self, module: pl.LightningModule, capture: LossCapture, n_ranks: int = 1) -> None:
        self._module, self._testimony = module, capture.testimony
        self._rehearse = Rehearsal(module)
        self._has_several_ranks = n_ranks > 1
        self._needs_autocast = False
        self.needs_all_ranks = False
        """True once ranks have communicated in the step, so that all of them have to run it at once."""
        self.have_drawn = False
        """True once the step has drawn random numbers from torch."""
        self._n_before = 0

    @contextlib.contextmanager
    def after(self, n_runs: int) -> Iterator[None]:
        """Let the step run that often before it is looked at, so that what it draws by itself is something else."""
        self._n_before = n_runs
        try:
            yield
        finally:
            self._n_before = 0

    def show(self, part: Part, positions: Sequence[int], **how: Any) -> Shown:
        """Run the step on some samples (see `Testimony.show`).

        Args:
            part: See `Part`.
            positions: Those of the samples in the batch.
            **how: Arguments of `Testimony.show`, or ``n_before``, in place of what `after` has set.

        Raises:
            NothingShownError: The step cannot run on these samples.
        """
        kinds = {"cpu", self._module.device.type}
        autocasts = [
            kind for kind in kinds if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        ]
        if autocasts and not self._needs_autocast:
            try:
                with contextlib.ExitStack() as in_full_precision:
                    for kind in autocasts:
                        in_full_precision.enter_context(torch.autocast(kind, enabled=False))
                    return self._show_as_it_is(part, positions, **how)
            except NothingShownError:  # as of a step that casts its inputs itself, and leaves its weights to autocast
                shown = self._show_as_it_is(part, positions, **how)
                self._needs_autocast = True
                return shown
        return self._show_as_it_is(part, positions, **how)

    def draw_by_themselves(self, part: Part, positions: Sequence[int], n_times: int) -> bool:
        """Tell if the step computes something else when it runs again, as with numbers that NumPy draws.

        Args:
            part: See `Part`.
            positions: Those of some samples in the batch.
            n_times: How often it is looked at.
        """
        if self.needs_all_ranks:
            return False  # how often it runs must not depend on what it draws
        first = self.show(part, positions, n_before=0)
        return any(self.show(part, positions, n_before=n).differs_from(first) for n in range(1, n_times))

    def _show_as_it_is(self, part: Part, positions: Sequence[int], *, n_before: int | None = None, **how: Any) -> Shown:
        try:
            with self._rehearse() as rehearsed:
                step = rehearsed(part(positions))
                for _ in range(self._n_before if n_before is None else n_before):
                    SteadyDraws().during(step)()
                draws = SteadyDraws()
                try:
                    step = draws.during(step)
                    with warnings.catch_warnings():  # as of a deviation, which one sample has none of
                        warnings.simplefilter("ignore")
                        return self._testimony.show(step, len(positions), **how)
                finally:
                    self.needs_all_ranks |= draws.was_met and self._has_several_ranks
                    self.have_drawn |= draws.has_drawn
        except UnsupportedLoaderError:
            raise
        except (Exception, SystemExit) as error:  # whatever a step that is not made for fewer samples may raise
            raise NothingShownError from error
