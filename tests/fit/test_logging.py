import csv
import functools

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import Hardest, Net, Seen, Shares, WeightedShares, fit, loader, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection

from lightning_dataselect import ESWP, EpsilonGreedy, EvolvedSampling, SelectiveBackprop
from lightning_dataselect.capture import LossCapture

KEYS = {"kept_share", "train_loss", "samples_saved", "select_seconds", "score_q10", "score_q50", "score_q90"}


def logged(metrics):
    return {key.removeprefix("dataselect/"): float(v) for key, v in metrics.items() if key.startswith("dataselect/")}


def test_values_reach_the_trainers_metrics_and_progress_bar():
    selector = Shares(1.0, 0.5, 0.2)
    made, _ = fit(selector, max_epochs=3)
    values = logged(made.callback_metrics)
    assert values.keys() == KEYS
    assert values["kept_share"] == pytest.approx(0.2) and values["samples_saved"] == 50 + 80
    expected = selector.scores.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    assert [values[f"score_q{q}"] for q in (10, 50, 90)] == pytest.approx(expected)
    assert values["select_seconds"] == pytest.approx(selector.history[-1]["select_seconds"])
    assert made.progress_bar_metrics == {"kept": pytest.approx(0.2)}


def test_what_is_kept_of_each_batch_counts():
    selector = ESWP(batch_ratio=0.3, prune_ratio=0.4, warmup_epochs=1, anneal=0.0)
    made, _ = fit(selector, max_epochs=2)
    assert selector.history[-1]["n_trained"] == 18
    assert float(made.callback_metrics["dataselect/kept_share"]) == pytest.approx(0.18)
    assert made.progress_bar_metrics == {"kept": pytest.approx(0.18)}


