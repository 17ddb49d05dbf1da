"""KAKURENBO against NumPy written from the paper's steps, and in fits."""

import math

import lightning as L
import numpy as np
import pytest
import torch
from helpers import Net, dataset, fit, loader, same_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rescoring_helpers import Regressor, watch_eval_steps
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import KAKURENBO
from lightning_dataselect.methods.kakurenbo import certainty, hidden_samples


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the rule


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(1, 9), classes=st.integers(2, 5))
def test_certainty_is_the_probability_of_a_right_prediction(data, n, classes):
    number = st.floats(-20, 20, width=32)
    rows = st.lists(number, min_size=classes, max_size=classes, unique=True)
    logits = data.draw(st.lists(rows, min_size=n, max_size=n))
    targets = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    z = np.asarray(logits, dtype=np.float64)
    # over the classes of a sample, not over the batch
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = np.where(z.argmax(1) == targets, p.max(1), 0)
    got = certainty(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    soft = torch.nn.functional.one_hot(torch.tensor(targets), classes) * 0.6 + 0.1
    torch.testing.assert_close(certainty(torch.tensor(logits), soft), got)


def oracle(losses, certainties, ratio, tau):
    """The hidden samples, for losses without ties."""
    n = len(losses)
    limit = n - max(math.floor((1 - ratio) * n + 0.5), 1)
    order = sorted((i for i in range(n) if math.isfinite(losses[i])), key=lambda i: losses[i])
    unknown = n - len(order)
    return [i for i in order[: min(limit, n - unknown)] if certainties[i] > 0 and certainties[i] >= tau]


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 30),
    ratio=st.sampled_from([0.0, 0.12, 0.25, 0.5, 0.75]),
    tau=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
)
def test_hidden_are_the_lowest_losses_that_are_surely_right(seed, n, ratio, tau):
    draw = np.random.default_rng(seed)
    losses = np.where(draw.random(n) < 0.2, math.nan, draw.permutation(n) / 7)
    certainties = draw.choice([0.0, 0.5, 0.75, 0.9, 1.0], n)
    hidden = hidden_samples(torch.tensor(losses).float(), torch.tensor(certainties).float(), ratio, tau, gen())
    assert hidden.nonzero().squeeze(1).tolist() == sorted(oracle(losses, certainties, ratio, tau))


def test_ties_are_broken_at_random_and_the_number_holds():
    chosen = {tuple(hidden_samples(torch.ones(10), torch.ones(10), 0.3, 0.7, gen(s)).tolist()) for s in range(20)}
    assert len(chosen) > 5 and all(sum(c) == 3 for c in chosen)


@pytest.mark.parametrize("epochs", [5, 10, 30, 100, 200])
def test_share_falls_where_the_phases_say(epochs):
    selector = KAKURENBO()
    assert selector.hidden_share(3) == 0.3
    selector.max_epochs = epochs
    shares = [selector.hidden_share(e) for e in range(epochs)]
    for e, share in enumerate(shares):
        done = e / epochs
        factor = 1 if done < 0.3 - 1e-9 else 0.8 if done < 0.6 - 1e-9 else 0.6 if done < 0.8 - 1e-9 else 0.4
        assert share == pytest.approx(0.3 * factor), e


# ---- fits


class Rates(L.Callback):
    """The learning rate at each optimizer step, before and after it, and in what epoch."""

    def __init__(self):
        self.steps = []

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        # registered after the selector's hooks: what the step itself works with
        optimizer.register_step_pre_hook(lambda *_: self.steps.append([trainer.current_epoch, self.rate(trainer)]))
        optimizer.register_step_post_hook(lambda *_: self.steps[-1].append(self.rate(trainer)))

    @staticmethod
    def rate(trainer):
        return trainer.optimizers[0].param_groups[0]["lr"]


def by_step(optimizer, trainer):
    return {"scheduler": StepLR(optimizer, 1, 0.9), "interval": "epoch"}


@pytest.mark.parametrize("scale_lr", [True, False])
def test_scaled_learning_rate_lasts_for_the_step_alone(scale_lr, tmp_path):
    selector, rates = KAKURENBO(prune_ratio=0.5, tau=0.4, scale_lr=scale_lr), Rates()
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    monitor = LearningRateMonitor("step")
    fit(selector, Net(by_step), callbacks=[rates, monitor], logger=logger, log_every_n_steps=1, max_epochs=6)
    kept = [r["n_selected"] / 100 for r in selector.history]
    assert kept[0] == 1 and min(kept) < 0.7 and len(set(kept)) > 2
    for epoch, within, after in rates.steps:
        base = 0.1 * 0.9**epoch
        assert after == pytest.approx(base)
        assert within == pytest.approx(base / kept[epoch] if scale_lr else base)
    monitored = np.genfromtxt(tmp_path / "lightning_logs/version_0/metrics.csv", delimiter=",", names=True)["lrAdamW"]
    monitored = monitored[~np.isnan(monitored)]
    assert len(monitored) and set(np.round(monitored, 9)) <= {round(0.1 * 0.9**e, 9) for e in range(6)}


def test_failed_step_leaves_the_rate_as_it_was():
    class Failing(Net):
        def training_step(self, batch, batch_idx):
            if self.trainer.current_epoch == 3:
                assert self.trainer.optimizers[0].param_groups[0]["lr"] > 0.1
                raise ValueError("mine")
            return super().training_step(batch, batch_idx)

    net, kept = Failing(), []

    class Last(L.Callback):
        def on_exception(self, trainer, *args):
            kept.append(trainer.optimizers[0].param_groups[0]["lr"])

    with pytest.raises(ValueError, match="mine"):
        fit(KAKURENBO(prune_ratio=0.5, tau=0.4), net, callbacks=[Last()], max_epochs=5)
    assert kept == [0.1]


