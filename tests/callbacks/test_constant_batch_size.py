"""Chosen samples are gathered over several of the loader's batches, and trained on once they fill a whole one."""

import csv
import warnings
from collections import Counter
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import Net, Seen, fit, loader, same_weights
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, ThroughputMonitor
from lightning.pytorch.loggers import CSVLogger
from ranks import on_ranks
from resume_helpers import compare
from schedule_helpers import one_cycle
from streams import Keyed, Stream, stream
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect import BatchSelector, DivBS, EvolvedSampling, RHOLoss, SelectiveBackprop
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.utils.errors import InvalidArgumentError, UnsupportedLoaderError

METHODS = {
    "EvolvedSampling": lambda **o: EvolvedSampling(batch_ratio=0.3, anneal=0.0, **o),
    "RHOLoss": lambda **o: RHOLoss(holdout_losses=torch.linspace(0, 1, 100), batch_ratio=0.3, warmup_epochs=1, **o),
    "SelectiveBackprop": lambda **o: SelectiveBackprop(beta=1, **o),
}
each = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


class Highest(WithinBatches, BatchSelector):
    """Takes the highest losses; nothing is left to chance."""

    def __init__(self, **common):
        super().__init__(**{"warmup_epochs": 0, "batch_ratio": 0.3, "constant_batch_size": True, **common})

    def choose(self, seen, k, generator):
        return seen.losses.topk(k).indices


class ByRank(Highest):
    """Takes as many samples as it is told for each rank."""

    def __init__(self, *taken, **common):
        super().__init__(**common)
        self.taken = taken

    def choose(self, seen, k, generator):
        return torch.arange(self.taken[self.context.rank])