def test_a_logger_gets_one_row_an_epoch(tmp_path):
    fit(Shares(1.0, 0.5), max_epochs=4, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    with open(next(tmp_path.rglob("metrics.csv"))) as file:
        rows = [logged({k: v for k, v in row.items() if v}) for row in csv.DictReader(file)]
    rows = [row for row in rows if row]
    assert [row["kept_share"] for row in rows] == [1, 0.5, 1, 0.5]
    assert [row["samples_saved"] for row in rows] == [0, 50, 50, 100]
    assert all(row.keys() == KEYS for row in rows)


def test_a_checkpoint_may_monitor_what_is_logged(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="dataselect/kept_share", mode="min", save_on_train_epoch_end=True)
    fit(Shares(1.0, 0.5, 0.2), callbacks=[best], enable_checkpointing=True, max_epochs=3)
    assert best.best_model_score == pytest.approx(0.2)


class TorchMean(Net):
    """Logs within a step whose loss ends in a function that is intercepted there."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.mean(torch.logsumexp(self.net(x), 1) - self.net(x)[torch.arange(len(x)), y])
        self.log("mean", float(batch_idx), on_step=True, on_epoch=True)
        self.log_dict({"named": float(batch_idx)}, on_step=False, on_epoch=True, reduce_fx=torch.mean)
        self.log("sum", float(batch_idx), on_step=False, on_epoch=True, reduce_fx="sum")
        return loss


def test_means_and_sums_are_logged_as_without_a_selector():
    # Lightning compares reduce_fx with torch.mean by identity, and from one step to the next
    plain, _ = fit(None, TorchMean(), max_epochs=2)
    selector, module = Shares(1.0), TorchMean()
    made, _ = fit(selector, module, max_epochs=2)
    names = ["mean_step", "mean_epoch", "named", "sum"]
    assert [made.callback_metrics[n] for n in names] == [plain.callback_metrics[n] for n in names] == [9, 4.5, 4.5, 45]
    assert selector.losses.isfinite().all() and "log" not in vars(module)


class Rows(L.Callback):
    """Keeps what was logged in each epoch."""

    def __init__(self):
        self.rows = []

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("own", float(trainer.current_epoch), reduce_fx="max")  # after the selector, in the same hook

    def on_train_epoch_start(self, trainer, pl_module):
        self.keep(trainer)

    def on_train_end(self, trainer, pl_module):
        self.keep(trainer)

    def keep(self, trainer):
        every = {**trainer.callback_metrics, **trainer.progress_bar_metrics}
        self.rows.append({k: float(v) for k, v in every.items() if "seconds" not in k})


class PassingOn(Net):
    """Has a `log` of its own, which changes nothing."""

    def log(self, *args, **kwargs):
        super().log(*args, **kwargs)


def test_from_the_second_epoch_on_numbers_are_logged_by_a_shorter_way(monkeypatch):
    found, log = [], _ResultCollection.log
    for net in (Net(), PassingOn()):
        rows, names = Rows(), []

        def counting(self, fx, name, *args, names=names, **kwargs):
            names.append(name)
            log(self, fx, name, *args, **kwargs)

        monkeypatch.setattr(_ResultCollection, "log", counting)
        fit(Shares(1.0, 0.5), net, callbacks=[rows], max_epochs=3, val=loader(20, 20, False))
        found.append(rows.rows)
        n_times = 3 if isinstance(net, PassingOn) else 1
        assert [names.count(f"dataselect/{key}") for key in ("kept_share", "score_q10")] == [n_times] * 2
    assert found[0] == found[1] and len({row.get("dataselect/train_loss") for row in found[0]}) == 4


def test_the_shorter_way_is_open_in_a_second_fit_of_the_same_trainer(tmp_path):
    selector = Shares(1.0, 0.5)
    made, net = fit(selector, max_epochs=2, logger=CSVLogger(tmp_path))
    made.fit_loop.max_epochs = 4
    made.fit(net, loader())
    with open(next(tmp_path.rglob("metrics.csv"))) as file:
        rows = [logged({k: v for k, v in row.items() if v}) for row in csv.DictReader(file)]
    assert [row["samples_saved"] for row in rows if row] == [0, 50, 50, 100]


class Renaming(Net):
    """Logs under names of its own."""

    def log(self, name, value, *args, **kwargs):
        super().log(f"mine/{name}", value, *args, **kwargs)


def watched(log, names):
    """Wrap a module's `log` as a library might."""

    @functools.wraps(log)
    def watching(*args, **kwargs):
        names.append(next(arg for arg in args if isinstance(arg, str)))
        log(*args, **kwargs)

    return watching


def test_a_log_of_the_users_own_gets_every_number():
    made, _ = fit(Shares(1.0, 0.5, 0.2), Renaming(), max_epochs=3)
    assert made.callback_metrics["mine/dataselect/kept_share"] == pytest.approx(0.2)
    assert made.callback_metrics["mine/dataselect/samples_saved"] == 50 + 80
    assert not logged(made.callback_metrics)


@pytest.mark.parametrize("of_class", [False, True])
def test_so_does_what_a_library_has_put_in_its_place(of_class, monkeypatch):
    net, names = Net(), []
    owner = L.LightningModule if of_class else net
    monkeypatch.setattr(owner, "log", watched(owner.log, names))
    fit(Shares(1.0, 0.5, 0.2), net, max_epochs=3)
    assert [names.count(f"dataselect/{key}") for key in KEYS] == [3] * len(KEYS)


def test_barebones_logs_nothing():
    selector, net = Shares(0.5), Net()
    made = trainer(selector, logger=None, enable_checkpointing=None, enable_progress_bar=None,
                   enable_model_summary=None, barebones=True, max_epochs=2)  # fmt: skip
    made.fit(net, loader())
    assert logged(made.callback_metrics) == {}
    assert [r["n_backward"] for r in selector.history] == [50, 50]


def test_history_counts_what_an_epoch_cost():
    selector = Shares(1.0, 0.35)
    fit(selector, train=loader(drop_last=True), max_epochs=2)
    first, second = selector.history
    assert (first["n_total"], first["n_selected"], first["n_forward"], first["n_backward"]) == (100, 100, 100, 100)
    assert (second["n_selected"], second["n_forward"], second["n_backward"]) == (35, 30, 30)
    assert all(r["seconds"] > 0 and r["select_seconds"] > 0 for r in selector.history)


def test_validation_is_no_part_of_the_training_seconds(clock):
    class Slow(Net):
        def training_step(self, batch, batch_idx):
            clock.advance(1)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            clock.advance(100)

    selector, module = Shares(0.5), Slow()
    fit(selector, module, val=loader(20, 20), max_epochs=1)
    witnessed = 6  # steps on three samples of the first batch: each alone, and together, forth and back; on eight of it
    assert selector.history[0]["seconds"] == len(module.steps) + witnessed > witnessed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"warmup_epochs": 4}, r"drop nothing: warmup_epochs=4 and anneal=0.0 leave none of the 4 epochs to prune"),
        ({"every_n_epochs": 3}, r"choose once in 4 epochs, as every_n_epochs=3: .* Lower every_n_epochs"),
    ],
)
def test_a_fit_too_short_for_its_arguments_is_named(arguments, words):
    with pytest.warns(UserWarning, match=words):
        fit(Hardest(**arguments))


