import copy
import io
import pickle

import lightning as L
import torch
from helpers import Hardest, Net, fit


class Big(Net):
    """Brings a megabyte that no copy of the callback may contain."""

    def __init__(self):
        super().__init__()
        self.ballast = torch.nn.Parameter(torch.zeros(2**18), requires_grad=False)


def test_copies_made_during_a_fit_are_small_and_complete():
    copies = []

    class Copy(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 2 and batch_idx == 1:
                pickled = pickle.dumps(selector)
                saved = io.BytesIO()
                torch.save(selector, saved)
                copies.extend([pickle.loads(pickled), copy.deepcopy(selector)])
                assert max(len(pickled), saved.tell()) < 20_000
                for copied in copies:
                    assert torch.equal(copied.selected, selector.selected)
                    assert torch.equal(copied.scores, selector.scores)

    selector, net = Hardest(prune_ratio=0.4), Big()
    fit(selector, net, callbacks=[Copy()])
    assert len(copies) == 2
    assert len(selector.history) == 4 and len(copies[0].history) == 2
    assert "training_step" not in vars(net)


def test_a_copy_trains_like_the_original():
    original = Hardest(prune_ratio=0.4, seed=3)
    for selector in (copy.deepcopy(original), pickle.loads(pickle.dumps(original)), original):
        fit(selector, max_epochs=3)
        assert [r["n_backward"] for r in selector.history] == [100, 60, 60]


def test_hyperparameters_may_hold_a_selector():
    class Holding(Net):
        def __init__(self, selector):
            super().__init__()
            self.save_hyperparameters()

        def configure_callbacks(self):
            return [self.hparams.selector]

    selector = Hardest()
    _, net = fit(None, Holding(selector), max_epochs=2)
    assert len(net.hparams.selector.history) == 2
