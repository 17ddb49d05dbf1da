"""Selectors that fail, and that are interrupted, for `compare` to run."""

import signal
from pathlib import Path

from lightning_dataselect import RandomPruning


class Failing(RandomPruning):
    """Ends in an error at the first selection."""

    def select(self, epoch, scores, generator):
        raise RuntimeError("the sky\nis falling")


class Interrupted(RandomPruning):
    """Ctrl-C at the first selection with this seed, as long as the file is there."""

    def __init__(self, *, at_seed=0, while_exists="", **common):
        super().__init__(**common)
        self.at_seed, self.while_exists = at_seed, while_exists

    def select(self, epoch, scores, generator):
        if self.seed == self.at_seed and Path(self.while_exists).exists():
            signal.raise_signal(signal.SIGINT)
        return super().select(epoch, scores, generator)
