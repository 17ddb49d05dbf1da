"""`short` is full data until its compute is spent, with schedules that nobody has fitted to it."""

import functools

import pytest
from helpers import Net, loader
from torch.optim.lr_scheduler import StepLR

from lightning_dataselect.comparison.plans.jobs import Job
from lightning_dataselect.comparison.plans.spec import MethodSpec
from lightning_dataselect.comparison.runs.records import RunRecord
from lightning_dataselect.comparison.tasks.made_task import MadeTask

RATES = []


class Writing(Net):
    """Writes down the learning rate of each step; its schedule has a constant in it."""

    def __init__(self):
        super().__init__(lambda optimizer, trainer: StepLR(optimizer, 2, 0.1))
        RATES.append(rates := [])
        self.rates = rates

    def on_train_batch_start(self, batch, batch_idx):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])


def run(label, epochs, folder):
    task = MadeTask(Writing, functools.partial(_loaders), {"accelerator": "cpu"}, epochs=4)
    job = Job(
        label, task, MethodSpec(label), 0.5, seed=0, epochs=epochs, monitor="val_loss", maximize=False, root=folder,
        fingerprint={}, test=False, samples=folder / "samples",
    )  # fmt: skip
    record = job.do(lambda done, value: None)
    assert isinstance(record, RunRecord), record
    return record, RATES[-1]


def _loaders():
    return loader(), loader(50, 25, False)


def test_its_schedule_ends_where_that_of_the_full_run_does(tmp_path):
    full, rates = run("full", 4, tmp_path)
    assert rates == pytest.approx([0.1] * 20 + [0.01] * 20)
    short, rates = run("short", 2, tmp_path)
    assert rates == pytest.approx([0.1] * 10 + [0.01] * 10)
    assert (short.epochs, short.epochs_done, short.n_backward, short.ended_by) == (2, 2, 200, "")
    assert short.kept == full.kept == []


def test_it_may_cost_more_than_a_full_run(tmp_path):
    record, rates = run("short", 5, tmp_path)
    assert (record.epochs, record.epochs_done, len(rates)) == (5, 5, 50)
