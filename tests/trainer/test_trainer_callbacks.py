"""Other callbacks in any order, and the Tuner: results as without them, and no state spoilt."""

import copy

import lightning as L
import lightning.pytorch.callbacks as cb
import pytest
import torch
from helpers import AtMost, Net, Seen, dataset, loader, same_weights, trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from packaging.version import Version
from torch.utils.data import DataLoader

from lightning_dataselect import AutoAssist, EvolvedSampling, FewerEpochs, Frontier, InfoBatch, RandomPruning

KINDS = {
    "set": lambda: InfoBatch(prune_ratio=0.5, anneal=0.0, warmup_epochs=1),
    "batch": lambda: EvolvedSampling(batch_ratio=0.5, anneal=0.0, warmup_epochs=1),
}
SHORTER_FROM_THE_START = {
    "half of the first epoch": lambda: RandomPruning(prune_ratio=0.5),
    "fewer epochs": lambda: FewerEpochs(budget=0.5),
    "both": lambda: Frontier(budget=0.5),
    "a queue of batches": lambda: AutoAssist(synchronous=True),
}
KINDS_OF_SEARCHES = KINDS | SHORTER_FROM_THE_START
EPOCHS = 4
both_kinds = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.filterwarnings("ignore")


class Data(L.LightningDataModule):
    """Loaders of the batch size that the Tuner may change."""

    def __init__(self, batch_size=10):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(dataset(), self.batch_size, shuffle=True)

    def val_dataloader(self):
        return loader(50, 25, False)


def run(kind, *others, before=False, tmp_path=None, **flags):
    selector, net = KINDS_OF_SEARCHES[kind](), Net(lr=0.05)
    seen = Seen(selector)
    order = [*others, selector, seen] if before else [selector, seen, *others]
    made = trainer(*order, max_epochs=EPOCHS, default_root_dir=tmp_path, **flags)
    made.fit(net, datamodule=Data())
    return selector, net, seen, made


def facts(selector, net, seen):
    records = [{k: v for k, v in r.items() if "seconds" not in k} for r in selector.history]
    return records, seen.batches, selector.losses.nan_to_num(-1).tolist(), [p.tolist() for p in net.parameters()]


def averaging():
    made = [pytest.param(lambda folder: cb.StochasticWeightAveraging(0.01, swa_epoch_start=2), id="SWA")]
    for name in ("WeightAveraging", "EMAWeightAveraging"):  # newer than lightning 2.5
        if hasattr(cb, name):
            made.append(pytest.param(lambda folder, name=name: getattr(cb, name)(), id=name))
    return made


CHANGE_NOTHING = [
    pytest.param(lambda folder: cb.ModelCheckpoint(folder, monitor="val_loss", save_top_k=-1), id="ModelCheckpoint"),
    pytest.param(lambda folder: cb.EarlyStopping("val_loss", patience=9), id="EarlyStopping"),
    pytest.param(lambda folder: cb.LearningRateMonitor("step"), id="LearningRateMonitor"),
    pytest.param(lambda folder: cb.Timer(duration="00:01:00:00"), id="Timer"),
    pytest.param(lambda folder: cb.RichProgressBar(), id="RichProgressBar"),
    pytest.param(lambda folder: cb.TQDMProgressBar(), id="TQDMProgressBar"),
    pytest.param(lambda folder: cb.ModelSummary(), id="ModelSummary"),
    pytest.param(lambda folder: cb.RichModelSummary(), id="RichModelSummary"),
    pytest.param(lambda folder: cb.DeviceStatsMonitor(cpu_stats=False), id="DeviceStatsMonitor"),
    pytest.param(lambda folder: cb.GradientAccumulationScheduler({0: 1}), id="GradientAccumulationScheduler"),
]


@both_kinds
@pytest.mark.parametrize("make", CHANGE_NOTHING)
def test_callbacks_that_only_look_on(make, kind, tmp_path):
    expected = facts(*run(kind)[:3])
    for before in (True, False):
        other = make(tmp_path / str(before))
        flags = {
            "enable_checkpointing": isinstance(other, cb.ModelCheckpoint),
            "enable_progress_bar": isinstance(other, cb.ProgressBar),
            "enable_model_summary": isinstance(other, cb.ModelSummary),
            "logger": CSVLogger(tmp_path),
        }
        found = facts(*run(kind, other, before=before, tmp_path=tmp_path, **flags)[:3])
        assert found == expected, before