@pytest.mark.parametrize("arguments", [{}, {"prune_ratio": 0.0, "warmup_epochs": 4}, {"warmup_epochs": 3}])
def test_a_fit_that_is_long_enough_is_not(arguments, recwarn):
    fit(Hardest(**arguments))
    assert not [w for w in recwarn if "Hardest will" in str(w.message)]


@pytest.mark.parametrize(("every_n_epochs", "n_choices"), [(2, 6), (3, 4), (4, 3)])
def test_choices_within_a_budget_are_those_of_the_epochs_that_dropping_makes_room_for(
    every_n_epochs, n_choices, recwarn
):
    selector = EpsilonGreedy(prune_ratio=0.5, budget=0.5, every_n_epochs=every_n_epochs)
    fit(selector, max_epochs=12)
    assert len(selector.history) == 11, "one of everything, and ten halves"
    words = [str(w.message) for w in recwarn if "EpsilonGreedy will" in str(w.message)]
    if n_choices >= 4:
        assert not words
    else:
        assert f"choose {n_choices} times in 11 epochs" in words[0]


def test_the_train_loss_is_the_mean_over_the_samples_without_their_weights():
    class Fixed(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    for selector in (WeightedShares(0.5), EvolvedSampling(batch_ratio=0.5, anneal=0.0), Shares(1.0)):
        net = Fixed()
        seen = Seen(selector)
        made, _ = fit(selector, net, callbacks=[seen], max_epochs=1)
        x, y = loader().dataset.tensors
        every = torch.nn.functional.cross_entropy(net.net(x), y, reduction="none")
        expected = every[torch.tensor(seen.of_epoch(0))].mean()
        assert float(made.callback_metrics["dataselect/train_loss"]) == pytest.approx(float(expected), rel=1e-5)


class Steps(L.Callback):
    """Writes down what the step returned, and the weights of its samples; to be listed after the selector."""

    def __init__(self, selector):
        self.selector, self.returned, self.weights = selector, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights.append(self.selector.batch.weights)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        x, y = batch
        loss = outputs["loss"].detach()
        self.returned.append((loss, torch.nn.functional.cross_entropy(pl_module.net(x), y, reduction="none").detach()))


@pytest.mark.parametrize("sample_loss", ["auto", "each"])
@pytest.mark.parametrize("logged_loss", ["unweighted", "weighted"])
def test_weights_change_the_value_of_the_loss_only_where_that_is_asked_for(logged_loss, sample_loss):
    class Still(Net):
        def training_step(self, batch, batch_idx):
            losses = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1], reduction="none")
            return {"loss": losses.mean(), "each": losses}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    selector = WeightedShares(0.5, logged_loss=logged_loss, sample_loss=sample_loss)
    seen = Steps(selector)
    fit(selector, Still(), callbacks=[seen], max_epochs=2)
    assert len(seen.returned) > 2
    for (loss, losses), weights in zip(seen.returned, seen.weights, strict=True):
        assert not torch.allclose(weights, torch.ones_like(weights))
        expected = (weights * losses).mean() if logged_loss == "weighted" else losses.mean()
        torch.testing.assert_close(loss, expected)


