import lightning as L
import pytest
import torch
from helpers import Hardest, Net, Seen, Shares, fit, loader, same_weights, trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.lr_scheduler import ReduceLROnPlateau

SHARES = (1.0, 0.5, 0.2, 0.9)


@pytest.mark.parametrize(("limit", "lengths"), [(4, [4, 4, 2, 4]), (0.5, [5, 2, 1, 4]), (1.0, [10, 5, 2, 9])])
def test_limit_train_batches(limit, lengths):
    _, net = fit(Shares(*SHARES), limit_train_batches=limit)
    assert [net.count(e) for e in range(4)] == lengths
    assert [s.batch_idx for s in net.steps if s.is_last] == [n - 1 for n in lengths]
    assert [epoch for epoch, _ in net.validated] == [0, 1, 2, 3]


def test_no_batches_at_all():
    _, net = fit(Shares(0.5), limit_train_batches=0)
    assert net.steps == []


def test_overfit_batches_turns_it_off():
    selector = Hardest()
    _, net = fit(selector, overfit_batches=2)
    assert [net.count(e) for e in range(4)] == [2] * 4
    assert selector.history == [] and "training_step" not in vars(net)


@pytest.mark.parametrize("n", [1, 3])
def test_fast_dev_run(n):
    _, net = fit(Shares(0.5), fast_dev_run=n, max_epochs=4)
    assert len(net.steps) == n


@pytest.mark.parametrize(
    ("interval", "validated"),
    [
        (0.5, [(0, 5), (0, 10), (1, 12), (1, 14), (2, 16), (2, 17), (3, 21), (3, 25)]),
        (4, [(0, 4), (0, 8), (1, 14), (2, 17), (3, 21), (3, 25)]),
        (10, [(0, 10), (1, 15), (2, 17), (3, 26)]),
    ],
)
def test_val_check_interval(interval, validated):
    _, net = fit(Shares(*SHARES), val_check_interval=interval)
    assert net.validated == validated


def test_validation_by_steps_across_epochs():
    _, net = fit(Shares(*SHARES), val_check_interval=4, check_val_every_n_epoch=None)
    assert [steps for _, steps in net.validated] == list(range(4, 27, 4))


def test_check_val_every_n_epoch():
    _, net = fit(Shares(*SHARES), check_val_every_n_epoch=2)
    assert [epoch for epoch, _ in net.validated] == [1, 3]


@pytest.mark.parametrize("max_steps", [3, 12, 17, 20])
def test_max_steps(max_steps):
    made, net = fit(Shares(*SHARES), max_steps=max_steps)
    assert made.global_step == max_steps == len(net.steps)


def test_max_steps_without_max_epochs():
    selector = Shares(0.5)
    made, _ = fit(selector, max_steps=23, max_epochs=-1)
    assert made.global_step == 23 and selector.max_epochs is None
    assert [r["n_backward"] for r in selector.history] == [50] * 4 + [30]


@pytest.mark.parametrize("workers", [0, 2])
def test_reloading_loaders_every_epoch(workers):
    made = []

    class Made(Net):
        def train_dataloader(self):
            made.append(loader(num_workers=workers))
            return made[-1]

        def val_dataloader(self):
            return loader(50, 25, False)

    selector, net = Shares(*SHARES), Made()
    seen = Seen(selector)
    trainer(selector, seen, reload_dataloaders_every_n_epochs=1).fit(net)
    assert len(made) >= 4
    assert [net.count(e) for e in range(4)] == [10, 5, 2, 9]
    assert [epoch for epoch, _ in net.validated] == [0, 1, 2, 3]
    assert [len(set(seen.of_epoch(e))) for e in range(4)] == [100, 50, 20, 90]
    assert [s.batch_idx for s in net.steps if s.is_last] == [9, 4, 1, 8]