@both_kinds
@pytest.mark.parametrize("make", averaging())
def test_weights_are_averaged_over_the_steps_that_there_are(make, kind, tmp_path):
    runs = [run(kind, make(tmp_path), before=before) for before in (True, False)]
    for selector, net, seen, made in runs:
        assert made.global_step == len(net.steps) == len(seen.batches)
        assert sum(r["n_backward"] for r in selector.history) == sum(s.size for s in net.steps)
        assert not selector.losses.isnan().any()
    assert same_weights(runs[0][1], runs[1][1])
    assert not same_weights(runs[0][1], run(kind)[1])


class Normed(Net):
    """Has a batch norm, and writes down what that saw in each batch."""

    def __init__(self):
        super().__init__(lr=0.05)
        self.net.insert(1, torch.nn.BatchNorm1d(16))
        self.means = []

    def training_step(self, batch, batch_idx):
        self.means.append((self.trainer.current_epoch, self.net[0](batch[0]).detach().double().mean(0)))
        return super().training_step(batch, batch_idx)


ENDS = [(InfoBatch, None), (InfoBatch, 0.6), (EvolvedSampling, None), (EvolvedSampling, 0.6), (FewerEpochs, 0.6)]


@pytest.mark.parametrize("method, budget", ENDS)
def test_norms_of_averaged_weights_are_measured_on_everything_after_the_last_epoch(method, budget):
    common = {} if method is FewerEpochs else {"anneal": 0.25, "warmup_epochs": 1}
    if method is EvolvedSampling:
        common["batch_ratio"] = 0.5
    selector, net = method(budget=budget, **common), Normed()
    swa = cb.StochasticWeightAveraging(0.01, swa_epoch_start=1)
    made = trainer(selector, swa, AtMost(20 * EPOCHS), max_epochs=EPOCHS)
    made.fit(net, datamodule=Data())
    trained = len(selector.history)
    assert made.current_epoch == trained + 1 and net.steps[-1].epoch == trained
    assert sum(step.size for step in net.steps if step.epoch == trained) == 100
    if budget is None:
        assert trained == EPOCHS and selector.history[-1]["n_selected"] == selector.history[-1]["n_backward"] == 100
    means = torch.stack([mean for epoch, mean in net.means if epoch == trained])
    torch.testing.assert_close(net.net[1].running_mean.double(), means.mean(0), rtol=1e-4, atol=1e-5)


