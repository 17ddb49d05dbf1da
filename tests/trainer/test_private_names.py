"""If Lightning renames what `trainer/` rests on, fits are the same by a detour, or refused in words."""

import sys
import warnings

import pytest
from helpers import SAFELY, AtMost, Net, Seen, Shares, WeightedShares, loader, same_weights, trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from schedule_helpers import one_cycle
from torch import nn

from lightning_dataselect import EvolvedSampling, RandomPruning
from lightning_dataselect import trainer as trainer_room

SHARES = (0.7, 1.0, 0.2, 0.5, 1.0)
LENGTHS = [7, 10, 2, 5, 10]
RENAMED = [
    ("fit_loop", "_combined_loader"),
    ("fit_loop", "_data_fetcher"),
    ("fit_loop._data_fetcher", "length"),
    ("fit_loop._combined_loader", "limits"),
]


def hide(owner, *names):
    """Take names from an object, for the bridge alone: Lightning goes on to know them, by another name as it were."""

    def get(self, name):
        if name in names and sys._getframe(1).f_globals["__name__"].startswith(trainer_room.__name__):
            raise AttributeError(name)
        return super(hidden, self).__getattribute__(name)

    hidden = type(type(owner).__name__, (type(owner),), {"__getattribute__": get})
    owner.__class__ = hidden


class Renames:
    """A Trainer in which a name is hidden as soon as its owner is there."""

    def __init__(self, made, path, name):
        self.path, self.name = path.split(".")[1:], name
        self.loop = made.fit_loop
        if not self.path:
            hide(made.fit_loop, name)
            return
        setup_data = made.fit_loop.setup_data

        def hiding():
            setup_data()
            owner = self.loop
            for part in self.path:
                owner = getattr(owner, part)
            if owner is not None and type(owner).__getattribute__ is object.__getattribute__:
                hide(owner, name)

        made.fit_loop.setup_data = hiding


def run(selector, renamed=None, module=None, train=None, ckpt_path=None, callbacks=(), **flags):
    net = module or Net(one_cycle)
    seen = Seen(selector)
    made = trainer(selector, seen, *callbacks, **{"max_epochs": 5, **flags})
    if renamed is not None:
        Renames(made, *renamed)
    options = {"ckpt_path": ckpt_path, **SAFELY} if ckpt_path else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.fit(net, train or loader(), loader(50, 25, False), **options)
    told = [str(w.message) for w in caught if "reload_dataloaders_every_n_epochs=1" in str(w.message)]
    return made, net, seen, told


def facts(selector, made, net, seen):
    steps = [(s.epoch, s.batch_idx, s.size, s.is_last, s.lr) for s in net.steps]
    records = [{k: v for k, v in r.items() if "seconds" not in k} for r in selector.history]
    rates = [config.scheduler.last_epoch for config in made.lr_scheduler_configs]
    return steps, net.validated, records, rates, made.global_step, seen.batches, selector.scores.nan_to_num(-1).tolist()


FLAGS = [
    {},
    {"train": {"num_workers": 2, "persistent_workers": True}},
    {"accumulate_grad_batches": 3},
    {"val_check_interval": 0.5},
    {"val_check_interval": 4},
    {"val_check_interval": 4, "check_val_every_n_epoch": None},
    {"check_val_every_n_epoch": 2},
    {"limit_train_batches": 6},
    {"limit_train_batches": 0.5},
    {"max_steps": 20},
    {"reload_dataloaders_every_n_epochs": 2},
    {"num_sanity_val_steps": 0},
]


def both(renamed, flags):
    flags = dict(flags)
    options = flags.pop("train", {})
    for name in (None, renamed):
        selector = WeightedShares(*SHARES)
        made, net, seen, told = run(selector, name, train=loader(**options), **flags)
        assert len(told) == (name is not None)
        assert made.reload_dataloaders_every_n_epochs == flags.get("reload_dataloaders_every_n_epochs", 0)
        yield facts(selector, made, net, seen), net


@pytest.mark.parametrize("renamed", RENAMED, ids=lambda renamed: ".".join(renamed))
def test_each_name_may_be_missing(renamed):
    (expected, net), (found, again) = both(renamed, {})
    assert [sum(step[0] == e for step in expected[0]) for e in range(5)] == LENGTHS
    assert [step[:2] for step in found[0] if step[3]] == [(e, n - 1) for e, n in enumerate(LENGTHS)]
    assert found == expected and same_weights(net, again)