def test_hidden_samples_are_chosen_anew_each_epoch_by_the_rule():
    selector, net, facts = KAKURENBO(prune_ratio=0.5, tau=0.6, whole_batches=False), Net(), []
    x, y = dataset().tensors
    passes = watch_eval_steps(net)

    class Watch(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            with torch.no_grad():
                z = pl_module.net(x)
            losses = torch.nn.functional.cross_entropy(z, y, reduction="none")
            plan = selector.state.plan
            certain = selector.store.column("certainty").clone()
            facts.append((selector.losses.clone(), certain, plan.indices, losses, z))

    fit(selector, net, callbacks=[Watch()], max_epochs=7)
    before = torch.arange(100)
    for epoch, (losses, certain, kept, fresh, z) in enumerate(facts[:-1]):
        hidden = np.setdiff1d(np.arange(100), before)
        torch.testing.assert_close(losses[hidden], fresh[hidden])
        torch.testing.assert_close(certain[hidden], certainty(z, y)[hidden])
        expected = oracle(losses.tolist(), certain.tolist(), selector.hidden_share(epoch + 1), 0.6)
        assert np.setdiff1d(np.arange(100), kept).tolist() == sorted(expected)
        record = selector.history[epoch]
        assert record["n_forward"] == 100 and record["n_backward"] == record["n_selected"] == len(before)
        before = kept
    assert sum(len(b) for b in passes) == sum(100 - r["n_selected"] for r in selector.history[:-1]) > 50


def test_nothing_is_hidden_that_is_not_sure_enough():
    selector = KAKURENBO(prune_ratio=0.5, tau=1.0)
    fit(selector, max_epochs=3)
    assert [r["n_selected"] for r in selector.history] == [100] * 3
    assert [r["n_forward"] for r in selector.history] == [100] * 3


def test_wrong_prediction_is_never_hidden():
    x, y = dataset().tensors
    wrong_label = torch.arange(100) % 4 == 0
    mixed = DataLoader(TensorDataset(x, torch.where(wrong_label, (y + 1) % 3, y)), 10, shuffle=True)
    selector, net, hidden = KAKURENBO(prune_ratio=0.9, tau=0.0, phases=(), whole_batches=False), Net(), []

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            kept = torch.zeros(100, dtype=torch.bool)
            kept[selector.selected] = True
            hidden.append((int((~kept).sum()), int((~kept & (selector.store.column("certainty") == 0)).sum())))

    fit(selector, net, mixed, callbacks=[Watch()], max_epochs=4)
    assert [wrong for _, wrong in hidden] == [0] * 4
    assert min(n for n, _ in hidden[1:]) > 30


def test_each_class_hides_the_lowest_losses_of_its_share():
    selector = KAKURENBO(prune_ratio=0.5, tau=0.0, balance="class", phases=(), whole_batches=False)
    classes, checked = dataset().tensors[1], []

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            kept = torch.zeros(100, dtype=torch.bool)
            kept[selector.selected] = True
            certain = selector.store.column("certainty")
            for c in range(3 if trainer.current_epoch else 0):
                of = (classes == c).nonzero().squeeze(1)
                expected = oracle(selector.losses[of].tolist(), certain[of].tolist(), 0.5, 0.0)
                checked.append(len(expected) > 0 and (~kept[of]).nonzero().squeeze(1).tolist() == sorted(expected))

    fit(selector, Net(), callbacks=[Watch()], max_epochs=4)
    assert checked == [True] * 9


@pytest.mark.slow
def test_resumed_fit_ends_in_same_weights_and_scores(tmp_path):
    def make():
        return KAKURENBO(prune_ratio=0.5, tau=0.5)

    savers = [
        ModelCheckpoint(tmp_path, filename="s{step}", every_n_train_steps=6, save_top_k=-1),
        ModelCheckpoint(tmp_path, filename="v{step}", monitor="val_loss", save_top_k=-1, save_on_train_epoch_end=False),
    ]
    selector = make()
    _, net = fit(selector, Net(by_step), callbacks=savers, max_epochs=5, enable_checkpointing=True)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) > 8
    for path in paths:
        again = make()
        _, resumed = fit(again, Net(by_step, seed=5), ckpt_path=path, max_epochs=5)
        assert same_weights(net, resumed), path
        cost = [[(r["n_selected"], r["n_forward"], r["n_backward"]) for r in s.history] for s in (selector, again)]
        assert cost[0] == cost[1], path


# ---- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 1.5}, r"tau=1.5 is outside \[0, 1\]"),
        ({"phases": (0.6, 0.3)}, r"phases=\(0.6, 0.3\) must be at most 4 shares of the epochs, ascending"),
        ({"phases": (0.1, 0.2, 0.3, 0.4, 0.5)}, "must be at most 4 shares"),
        ({"phases": (0.5, 7)}, r"phases=7 is outside \[0, 1\]"),
        ({"prune_ratio": 1.0}, r"prune_ratio=1.0 is outside"),
    ],
)
def test_arguments_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        KAKURENBO(**options)


def test_regression_is_an_error_on_the_first_batch():
    with pytest.raises(ValueError, match="KAKURENBO needs the logits and targets.*no classification loss"):
        fit(KAKURENBO(), Regressor(), loader(), max_epochs=1)
