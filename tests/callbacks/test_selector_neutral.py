"""The callback leaves alone: weights at prune_ratio=0, random state, module, datamodule, loaders."""

import random
import signal

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import Hardest, Net, Shares, fit, loader, trainer


def global_states():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_nothing_pruned_gives_the_weights_of_no_callback(accumulate):
    runs = [
        fit(s, train=loader(shuffle=False), accumulate_grad_batches=accumulate, gradient_clip_val=0.5)[1]
        for s in (None, Hardest(prune_ratio=0))
    ]
    for mine, theirs in zip(runs[1].parameters(), runs[0].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "selector", [Hardest(prune_ratio=0), Shares(0.5), Hardest(prune_ratio=0.3)], ids=["nothing", "half", "hardest"]
)
def test_the_global_random_state_is_untouched(selector):
    states = []
    for chosen in (None, selector):
        L.seed_everything(3, verbose=False)
        fit(chosen, train=loader(shuffle=False), max_epochs=3)
        states.append(global_states())
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1:] == states[1][1:]


def test_the_users_seed_does_not_change_the_choice():
    chosen = []
    for seed in (1, 2):
        L.seed_everything(seed, verbose=False)
        selector = Shares(0.5)
        fit(selector, max_epochs=1)
        chosen.append(selector.selected)
    assert torch.equal(*chosen)


class Failing(Net):
    """Raises an error at one place."""

    def __init__(self, where=None, error=None):
        super().__init__()
        self.where, self.error = where, error

    def fail(self, here):
        if here == self.where:
            raise self.error

    def setup(self, stage):
        self.fail("setup")

    def configure_optimizers(self):
        self.fail("configure_optimizers")
        return super().configure_optimizers()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.fail("training_step" if self.trainer.current_epoch == 1 else "")
        return loss

    def on_validation_epoch_end(self):
        self.fail("validation" if self.trainer.current_epoch == 1 else "")


class Data(L.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.made = loader()

    def train_dataloader(self):
        return self.made

    def val_dataloader(self):
        return loader(20, 10, False)


PLACES = ["setup", "configure_optimizers", "training_step", "validation"]


@pytest.mark.parametrize(
    ("where", "error"),
    [(None, None), *((w, ValueError("mine")) for w in PLACES), *((w, KeyboardInterrupt()) for w in PLACES)],
    ids=str,
)
def test_module_datamodule_and_loaders_are_as_before(where, error):
    selector, net, data = Shares(1.0, 0.5), Failing(where, error), Data()
    functions = dict(vars(F)), dict(vars(torch)), dict(vars(torch.Tensor))
    inside, made = dict(vars(data.made)), data.made
    made_trainer = trainer(selector)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        if error is None:
            made_trainer.fit(net, datamodule=data)
        else:
            # Lightning turns Ctrl-C into an exit
            with pytest.raises((type(error), SystemExit)):
                made_trainer.fit(net, datamodule=data)
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
    ours = [v for v in vars(net).values() if "lightning_dataselect" in getattr(v, "__module__", "")]
    assert not ours and not {"training_step", "manual_backward"} & vars(net).keys()
    assert net.training_step.__func__ is Failing.training_step
    assert "train_dataloader" not in vars(data) and data.train_dataloader() is made
    assert vars(made) == inside
    assert "dataloader" not in vars(made_trainer.fit_loop._data_source)
    assert functions == (vars(F), vars(torch), dict(vars(torch.Tensor)))
    assert selector.context is None and selector.batch is None


def test_the_module_keeps_nothing_that_it_would_not_have_without():
    with_, without = fit(Shares(0.5))[1], fit(None)[1]
    assert vars(with_).keys() == vars(without).keys()


def test_a_step_of_the_instances_own_comes_back():
    net = Net()
    mine = net.training_step
    net.training_step = lambda batch, batch_idx: mine(batch, batch_idx)
    own = net.training_step
    fit(Shares(0.5), net)
    assert net.training_step is own


def test_validate_test_and_predict_are_untouched():
    class Full(Net):
        def test_step(self, batch, batch_idx):
            self.validation_step(batch, batch_idx)

        def predict_step(self, batch, batch_idx):
            return self.net(batch[0])

    selector, net = Shares(0.5), Full()
    made, _ = fit(selector, net, max_epochs=2)
    before = selector.scores, selector.selected, list(selector.history)
    data = loader(shuffle=False)
    assert made.validate(net, data, verbose=False)[0]["val_loss"] > 0
    assert made.test(net, data, verbose=False)[0]["val_loss"] > 0
    assert torch.cat(made.predict(net, data)).shape == (100, 3)
    torch.testing.assert_close(before[0], selector.scores, equal_nan=True)
    assert torch.equal(before[1], selector.selected) and before[2] == selector.history


def test_the_evaluation_of_a_fresh_selector_needs_no_fit():
    net = Net()
    trainer(Shares(0.5)).validate(net, loader(shuffle=False), verbose=False)
    assert "training_step" not in vars(net)


def test_a_fit_that_is_called_again_goes_on():
    selector = Shares(1.0, 0.5)
    made, net = fit(selector, max_epochs=2)
    made.fit(net, loader(), loader(20, 10))
    assert [r["n_backward"] for r in selector.history] == [100, 50]
    made.fit_loop.max_epochs = 5
    made.fit(net, loader(), loader(20, 10))
    assert [r["n_backward"] for r in selector.history] == [100, 50, 100, 50, 100]
    assert [r["epoch"] for r in selector.history] == [0, 1, 2, 3, 4]


def test_a_new_trainer_begins_anew():
    selector = Shares(0.5)
    fit(selector, max_epochs=3)
    fit(selector, train=loader(40), max_epochs=1)
    assert [r["n_total"] for r in selector.history] == [40] and selector.scores.shape == (40,)