@pytest.mark.parametrize("flags", FLAGS[1:], ids=str)
def test_a_fit_by_the_detour_is_the_same(flags):
    (expected, net), (found, again) = both(RENAMED[1], flags)
    assert found == expected and same_weights(net, again)


def test_a_budget_ends_a_fit_by_the_detour_as_it_does_in_place():
    found = []
    for name in (None, RENAMED[1]):
        selector = WeightedShares(*SHARES, budget=0.55)
        made, net, seen, _ = run(selector, name)
        steps, *rest = facts(selector, made, net, seen)
        # the loader of the epoch that is cut goes on, so its last batch is not called the last
        found.append(([(epoch, i, size, lr) for epoch, i, size, _, lr in steps], *rest))
    assert found[0] == found[1] and sum(size for _, _, size, _ in found[0][0]) == pytest.approx(275, abs=5)


def test_the_warning_names_what_is_missing_and_what_it_costs():
    *_, told = run(Shares(1.0, 0.5), RENAMED[0], max_epochs=2)
    (words,) = told
    assert "has no fit_loop._combined_loader.limits, by which" in words
    assert "It sets reload_dataloaders_every_n_epochs=1 for this fit instead: right, but slower" in words


def test_it_resumes_by_the_detour(tmp_path):
    keep = [
        ModelCheckpoint(tmp_path / "steps", every_n_train_steps=1, save_top_k=-1, filename="{step}"),
        ModelCheckpoint(tmp_path / "validations", monitor="val_loss", save_top_k=-1, filename="{step}"),
        ModelCheckpoint(tmp_path / "epochs", save_on_train_epoch_end=True, save_top_k=-1, filename="{step}"),
    ]
    flags = {"train": loader(batch_size=20), "max_epochs": 4}
    selector = Shares(*SHARES)
    made, net, seen, _ = run(selector, RENAMED[0], callbacks=keep, enable_checkpointing=True, **flags)
    expected = facts(selector, made, net, seen)
    paths = sorted(tmp_path.rglob("*.ckpt"))
    assert len(paths) > 20
    for path in paths:
        selector = Shares(*SHARES)
        made, resumed, again, told = run(
            selector, RENAMED[0], Net(one_cycle, seed=9), ckpt_path=path, **flags | {"train": loader(batch_size=20)}
        )
        found = facts(selector, made, resumed, again)
        assert told or not again.batches
        assert found[2:5] == expected[2:5] and found[6] == expected[6], path
        assert again.batches == seen.batches[len(seen.batches) - len(again.batches) :], path
        assert same_weights(net, resumed), path


@pytest.mark.parametrize("interval", [8, 10])
def test_an_interval_longer_than_a_reloaded_epoch_validates_at_its_end(interval):
    # Lightning refuses an interval that is longer than the loader it has just been given
    net = run(Shares(1.0, 0.5), reload_dataloaders_every_n_epochs=1, val_check_interval=interval)[1]
    assert net.validated == run(Shares(1.0, 0.5), val_check_interval=interval)[1].validated


def test_a_failed_fit_gives_the_users_setting_back():
    class Failing(Net):
        def training_step(self, batch, batch_idx):
            if self.trainer.current_epoch == 1:
                raise ValueError("mine")
            return super().training_step(batch, batch_idx)

    made = trainer(Shares(1.0, 0.5), max_epochs=4, reload_dataloaders_every_n_epochs=3, val_check_interval=8)
    hide(made.fit_loop, "_data_fetcher")
    with pytest.raises(ValueError, match="mine"), pytest.warns(match="has no fit_loop._data_fetcher"):
        made.fit(Failing(), loader(), loader(50, 25, False))
    assert made.reload_dataloaders_every_n_epochs == 3 and made.val_check_interval == 8


def test_without_a_way_to_the_train_loader_a_fit_is_refused():
    made, net = trainer(Shares(0.5)), Net()
    hide(made.fit_loop, "_data_source")
    with pytest.raises(RuntimeError, match="has no fit_loop._data_source.dataloader, without which no selector can"):
        made.fit(net, loader())
    assert net.steps == [] and "training_step" not in vars(net)


