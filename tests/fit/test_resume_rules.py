"""Every kind of checkpoint, under every rule that ends a fit, goes on to a longer rule bit for bit."""

from types import SimpleNamespace

import lightning as L
import pytest
from helpers import Net, Seen, Shares, fit
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint, timer
from resume_helpers import SHARES, batches, facts, saved
from schedule_helpers import by_epoch

# epochs have 5, 3, 1 and 5 batches: steps 5, 8, 9 and 14 end one
RULES = {
    "max_epochs": ({"max_epochs": 2}, {"max_epochs": 4}),
    "max_steps within an epoch": ({"max_epochs": -1, "max_steps": 7}, {"max_epochs": -1, "max_steps": 12}),
    "max_steps within the first epoch": ({"max_epochs": -1, "max_steps": 2}, {"max_epochs": -1, "max_steps": 7}),
    "max_steps at the end of an epoch": ({"max_epochs": -1, "max_steps": 8}, {"max_epochs": -1, "max_steps": 14}),
    "steps before epochs": ({"max_epochs": 3, "max_steps": 6}, {"max_epochs": 4, "max_steps": 100}),
    "epochs before steps": ({"max_epochs": 2, "max_steps": 100}, {"max_epochs": 4, "max_steps": 12}),
    "max_time": ({"max_epochs": -1, "seconds": 7}, {"max_epochs": -1, "seconds": 12}),
    "max_time before epochs": ({"max_epochs": 4, "seconds": 6}, {"max_epochs": 4, "seconds": 100}),
    "limited, epochs": ({"max_epochs": 2, "limit_train_batches": 3}, {"max_epochs": 4, "limit_train_batches": 3}),
    "limited, steps": (
        {"max_epochs": -1, "max_steps": 4, "limit_train_batches": 3},
        {"max_epochs": -1, "max_steps": 9, "limit_train_batches": 3},
    ),
}  # fmt: skip
KINDS = {
    "default": lambda folder: [ModelCheckpoint(folder)],
    "epoch end": lambda folder: [ModelCheckpoint(folder, save_top_k=-1, save_on_train_epoch_end=True)],
    "every step": lambda folder: [ModelCheckpoint(folder, save_top_k=-1, every_n_train_steps=1)],
    "validation": lambda folder: [ModelCheckpoint(folder, save_top_k=-1, monitor="val_loss")],
    "save_last": lambda folder: [ModelCheckpoint(folder, save_last=True, save_top_k=0)],
    "after the fit": lambda folder: [],
    "exception": lambda folder: [OnExceptionCheckpoint(folder)],
}
_WHOLE = {}


class Failing(Net):
    """Raises at one step, and never again."""

    at = None

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == self.at:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)


class Clock(L.Callback):
    """Lets a second pass with each batch."""

    def __init__(self, monkeypatch):
        self.now = 0
        monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: self.now))

    def on_train_batch_end(self, *args):
        self.now += 1


def run(monkeypatch, rule, val, *, callbacks=(), path=None, fails_at=None, folder=None):
    rule = dict(rule)
    clock = Clock(monkeypatch)
    if (seconds := rule.pop("seconds", None)) is not None:
        rule["max_time"] = {"seconds": seconds}
    selector, net = Shares(*SHARES, lr_schedule="steps"), Failing(by_epoch, seed=0 if path is None else 9)
    net.at = fails_at
    seen = Seen(selector)
    flags = {"enable_checkpointing": True, "limit_val_batches": 1.0 if val else 0, **rule, "default_root_dir": folder}
    # the clock goes before the timer, which the Trainer puts first
    made, _ = fit(selector, net, batches(), callbacks=[seen, clock, *callbacks], ckpt_path=path, **flags)
    return facts(selector, made, net), seen.batches, made


def whole(monkeypatch, name, val, folder):
    if (name, val) not in _WHOLE:
        _WHOLE[name, val] = run(monkeypatch, RULES[name][1], val, folder=folder)[:2]
    return _WHOLE[name, val]


@pytest.mark.parametrize(
    "val", [pytest.param(False, id="no validation"), pytest.param(True, id="validation", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_goes_on_to_a_longer_rule(name, kind, val, tmp_path, monkeypatch):
    if kind == "validation" and not val:
        pytest.skip("nothing to monitor")
    short, long = RULES[name]
    expected, order = whole(monkeypatch, name, val, tmp_path / "whole")
    options = {"callbacks": KINDS[kind](tmp_path / "saved"), "folder": tmp_path}
    if kind == "exception":
        with pytest.raises(ZeroDivisionError):
            run(monkeypatch, short, val, fails_at=1 if "first" in name else 3, **options)
    else:
        made = run(monkeypatch, short, val, **options)[-1]
        if kind == "after the fit":
            made.save_checkpoint(tmp_path / "saved" / "after.ckpt")
    paths = saved(tmp_path / "saved")
    if kind == "validation" and not paths:
        pytest.skip("the fit ended before it was validated")
    assert paths
    for path in paths if kind != "every step" else paths[-4:]:
        result, rest, _ = run(monkeypatch, long, val, path=path, folder=tmp_path / "again")
        assert rest == order[len(order) - len(rest) :], path
        assert result == expected, path


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["default", "every step", "after the fit"])
def test_a_fit_may_be_made_longer_again_and_again(kind, accumulate, tmp_path, monkeypatch):
    flags = {"max_epochs": -1, "accumulate_grad_batches": accumulate}
    expected, order, _ = run(monkeypatch, {"max_steps": 12, **flags}, False, folder=tmp_path)
    path, taken = None, []
    for steps in (1, 2, 5, 6, 8, 9, 12):
        folder = tmp_path / str(steps)
        rule = {"max_steps": steps, **flags}
        result, batches, made = run(monkeypatch, rule, False, path=path, callbacks=KINDS[kind](folder), folder=folder)
        made.save_checkpoint(folder / "after.ckpt")
        path, taken = saved(folder)[0 if kind == "default" else -1], taken + batches
    assert taken == order
    assert result == expected


def test_a_selector_joins_a_fit_that_was_ended_by_steps(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True)
    fit(None, train=batches(), callbacks=[keep], max_epochs=-1, max_steps=7, enable_checkpointing=True)
    selector = Shares(0.5, warmup_epochs=1)
    made, _ = fit(selector, train=batches(), ckpt_path=keep.best_model_path, max_epochs=-1, max_steps=15)
    assert [(r["epoch"], r["n_selected"]) for r in selector.history] == [(2, 100), (3, 50)]
    assert made.global_step == 15


def test_the_same_trainer_fits_longer(tmp_path):
    selector, net = Shares(*SHARES), Net()
    made, _ = fit(selector, net, batches(), max_epochs=-1, max_steps=7)
    assert [r["n_backward"] for r in selector.history] == [100, 40]
    made.fit_loop.epoch_loop.max_steps = 13
    made.fit(net, batches())
    # Lightning takes the epoch that was cut for done
    assert [r["n_backward"] for r in selector.history] == [100, 40, 20, 90]
