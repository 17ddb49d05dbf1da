import gc
import sys
from pathlib import Path

import lightning as L
from helpers import fit

import lightning_dataselect
from lightning_dataselect import InfoBatch

PACKAGE = str(Path(lightning_dataselect.__file__).parent)
MOST_CALLS = 83


class CallCounter(L.Callback):
    """Counts the calls of the package's functions from the second batch of the last epoch to its seventh."""

    n_calls = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 3 and batch_idx == 1:
            gc.collect()  # loaders of earlier fits, which stand still in our generators, and call them as they go
            gc.disable()
            sys.setprofile(self.count)
        elif batch_idx == 6:
            sys.setprofile(None)
            gc.enable()

    def count(self, frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.n_calls += 1


def test_a_step_of_which_all_is_known_makes_few_calls():
    counter = CallCounter()
    fit(InfoBatch(prune_ratio=0), callbacks=[counter])
    assert 0 < counter.n_calls / 5 <= MOST_CALLS