def test_whether_samplers_are_distributed_is_taken_to_be_true(monkeypatch):
    made = trainer(Shares(0.5), use_distributed_sampler=False)
    monkeypatch.setattr(type(made), "distributed_sampler_kwargs", {"num_replicas": 3, "rank": 1})
    assert trainer_room.sampler_ranks(made) == (1, 0)
    hide(made, "_accelerator_connector")
    assert trainer_room.sampler_ranks(made) == (3, 1)


def test_which_batches_step_is_counted_where_lightning_does_not_say():
    flags = {"accumulate_grad_batches": 3, "max_epochs": 5}
    found = []
    for renamed in (False, True):
        selector, net = WeightedShares(*SHARES), Net(one_cycle)
        seen = Seen(selector)
        made = trainer(selector, seen, **flags)
        if renamed:
            hide(made.fit_loop.epoch_loop, "_should_accumulate")
        made.fit(net, loader(), loader(50, 25, False))
        found.append(facts(selector, made, net, seen))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["_results", "_current_fx", "_current_fx_name"])
def test_numbers_are_logged_like_any_other_where_the_shorter_way_is_closed(name, monkeypatch):
    names, log = [], _ResultCollection.log

    def counting(self, fx, name, *args, **kwargs):
        names.append(name)
        log(self, fx, name, *args, **kwargs)

    monkeypatch.setattr(_ResultCollection, "log", counting)
    found = []
    for renamed in (False, True):
        made, net = trainer(Shares(1.0, 0.5), max_epochs=3), Net()
        if renamed:
            hide({"_results": made, "_current_fx": made._logger_connector, "_current_fx_name": net}[name], name)
        made.fit(net, loader())
        found.append({k: v for k, v in made.callback_metrics.items() if "seconds" not in k})
    assert found[0] == found[1] and len(found[0]) > 6
    assert names.count("dataselect/samples_saved") == 1 + 3


@pytest.mark.parametrize("name", ["automatic_optimization.run", "_should_accumulate"])
def test_without_a_hold_on_the_optimization_no_batches_are_gathered(name):
    made, net = trainer(EvolvedSampling(constant_batch_size=True)), Net()
    *path, last = name.split(".")
    owner = made.fit_loop.epoch_loop
    for part in path:
        owner = getattr(owner, part)
    hide(owner, last)
    with pytest.raises(RuntimeError, match=f"has no fit_loop.epoch_loop.{name}, without which no batches can be gath"):
        made.fit(net, loader())
    assert net.steps == [] and "training_step" not in vars(net)


def averaged(hidden, budget, norm):
    """A fit whose weights are averaged by a callback that does not show a name; with a batch norm or without."""
    net, swa = Net(), StochasticWeightAveraging(0.01, swa_epoch_start=0.6, annealing_epochs=2)
    if norm:
        net.net.insert(1, nn.BatchNorm1d(16))
    if hidden is not None:
        hide(swa, hidden)
    selector = RandomPruning(prune_ratio=0.5, budget=budget)
    trainer(selector, swa, AtMost(100), max_epochs=4).fit(net, loader())
    return selector, net, swa


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("hidden", ["_max_epochs", "_swa_epoch_start", "_initialized"])
def test_weights_are_averaged_until_the_announced_end_where_it_cannot_be_moved(hidden, norm):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        selector, net, swa = averaged(hidden, 0.5, norm)
    told = [str(one.message) for one in said if "by which a selector with a budget" in str(one.message)]
    assert [f"has no {hidden}," in text for text in told] == ([] if hidden == "_max_epochs" else [True])
    assert (swa.swa_start, int(swa.n_averaged)) == (0, 2)  # of two epochs, which cost what four pruned ones do
    assert [record["n_backward"] for record in selector.history] == [50] * 4
    _, _, moved = averaged(None, 0.5, norm)
    assert (moved.swa_start, int(moved.n_averaged)) == (1, 3)


@pytest.mark.parametrize("hidden", ["_max_epochs", "_model_contains_batch_norm"])
def test_the_pass_for_batch_norms_counts_as_an_epoch_where_nothing_tells_it_apart(hidden):
    selector, net, _ = averaged(hidden, None, norm=True)
    assert [record["n_backward"] for record in selector.history] == [50] * 5 and net.count(4) == 5
    selector, net, _ = averaged(None, None, norm=True)
    assert [record["n_backward"] for record in selector.history] == [50] * 4 and net.count(4) == 10