class Line(L.LightningModule):
    """Fits a line, without schedule or momentum."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 1)
        nn.init.constant_(self.line.weight, 0.125)
        nn.init.zeros_(self.line.bias)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.line(x).squeeze(1), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def points():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 4))
    return x, x @ [1.0, -2.0, 0.5, 3.0] + generator.normal(size=90)


def reference(accumulate, n_epochs, batch_size=10, ratio=0.3, lr=0.05):
    """Gather, and step: from the formula, in NumPy."""
    x, y = points()
    w, b = np.full(4, 0.125), 0.0
    queue, gradients, n_steps = [], [], 0
    for _ in range(n_epochs):
        starts = range(0, len(x), batch_size)
        for start in starts:
            own = np.arange(start, start + batch_size)
            losses = (x[own] @ w + b - y[own]) ** 2
            queue += own[np.argsort(-losses)[: round(ratio * batch_size)]].tolist()
            is_last = start == starts[-1]
            n = batch_size if len(queue) >= batch_size else len(queue) if is_last and gradients else 0
            if n > 0:
                batch, queue = queue[:n], queue[n:]
                error = x[batch] @ w + b - y[batch]
                gradients.append((2 * (x[batch] * error[:, None]).mean(0), 2 * error.mean()))
                if len(gradients) == accumulate or is_last:
                    w = w - lr * sum(g for g, _ in gradients) / accumulate
                    b = b - lr * sum(g for _, g in gradients) / accumulate
                    gradients, n_steps = [], n_steps + 1
    return w, b, n_steps


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_trains_as_a_plain_loop_that_queues_what_it_chooses(accumulate):
    x, y = map(torch.tensor, points())
    train = DataLoader(TensorDataset(x, y), 10)
    trainer, line = fit(
        Highest(), Line(), train, [], max_epochs=5, precision="64-true", accumulate_grad_batches=accumulate
    )
    w, b, n_steps = reference(accumulate, n_epochs=5)
    np.testing.assert_allclose(line.line.weight[0].detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(line.line.bias.item(), b, rtol=1e-12)
    assert trainer.global_step == n_steps


@each
def test_every_step_has_a_whole_batch_and_nothing_chosen_is_lost_but_the_last_few(make):
    selector = make(constant_batch_size=True)
    trainer, net = fit(selector, max_epochs=5)
    assert {step.size for step in net.steps} == {10}
    chosen = sum(record["n_trained"] for record in selector.history)
    trained = sum(record["n_backward"] for record in selector.history)
    assert 0 <= chosen - trained < 10 and trained == 10 * trainer.global_step == 10 * len(net.steps)
    assert all(r["n_trained"] + r["n_left_out"] == 100 for r in selector.history)


def test_no_sample_is_trained_on_for_want_of_others():
    few = SelectiveBackprop(beta=9, warmup_epochs=0, constant_batch_size=True)  # a tenth of each batch of 4
    fit(few, train=loader(batch_size=4), max_epochs=4)
    assert sum(record["n_trained"] for record in few.history) < 70
    at_once = SelectiveBackprop(beta=9, warmup_epochs=0)
    fit(at_once, train=loader(batch_size=4), max_epochs=4)
    assert sum(record["n_trained"] for record in at_once.history) >= 4 * 25


@each
def test_goes_on_from_every_checkpoint_to_the_same_bits(tmp_path, make):
    tried = compare(tmp_path, lambda: make(constant_batch_size=True), every=3, max_epochs=3)
    assert tried > 3


def test_goes_on_within_accumulation_after_a_step(tmp_path):
    def make():
        return METHODS["EvolvedSampling"](constant_batch_size=True)

    assert compare(tmp_path, make, kinds=("step",), max_epochs=3, accumulate_grad_batches=2) > 3


@each
def test_rates_end_where_they_would_have_ended(make):
    net = Net(one_cycle)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*lr_scheduler.step.*")
        trainer, _ = fit(make(constant_batch_size=True), net, max_epochs=4)
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.last_epoch == 40
    assert trainer.global_step < 25


def test_rates_left_alone_move_with_optimizer_steps():
    net = Net(one_cycle)
    trainer, _ = fit(Highest(lr_schedule="steps"), net, max_epochs=4)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == trainer.global_step == len(net.steps) == 12


class Sized(Stream):
    """Knows its length."""

    def __len__(self):
        return self.n


def test_rates_on_a_stream_end_with_its_length_or_with_max_steps():
    net = Net(one_cycle)
    trainer, _ = fit(Highest(), net, DataLoader(Sized(), 8), max_epochs=4)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 48 and trainer.global_step == len(net.steps) == 12
    indexed = Net(one_cycle)
    fit(Highest(), indexed, loader(96, 8, shuffle=False), max_epochs=4)
    assert [step.lr for step in net.steps] == [step.lr for step in indexed.steps]
    by_steps = Net(one_cycle)
    trainer, _ = fit(Highest(), by_steps, stream(), max_epochs=-1, max_steps=10)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 10 == len(by_steps.steps)


def test_rates_on_a_stream_go_on_from_a_checkpoint(tmp_path):
    steps = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")

    def schedule(optimizer, trainer):  # to ask the Trainer for its length makes Lightning forget the loader's state
        return {"scheduler": OneCycleLR(optimizer, 0.5, total_steps=48), "interval": "step"}

    net, resumed = Net(schedule), Net(schedule, seed=9)
    fit(Highest(), net, StatefulDataLoader(Sized(), 8), callbacks=[steps], enable_checkpointing=True)
    trainer, _ = fit(Highest(), resumed, StatefulDataLoader(Sized(), 8), ckpt_path=tmp_path / "step=5.ckpt")
    assert same_weights(net, resumed) and trainer.lr_scheduler_configs[0].scheduler.last_epoch == 48
    assert [step.lr for step in resumed.steps] == [step.lr for step in net.steps][5:]


def test_steps_are_what_the_trainer_counts(tmp_path):
    every_other = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    net = Net()
    trainer, _ = fit(Highest(), net, callbacks=[every_other], max_epochs=-1, max_steps=7, enable_checkpointing=True)
    assert trainer.global_step == len(net.steps) == 7
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["step=2", "step=4", "step=6"]


class Logging(Net):
    def __init__(self):
        super().__init__()
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss))
        self.log("mean", loss, on_step=False, on_epoch=True)
        return loss


def test_what_is_logged_is_of_the_gathered_batches(tmp_path):
    net, logger = Logging(), CSVLogger(tmp_path)
    fit(Highest(), net, callbacks=[ThroughputMonitor(len)], max_epochs=2, logger=logger, log_every_n_steps=1)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows if row["train_loss"]] == list(range(6))
    assert [float(row["train_loss"]) for row in rows if row["train_loss"]] == pytest.approx(net.losses)
    means = [float(row["mean"]) for row in rows if row["mean"]]
    assert means == pytest.approx([sum(net.losses[:3]) / 3, sum(net.losses[3:]) / 3])


def test_validation_keeps_the_loader_s_time():
    net, plain = Net(), Net()
    fit(Highest(), net, max_epochs=2, val_check_interval=4)
    fit(Highest(constant_batch_size=False), plain, max_epochs=2, val_check_interval=4)
    assert [epoch for epoch, _ in net.validated] == [epoch for epoch, _ in plain.validated] == [0, 0, 1, 1]


def test_accumulation_may_change_from_epoch_to_epoch():
    net = Net()
    trainer, _ = fit(Highest(batch_ratio=0.5), net, callbacks=[GradientAccumulationScheduler({0: 1, 2: 2})])
    assert [net.count(epoch) for epoch in range(4)] == [5] * 4
    assert trainer.global_step == 5 + 5 + 3 + 3


def test_whole_batches_in_between_are_trained_on_as_they_come():
    selector, net = Highest(batch_ratio=0.5, whole_every_n_batches=5), Net()
    fit(selector, net, max_epochs=2)
    assert {step.size for step in net.steps} == {10}
    assert [net.count(epoch) for epoch in range(2)] == [6, 6]  # two whole ones, and 8 halves
    assert [step.batch_idx for step in net.steps if step.epoch == 0] == [1, 3, 4, 6, 8, 9]


def test_epochs_on_whole_batches_leave_what_waits_alone():
    selector, net = Highest(anneal=0.5), Net()
    fit(selector, net, train=loader(90), max_epochs=4)  # 27 are chosen in an epoch
    assert [net.count(epoch) for epoch in range(4)] == [2, 3, 9, 9]
    assert [record["n_backward"] for record in selector.history] == [20, 30, 90, 90]


class Normalized(Net):
    def __init__(self):
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(16))


def test_batch_norm_is_never_given_one_sample_for_the_last_step_of_an_epoch():
    selector, net = ByRank(1, batch_ratio=0.1), Normalized()
    fit(selector, net, train=loader(110), accumulate_grad_batches=2, max_epochs=3)  # 10 of 11, and 1 waits
    assert min(step.size for step in net.steps) > 1


class Repeating(Line):
    """Calls for a batch several times over."""

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


def test_an_optimizer_may_ask_for_the_same_batch_again():
    x, y = (torch.tensor(part, dtype=torch.float32) for part in points())
    selector = Highest()
    trainer, _ = fit(selector, Repeating(), DataLoader(TensorDataset(x, y), 10), [], max_epochs=2)
    assert trainer.global_step == 5  # 54 chosen samples
    assert sum(record["n_trained"] for record in selector.history) == 54


@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with keys"])
def test_a_stream_is_trained_on_as_a_data_set_in_its_order(keyed):
    streamed, module = Highest(sample_id="id" if keyed else None), Keyed() if keyed else Net()
    fit(streamed, module, stream(keyed=keyed), max_epochs=3)
    indexed = Highest()
    _, net = fit(indexed, train=loader(96, 8, shuffle=False), max_epochs=3)
    assert same_weights(module, net) and {step.size for step in module.steps} == {8}
    assert [r["n_trained"] for r in streamed.history] == [r["n_trained"] for r in indexed.history] == [24] * 3
    if keyed:
        assert int(streamed.column("times_trained").sum()) == 72


def test_samples_whose_keys_are_forgotten_meanwhile_are_trained_on_all_the_same():
    whole, few = Highest(sample_id="id"), Highest(sample_id="id", history_size=8)
    _, expected = fit(whole, Keyed(), stream(keyed=True), max_epochs=2)
    _, module = fit(few, Keyed(), stream(keyed=True), max_epochs=2)
    assert same_weights(module, expected) and len(few.losses) == 8
    assert int(few.column("times_trained").sum()) <= 8 * 1 + 2


@pytest.mark.parametrize("sample_id", [None, "id"])
def test_goes_on_within_an_epoch_of_a_stream_that_has_a_state(tmp_path, sample_id):
    def run(net, path=None, callbacks=()):
        selector = SelectiveBackprop(beta=1, constant_batch_size=True, sample_id=sample_id)
        train = stream(keyed=True, loader=StatefulDataLoader)
        flags = {"max_epochs": 3, "limit_train_batches": 10, "enable_checkpointing": bool(callbacks)}
        fit(selector, net, train, callbacks=callbacks, ckpt_path=path, **flags)
        return [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]

    steps = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    net, resumed = Keyed(), Keyed(seed=9)
    expected = run(net, callbacks=[steps])
    assert run(resumed, tmp_path / "step=17.ckpt") == expected and same_weights(resumed, net)


def on_rank(make, ckpt_path=None, saves=None, **flags):
    selector, net = make(), Net()
    seen = Seen(selector)
    keep = [ModelCheckpoint(saves, every_n_train_steps=1, save_top_k=-1, filename="{step}")] if saves else []
    trainer, _ = fit(
        selector, net, loader(100, 10), callbacks=[seen, *keep], ckpt_path=ckpt_path, max_epochs=3, **flags,
        enable_checkpointing=bool(saves),
    )  # fmt: skip
    return {
        "weights": [tensor.tolist() for tensor in net.state_dict().values()],
        "sizes": Counter(step.size for step in net.steps),
        "counts": [(r["n_trained"], r["n_left_out"], r["n_backward"]) for r in selector.history],
        "steps": trainer.global_step,
        "batches": seen.batches,
    }


@pytest.mark.parametrize("name", ["EvolvedSampling", "SelectiveBackprop"])
def test_ranks_step_together_and_go_on_to_the_same_bits(tmp_path, name):
    def make():
        return METHODS[name](constant_batch_size=True)

    first, second = on_ranks(on_rank, 2, tmp_path / "whole", make=make, saves=tmp_path / "steps")
    assert first["weights"] == second["weights"] and first["batches"] != second["batches"]
    assert first["counts"] == second["counts"] and first["steps"] == second["steps"] > 5
    assert set(first["sizes"]) == set(second["sizes"]) == {10} and first["sizes"] == second["sizes"]
    again = on_ranks(on_rank, 2, tmp_path / "again", make=make, ckpt_path=tmp_path / "steps" / "step=7.ckpt")
    for resumed, whole in zip(again, (first, second), strict=True):
        assert resumed["weights"] == whole["weights"] and resumed["counts"] == whole["counts"]


def test_a_rank_that_chooses_more_waits_for_the_others_and_gives_up_its_oldest(tmp_path):
    first, second = on_ranks(on_rank, 2, tmp_path / "ranks", make=lambda: ByRank(3, 9))
    assert first["weights"] == second["weights"] and first["steps"] == second["steps"] == 4  # 15 batches of 3
    assert first["sizes"] == second["sizes"] == {10: 4}
    trained, left_out, _ = map(sum, zip(*first["counts"], strict=True))
    assert trained + left_out == 300
    # the second rank has trained on 40 of the 135 it chose, and at most 20 wait
    assert 45 + 40 < trained <= 45 + 40 + 20


class Ragged(TensorDataset):
    """Samples that a batch is padded to the longest of."""

    def __init__(self):
        self.lengths = [4 + i // 10 for i in range(40)]

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        return torch.ones(self.lengths[i])


class Sums(Line):
    def training_step(self, batch, batch_idx):
        return (batch.sum(1) * self.line.bias).square().mean()


def padded(samples):
    return nn.utils.rnn.pad_sequence(samples, batch_first=True)


def test_batches_that_do_not_fit_together_are_refused_in_words():
    with pytest.raises(UnsupportedLoaderError, match=r"different sizes at the top, \(4,\) and \(7,\).*Pad or crop"):
        fit(Highest(), Sums(), DataLoader(Ragged(), 10, collate_fn=padded), [])


def test_what_cannot_be_gathered_is_refused_at_construction():
    with pytest.raises(InvalidArgumentError, match="constant_batch_size=True, score_every_n_batches=2"):
        Highest(score_every_n_batches=2)
    with pytest.raises(InvalidArgumentError, match="constant_batch_size=True, loader='a'"):
        Highest(loader="a")
    with pytest.raises(TypeError, match="constant_batch_size"):
        DivBS(constant_batch_size="yes")