@pytest.mark.parametrize(
    "flags",
    [
        {"use_distributed_sampler": False},
        {"num_sanity_val_steps": 0},
        {"num_sanity_val_steps": 2},
        {"max_time": "00:01:00:00"},
    ],
    ids=str,
)
def test_flags_that_change_nothing(flags):
    assert same_weights(fit(Shares(*SHARES), **flags)[1], fit(Shares(*SHARES))[1])


def test_gradients_are_clipped():
    norms = []

    class Clipped(Net):
        def on_before_optimizer_step(self, optimizer):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]).item())

    fit(Shares(*SHARES), Clipped(), gradient_clip_val=1e-3)
    assert len(norms) == 26
    trained = fit(Shares(*SHARES), Net(lr=0.1), gradient_clip_val=1e-3, gradient_clip_algorithm="value")[1]
    assert not same_weights(trained, Net())


def test_should_stop_ends_cleanly():
    class Stopping(Net):
        def on_train_epoch_end(self):
            self.trainer.should_stop = self.trainer.current_epoch == 1

    selector = Shares(*SHARES)
    _, net = fit(selector, Stopping())
    assert len(net.steps) == 15 and len(selector.history) == 2


@pytest.mark.parametrize(
    ("minimum", "lengths"), [({"min_epochs": 4}, [10, 5, 2, 9]), ({"min_steps": 18}, [10, 5, 2, 1])]
)
def test_a_stop_that_has_to_wait_for_its_minimum(minimum, lengths):
    class Stopping(Net):
        def on_validation_end(self):
            self.trainer.should_stop |= self.trainer.current_epoch >= 1

    selector, net = Shares(*SHARES), Stopping()
    seen = Seen(selector)
    fit(selector, net, callbacks=[seen], max_epochs=6, **minimum)
    assert [net.count(e) for e in range(4)] == lengths
    assert [r["epoch"] for r in selector.history] == [0, 1, 2, 3]
    assert [r["n_selected"] for r in selector.history] == [100, 50, 20, 90]
    assert [len(set(seen.of_epoch(e))) for e in range(4)] == [10 * n for n in lengths]


class Estimating(L.Callback):
    """Asks for the number of steps before the selector is set up, so that a loader is made."""

    def setup(self, trainer, pl_module, stage):
        self.steps = trainer.estimated_stepping_batches


def test_a_callback_that_counts_steps_in_its_setup():
    estimating, selector, net = Estimating(), Shares(*SHARES), Net()
    trainer(estimating, selector).fit(net, loader(), loader(50, 25, False))
    assert estimating.steps == 40
    assert [net.count(e) for e in range(4)] == [10, 5, 2, 9]
    assert same_weights(net, fit(Shares(*SHARES))[1])


def on_validation_loss(optimizer, trainer):
    return {"scheduler": ReduceLROnPlateau(optimizer, patience=9), "monitor": "val_loss"}


@pytest.mark.parametrize("shares, stepped", [((0.5,), 3), ((0.2, 1.0), 3), ((1.0, 0.5), 4)])
def test_a_schedule_on_a_metric_waits_for_a_validation_that_whole_epochs_would_have_had(shares, stepped, recwarn):
    flags = {"val_check_interval": 8, "check_val_every_n_epoch": None}
    made, net = fit(Shares(*shares), Net(on_validation_loss), **flags)
    (config,) = made.lr_scheduler_configs
    assert config.scheduler.last_epoch == stepped and config.strict
    told = [str(w.message) for w in recwarn if "before the first validation" in str(w.message)]
    assert len(told) == (stepped < 4)
    assert not told or f"with Shares it has {round(10 * shares[0])} batches in place of 10" in told[0]


def test_a_metric_that_whole_epochs_would_miss_is_missed():
    flags = {"val_check_interval": 12, "check_val_every_n_epoch": None}
    for selector in (None, Shares(0.5)):
        with pytest.raises(MisconfigurationException, match="val_loss which is not available"):
            fit(selector, Net(on_validation_loss), **flags)
