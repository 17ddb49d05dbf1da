"""The pass of StochasticWeightAveraging that follows the last epoch, and measures batch norms only."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl

from lightning_dataselect.data.loader import SelectedLoader
from lightning_dataselect.fit.lengths import FitLengths
from lightning_dataselect.numerics.placement import InMemory
from lightning_dataselect.state.plan import EpochPlan
from lightning_dataselect.trainer import measures_norms


class NormsPass:
    """Give all samples to the pass that measures batch norms under the averaged weights, and trains nothing.

    Args:
        trainer: The Trainer of the fit.
        lengths: Counts the batches of the pass, which no budget pays for.
    """

    def __init__(self, trainer: pl.Trainer, lengths: FitLengths) -> None:
        self._trainer = trainer
        self._lengths = lengths
        self.has_begun = False
        """True once the epochs that train are over."""

    def begin(self, epoch: int, loaders: Sequence[tuple[SelectedLoader, InMemory]]) -> bool:
        """Put everything into ``epoch``, the one to come, if it is such a pass; return whether it is.

        The fits' own positions stay at the last epoch.

        Args:
            epoch: 0-based.
            loaders: The train loaders that samples are selected from, each with where its plans are allocated; the
                batches are counted by the first.
        """
        if not measures_norms(self._trainer, epoch):
            return False
        for loader, memory in loaders:
            loader.apply_plan(EpochPlan.everything(epoch, loader.n, memory))
        self._lengths.measure_pass(loaders[0][0])
        self.has_begun = True
        return True
