"""The clock stops for validation, and samples are counted."""

import time
from types import SimpleNamespace

import pytest
import torch

from lightning_dataselect.compare.meter import Meter

TICK = 0.05


def test_validation_is_no_training_time():
    seen = []
    meter = Meter("acc", lambda done, value: seen.append((done, value)))
    trainer = SimpleNamespace(sanity_checking=False, current_epoch=0, callback_metrics={})
    meter.start()
    time.sleep(TICK)
    meter.on_validation_start(trainer, None)
    time.sleep(4 * TICK)
    meter.on_validation_end(trainer, None)
    assert TICK <= meter.seconds() < 2.5 * TICK
    assert 4 * TICK <= meter.validation_seconds < 5.5 * TICK
    meter.on_train_epoch_end(trainer, None)
    trainer.callback_metrics["acc"] = torch.tensor(0.5)
    meter.on_train_epoch_end(trainer, None)
    assert seen == [(1, None), (1, 0.5)]
    assert [value for _, value in meter.curve] == [0.5]


def test_the_sanity_check_is_counted_once():
    meter = Meter("acc", lambda done, value: None)
    trainer = SimpleNamespace(sanity_checking=True)
    meter.start()
    meter.on_sanity_check_start(trainer, None)
    meter.on_validation_start(trainer, None)
    time.sleep(TICK)
    meter.on_validation_end(trainer, None)
    meter.on_sanity_check_end(trainer, None)
    assert meter.validation_seconds == pytest.approx(TICK, rel=0.4)
    assert meter.seconds() < TICK


def test_samples_are_those_of_the_batches():
    meter = Meter("acc", lambda done, value: None)
    for size in (4, 4, 1):
        meter.on_train_batch_end(None, None, None, (torch.zeros(size, 2), torch.zeros(size)), 0)
    assert meter.n_samples == 9