def test_nothing_is_logged_where_that_is_asked_for():
    made, _ = fit(Shares(1.0, 0.5, log=False), max_epochs=2)
    assert logged(made.callback_metrics) == {} and "train_loss" in made.callback_metrics
    with pytest.raises(TypeError, match="log='no' is not a bool: give True or False"):
        Shares(log="no")


class Logging(Net):
    """Logs its loss as it comes, as a number, and by a function of it."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log_dict({"number": loss.item(), "twice": 2 * loss}, on_step=False, on_epoch=True)
        return self.returned(loss, batch)

    def returned(self, loss, batch):
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class LoggingByName(Logging):
    def returned(self, loss, batch):
        return {"loss": loss, "each": torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1], reduction="none")}


@pytest.mark.parametrize("module, source", [(Logging, "auto"), (LoggingByName, "each")])
def test_what_a_step_logs_of_its_loss_is_unweighted(module, source):
    selector = WeightedShares(0.5, sample_loss=source)
    made, net = fit(selector, module(), max_epochs=2)
    x, y = loader().dataset.tensors
    kept = selector.selected
    expected = float(torch.nn.functional.cross_entropy(net.net(x[kept]), y[kept]))
    values = made.callback_metrics
    assert float(values["number"]) == pytest.approx(expected, rel=1e-5)
    assert float(values["twice"]) == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_that_leave_the_value_alone_still_reach_the_gradient(steps):
    torch.manual_seed(0)
    net, x, y = torch.nn.Linear(4, 3), torch.randn(8, 4), torch.randint(3, (8,))
    weights = torch.rand(8) * 2
    capture = LossCapture(net)
    capture.keeps_value = True
    for _ in range(steps):
        net.zero_grad()
        loss, _ = capture.run(lambda: torch.nn.functional.cross_entropy(net(x), y), 8, weights)
        loss.backward()
    each = torch.nn.functional.cross_entropy(net(x), y, reduction="none")
    (expected,) = torch.autograd.grad((weights * each).mean(), [net.weight])
    torch.testing.assert_close(net.weight.grad, expected)
    torch.testing.assert_close(loss, each.mean())


class LogsItsMean(Net):
    """Logs a mean over the epoch of each batch that it trains on, and knows what that should be."""

    def __init__(self):
        super().__init__(lr=0.0)
        self.sums, self.counts = [], []

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("mine", loss, on_step=False, on_epoch=True)
        if torch.is_grad_enabled():
            self.sums.append(float(loss) * len(batch[0]))
            self.counts.append(len(batch[0]))
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("whole", float(len(batch[0])), on_step=False, on_epoch=True)

    def on_train_epoch_start(self):
        self.sums.clear(), self.counts.clear()


@pytest.mark.parametrize("make", [SelectiveBackprop, lambda: EvolvedSampling(batch_ratio=0.5, warmup_epochs=0)])
def test_a_mean_over_the_epoch_weighs_batches_by_the_samples_that_were_trained_on(make):
    net = LogsItsMean()
    made, _ = fit(make(), net, loader(95, 20), max_epochs=3)
    assert len(set(net.counts)) > 1
    assert float(made.callback_metrics["mine"]) == pytest.approx(sum(net.sums) / sum(net.counts), abs=1e-6)
    assert float(made.callback_metrics["whole"]) == pytest.approx((4 * 20 * 20 + 15 * 15) / 95)
