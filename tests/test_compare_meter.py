"""The clock stops for validation, and samples are counted."""

import time
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_dataselect.compare.meter import Meter

TICK = 0.05
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_validation_is_no_training_time():
    seen = []
    meter = Meter("acc", lambda done, value: seen.append((done, value)))
    trainer = SimpleNamespace(sanity_checking=False, current_epoch=0, callback_metrics={})
    meter.start()
    time.sleep(TICK)
    meter.on_validation_start(trainer, None)
    time.sleep(4 * TICK)
    meter.on_validation_end(trainer, None)
    assert TICK <= meter.elapsed().wall < 2.5 * TICK
    assert 4 * TICK <= meter.validation.wall < 5.5 * TICK
    meter.on_train_epoch_end(trainer, None)
    trainer.callback_metrics["acc"] = torch.tensor(0.5)
    meter.on_train_epoch_end(trainer, None)
    assert seen == [(1, None), (1, 0.5)]
    assert [point.value for point in meter.curve] == [0.5]


def test_the_sanity_check_is_counted_once():
    meter = Meter("acc", lambda done, value: None)
    trainer = SimpleNamespace(sanity_checking=True)
    meter.start()
    meter.on_sanity_check_start(trainer, None)
    meter.on_validation_start(trainer, None)
    time.sleep(TICK)
    meter.on_validation_end(trainer, None)
    meter.on_sanity_check_end(trainer, None)
    assert meter.validation.wall == pytest.approx(TICK, rel=0.4)
    assert meter.elapsed().wall < TICK


def test_samples_are_those_of_the_batches():
    meter = Meter("acc", lambda done, value: None)
    for size in (4, 4, 1):
        meter.on_train_batch_end(None, None, None, (torch.zeros(size, 2), torch.zeros(size)), 0)
    assert meter.n_samples == 9


class Slow(Dataset):
    """Takes its time over each sample."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        time.sleep(TICK / 10)
        return torch.zeros(2), torch.zeros(2)


class Regression(pl.LightningModule):
    def __init__(self, pause):
        super().__init__()
        self.layer, self.pause = torch.nn.Linear(2, 2), pause

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_waiting_is_the_time_that_the_loader_takes(tmp_path):
    meter = Meter("acc", lambda done, value: None)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[meter], default_root_dir=tmp_path, **QUIET)
    before = dict(vars(trainer.fit_loop.epoch_loop))
    meter.start()
    trainer.fit(Regression(pause=TICK), DataLoader(Slow(), batch_size=4))
    wall, cpu = meter.elapsed()
    loading, training = 16 * TICK / 10, 4 * TICK
    assert loading <= meter.waiting_seconds < 1.5 * loading
    assert wall >= loading + training
    assert cpu < wall  # sleeping takes none
    assert set(vars(trainer.fit_loop.epoch_loop)) == set(before)
    assert meter.gpu_busy is None


def test_a_gpu_is_watched_now_and_then_and_its_lack_is_no_error(monkeypatch):
    meter = Meter("acc", lambda done, value: None)
    shares = iter([40, 60])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(shares))
    module, batch = SimpleNamespace(device=torch.device("cuda")), torch.zeros(4, 2)
    meter.on_train_batch_end(None, module, None, batch, 0)
    assert meter.gpu_busy is None  # not before training has begun
    meter._busy_next = 0.0
    for _ in range(3):
        meter.on_train_batch_end(None, module, None, batch, 0)
    assert meter.gpu_busy == 0.4  # the others came too soon
    for _ in range(2):  # the second look finds nothing more to read, and is the last
        meter._busy_next = 0.0
        meter.on_train_batch_end(None, module, None, batch, 0)
    assert meter.gpu_busy == 0.5 and meter._busy_next == float("inf")
