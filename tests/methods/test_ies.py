"""IES against float64 NumPy written from the paper's rule, with the histories of a real fit."""

import lightning as L
import numpy as np
import pytest
import torch
from helpers import Net, dataset, fit, loader, same_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from rescoring_helpers import watch_eval_steps

from lightning_dataselect import IES, Observation
from lightning_dataselect.methods.ies import not_mastered


def mean_change(losses, window):
    """The mean absolute second difference of the last losses, NaN where they are too few."""
    if len(losses) < window + 2:
        return np.nan
    x = np.asarray(losses, np.float64)
    return np.abs(x[2:] - 2 * x[1:-1] + x[:-2])[-window:].mean()


def seen(indices, losses, epoch=0):
    return Observation(torch.tensor(indices), torch.tensor(losses, dtype=torch.float32), None, None, epoch)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(0, 100, width=32) | st.just(float("nan")), min_size=3, max_size=3), max_size=9),
    st.integers(1, 4),
)
def test_score_is_the_mean_second_difference(history, window):
    selector = IES(window=window)
    selector.run_state.open(selector, 4, world_size=1, epoch=0)
    for losses in history:
        selector.observe(seen([3, 0, 2], losses), selector.store)
    got = selector.store.column("score").double().numpy()
    for column, i in enumerate((3, 0, 2)):
        expected = mean_change([losses[column] for losses in history], window)
        np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(got[1]), "never seen"


def test_steady_decay_counts_as_mastered_and_what_moves_does_not():
    selector = IES(window=2, threshold=1e-3)
    selector.run_state.open(selector, 3, world_size=1, epoch=0)
    for t in range(4):
        selector.observe(seen([0, 1, 2], [5.0 - t, 2.0**-t, 0.0]), selector.store)
    assert not_mastered(selector.store.column("score"), 1e-3).tolist() == [1]


def test_something_is_left_to_train_on():
    assert not_mastered(torch.tensor([0.1, 0.3, 0.2]), 1.0).tolist() == [1]
    assert not_mastered(torch.tensor([5.0, 0.1, float("nan")]), 1.0).tolist() == [0, 2], "what is not known is kept"
    assert not_mastered(torch.tensor([0.0, 0.0]), 0.0).tolist() == [0, 1]


class Watch(L.Callback):
    """Lists what an epoch trained on, the losses known after it, and those of the model as it then is."""

    def __init__(self, selector):
        self.selector, self.facts = selector, []

    def on_train_epoch_end(self, trainer, pl_module):
        x, y = dataset().tensors
        with torch.no_grad():
            fresh = torch.nn.functional.cross_entropy(pl_module.net(x), y, reduction="none")
        self.facts.append((self.selector.losses.clone(), fresh, self.selector.state.plan.indices))


@pytest.mark.parametrize(("window", "warmup"), [(2, None), (1, 3), (3, 1)])
def test_a_fit_leaves_out_what_the_rule_says(window, warmup):
    threshold, epochs = 0.02, 12
    selector = IES(threshold=threshold, window=window, warmup_epochs=warmup, whole_batches=False)
    net, watch = Net(lr=0.03), Watch(selector)
    passes = watch_eval_steps(net)
    fit(selector, net, callbacks=[watch], max_epochs=epochs)
    warmup = window + 3 if warmup is None else warmup
    histories, trained, left_out = [[] for _ in range(100)], np.arange(100), 0
    for epoch, (losses, fresh, chosen) in enumerate(watch.facts[:-1]):
        stopped = np.setdiff1d(np.arange(100), trained)
        if epoch + 1 >= warmup:  # what follows is selected, so that what was left out has been measured
            torch.testing.assert_close(losses[stopped], fresh[stopped])
        for i, loss in enumerate(losses.tolist()):
            histories[i].append(loss)
        changes = np.array([mean_change(h, window) for h in histories])
        expected = np.flatnonzero(~(changes < threshold)) if epoch + 1 >= warmup else np.arange(100)
        near = np.flatnonzero(np.abs(changes - threshold) < 1e-6)
        assert set(chosen.tolist()) - set(near) == set(expected) - set(near), epoch
        record = selector.history[epoch]
        assert record["n_backward"] == len(trained) and record["n_forward"] == 100
        trained, left_out = chosen.numpy(), left_out + 100 - len(chosen)
    assert sum(map(len, passes)) == left_out - (100 - len(watch.facts[-2][2])) > 50
    back = [np.setdiff1d(b[2], a[2]).size for a, b in zip(watch.facts, watch.facts[1:], strict=False)]
    assert sum(back) > 0, "some have come back"


def test_annealing_trains_on_everything_and_measures_nothing():
    selector = IES(threshold=1e9, window=1, warmup_epochs=3, anneal=0.5, whole_batches=False)
    fit(selector, max_epochs=8)
    assert [r["n_selected"] for r in selector.history] == [100, 100, 100, 1, 100, 100, 100, 100]
    assert [r["n_forward"] for r in selector.history] == [100, 100, 100, 1, 100, 100, 100, 100]


@pytest.mark.slow
def test_resumed_fit_ends_in_same_weights(tmp_path):
    def make():
        return IES(threshold=0.03, window=2)

    saver = ModelCheckpoint(tmp_path, filename="s{step}", every_n_train_steps=17, save_top_k=-1)
    selector = make()
    _, net = fit(selector, Net(lr=0.03), callbacks=[saver], max_epochs=9, enable_checkpointing=True)
    assert min(r["n_selected"] for r in selector.history) < 100
    for path in sorted(tmp_path.glob("*.ckpt")):
        again = make()
        _, resumed = fit(again, Net(lr=0.03, seed=5), loader(), ckpt_path=path, max_epochs=9)
        assert same_weights(net, resumed), path


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"threshold": -1}, ValueError, "threshold=-1 must be finite and 0 or more"),
        ({"threshold": float("nan")}, ValueError, "threshold=nan must be finite"),
        ({"window": 0}, ValueError, "window=0 is too small"),
        ({"prune_ratio": 0.5}, TypeError, "IES has no use for prune_ratio=0.5: each epoch leaves out what is mastered"),
        ({"every_n_epochs": 2}, TypeError, "IES has no use for every_n_epochs=2"),
    ],
)
def test_wrong_arguments(options, error, words):
    with pytest.raises(error, match=words):
        IES(**options)
