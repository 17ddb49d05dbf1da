"""The clock stops for validation, and samples are counted."""

import time
from types import SimpleNamespace

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_dataselect.comparison.runs.meter import Meter

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_validation_is_no_training_time(clock):
    seen = []
    meter = Meter("acc", lambda done, value: seen.append((done, value)))
    trainer = SimpleNamespace(sanity_checking=False, current_epoch=0, callback_metrics={})
    meter.start()
    clock.advance(1)
    meter.on_validation_start(trainer, None)
    clock.advance(4)
    meter.on_validation_end(trainer, None)
    clock.advance(2)
    assert (meter.elapsed().wall, meter.validation.wall) == (3, 4)
    meter.on_train_epoch_end(trainer, None)
    trainer.callback_metrics["acc"] = torch.tensor(0.5)
    meter.on_train_epoch_end(trainer, None)
    assert seen == [(1, None), (1, 0.5)]
    assert [(point.seconds, point.value) for point in meter.curve] == [(3, 0.5)]


def test_the_sanity_check_is_counted_once(clock):
    meter = Meter("acc", lambda done, value: None)
    trainer = SimpleNamespace(sanity_checking=True)
    meter.start()
    meter.on_sanity_check_start(trainer, None)
    clock.advance(1)
    meter.on_validation_start(trainer, None)
    clock.advance(2)
    meter.on_validation_end(trainer, None)
    clock.advance(4)
    meter.on_sanity_check_end(trainer, None)
    assert (meter.elapsed().wall, meter.validation.wall) == (0, 7)


def test_samples_are_those_of_the_batches():
    meter = Meter("acc", lambda done, value: None)
    for size in (4, 4, 1):
        meter.on_train_batch_end(None, None, None, (torch.zeros(size, 2), torch.zeros(size)), 0)
    assert meter.n_samples == 9


class Slow(Dataset):
    """Takes a second over each sample."""

    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.clock.advance(1)
        return torch.zeros(2), torch.zeros(2)


class Regression(pl.LightningModule):
    def __init__(self, clock):
        super().__init__()
        self.layer, self.clock = torch.nn.Linear(2, 2), clock

    def training_step(self, batch, batch_idx):
        self.clock.advance(10)
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_waiting_is_the_time_that_the_loader_takes(clock, monkeypatch, tmp_path):
    meter = Meter("acc", lambda done, value: None)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[meter], default_root_dir=tmp_path, **QUIET)
    before = dict(vars(trainer.fit_loop.epoch_loop))
    monkeypatch.setattr(time, "process_time", lambda: clock.now / 2)
    meter.start()
    trainer.fit(Regression(clock), DataLoader(Slow(clock), batch_size=4))
    assert meter.waiting_seconds == 2 * 8
    assert meter.elapsed() == (2 * (8 + 2 * 10), 8 + 2 * 10)
    assert set(vars(trainer.fit_loop.epoch_loop)) == set(before)
    assert meter.gpu_busy is None


def test_a_gpu_is_watched_now_and_then_and_its_lack_is_no_error(monkeypatch):
    meter = Meter("acc", lambda done, value: None)
    shares = iter([40, 60])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(shares))
    module, batch = SimpleNamespace(device=torch.device("cuda")), torch.zeros(4, 2)
    meter.on_train_batch_end(None, module, None, batch, 0)
    assert meter.gpu_busy is None  # not before training has begun
    meter.next_look = 0.0
    for _ in range(3):
        meter.on_train_batch_end(None, module, None, batch, 0)
    assert meter.gpu_busy == 0.4  # the others came too soon
    for _ in range(2):  # the second look finds nothing more to read, and is the last
        meter.next_look = 0.0
        meter.on_train_batch_end(None, module, None, batch, 0)
    assert meter.gpu_busy == 0.5 and meter.next_look == float("inf")