@both_kinds
@pytest.mark.parametrize("before", [True, False])
def test_accumulation_that_changes_by_epoch(kind, before):
    selector, net, _, made = run(kind, cb.GradientAccumulationScheduler({0: 1, 2: 3}), before=before)
    batches = [net.count(e) for e in range(EPOCHS)]
    assert made.global_step == sum(-(-n // (1 if e < 2 else 3)) for e, n in enumerate(batches))
    assert sum(r["n_backward"] for r in selector.history) == sum(s.size for s in net.steps)


@both_kinds
@pytest.mark.parametrize("before", [True, False])
def test_stopped_early(kind, before):
    selector, net, _, made = run(kind, cb.EarlyStopping("val_loss", patience=1, mode="max", min_delta=9), before=before)
    assert made.current_epoch == len(selector.history) == 2
    assert len(net.steps) == made.global_step


TUNERS = {
    "lr_find": lambda tuner, net, data: tuner.lr_find(net, datamodule=data, num_training=8, update_attr=False),
    "scale_batch_size": lambda tuner, net, data: tuner.scale_batch_size(
        net, datamodule=data, steps_per_trial=2, max_trials=2, init_val=4
    ),
}


class Scheduled(Net):
    """Asks for the train loader before any search does."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.parametrize("net", [Net, Scheduled])
@pytest.mark.parametrize("kind", SHORTER_FROM_THE_START)
def test_a_search_has_all_samples_and_all_epochs(kind, net, tmp_path):
    found = []
    for selector in (None, KINDS_OF_SEARCHES[kind]()):
        made, data = trainer(*([selector] if selector else []), max_epochs=2, default_root_dir=tmp_path), Data()
        torch.manual_seed(0)
        steps = 2 * len(data.train_dataloader())
        found.append(Tuner(made).lr_find(net(lr=0.05), datamodule=data, num_training=steps, update_attr=False))
    assert len(found[1].results["loss"]) == steps
    assert found[1].results["lr"] == found[0].results["lr"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_OF_SEARCHES)
@pytest.mark.parametrize("how", TUNERS)
def test_the_tuner_finds_what_it_finds_without_and_the_fit_is_as_without_it(kind, how, tmp_path):
    found = []
    for selector in (None, KINDS_OF_SEARCHES[kind]()):
        net, data = Net(lr=0.05), Data()
        seen = [Seen(selector)] if selector else []
        made = trainer(*([selector] if selector else []), max_epochs=EPOCHS, default_root_dir=tmp_path)
        torch.manual_seed(0)
        answer = TUNERS[how](Tuner(made), net, data)
        found.append((answer.suggestion(), answer.results["lr"]) if how == "lr_find" else (answer, data.batch_size))
        assert "training_step" not in vars(net) and len(seen) == bool(selector)
    assert found[0] == found[1]
    assert selector.history == []
    data.batch_size = 10
    net.steps.clear()
    made.callbacks.append(Seen(selector))
    made.fit(net, datamodule=data)
    assert facts(selector, net, made.callbacks[-1]) == facts(*run(kind)[:3])


@pytest.mark.xfail(
    Version(L.__version__) < Version("2.5.3"),
    reason="before 2.5.3 Lightning counts the batches of its search as the first epoch's, with or without a selector",
    strict=True,
)
@pytest.mark.parametrize("kind", KINDS_OF_SEARCHES)
@pytest.mark.parametrize("before", [True, False])
def test_a_learning_rate_finder_within_the_fit(kind, before, tmp_path):
    finder = cb.LearningRateFinder(num_training_steps=8, update_attr=False)
    selector, net, seen, made = run(kind, finder, before=before, tmp_path=tmp_path)
    net.steps = net.steps[8:]
    assert facts(selector, net, seen) == facts(*run(kind)[:3])


@pytest.mark.slow
@both_kinds
@pytest.mark.parametrize("before", [True, False])
def test_a_batch_size_finder_within_the_fit(kind, before, tmp_path):
    finder = cb.BatchSizeFinder(steps_per_trial=2, max_trials=2, init_val=4)
    alone = trainer(copy.deepcopy(finder), max_epochs=1, default_root_dir=tmp_path)
    alone.fit(Net(), datamodule=Data())
    selector, net, seen, made = run(kind, finder, before=before, tmp_path=tmp_path)
    size = made.datamodule.batch_size
    assert size == alone.datamodule.batch_size != 10
    assert [len(set(seen.of_epoch(e))) for e in range(EPOCHS)] == [r["n_selected"] for r in selector.history]
    assert max(len(batch) for _, batch in seen.batches) == size
    assert len(seen.of_epoch(0)) == 100 and len(selector.history) == EPOCHS


class Forwarding(L.Callback):
    """Hands its hooks on to another callback, of which the Trainer knows nothing."""

    def __init__(self, inner):
        self.inner = inner


def _handing_on(name):
    def hook(self, *args, **named):
        if (own := getattr(self.inner, name)) is not None:
            own(*args, **named)

    return hook


for _name in ("setup", "teardown", *(name for name in dir(L.Callback) if name.startswith("on_"))):
    setattr(Forwarding, _name, _handing_on(_name))


def test_a_selector_within_another_callback_selects():
    selector = RandomPruning(prune_ratio=0.5)
    trainer(Forwarding(selector), max_epochs=2).fit(Net(lr=0.05), datamodule=Data())
    assert [record["n_trained"] for record in selector.history] == [50, 50]
