"""The pass of StochasticWeightAveraging that follows the last epoch, and measures batch norms only."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.lengths import FitLengths
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.trainer import measures_norms


class NormsPass:
    """Give all samples to the pass that measures batch norms under the averaged weights, and trains nothing.

    Args:
        trainer: The Trainer of the fit.
        run: The position of the fit, which stays at the last epoch.
        lengths: Counts the batches of the pass, which no budget pays for.
    """

    def __init__(self, trainer: pl.Trainer, run: RunState, lengths: FitLengths) -> None:
        self._trainer = trainer
        self._run = run
        self._lengths = lengths
        self.has_begun = False
        """True once the epochs that train are over."""

    def begin(self, epoch: int, loader: SelectedLoader) -> bool:
        """Put everything into ``epoch``, the one to come, if it is such a pass; return whether it is.

        Args:
            epoch: 0-based.
            loader: The train loader.
        """
        if not measures_norms(self._trainer, epoch):
            return False
        loader.apply_plan(EpochPlan.everything(epoch, loader.n, self._run.store.memory))
        self._lengths.measure_pass(loader)
        self.has_begun = True
        return True
