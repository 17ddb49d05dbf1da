"""Fabric and Hugging Face's Trainer take callbacks, but not these: the message says what they are for."""

import pytest
import torch
from lightning.fabric import Fabric

from lightning_dataselect import EvolvedSampling, InfoBatch, LogFigures, list_methods
from lightning_dataselect.utils.errors import UnsupportedTrainerError


def test_fabric_is_refused_when_it_sets_up_a_module():
    fabric = Fabric(accelerator="cpu", devices=1, callbacks=[InfoBatch()])
    with pytest.raises(UnsupportedTrainerError, match=r"InfoBatch is a callback of lightning.Trainer.*in Fabric"):
        fabric.setup(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("hook", ["setup", "on_train_start", "on_train_epoch_end", "on_validation_start"])
@pytest.mark.parametrize("callback", [InfoBatch, EvolvedSampling, LogFigures])
def test_fabric_is_refused_when_its_loop_calls_a_hook(callback, hook):
    fabric = Fabric(accelerator="cpu", devices=1, callbacks=[callback()])
    for named in ({}, {"epoch": 3}):
        with pytest.raises(UnsupportedTrainerError, match=f"{callback.__name__} is a callback of .*in Fabric"):
            fabric.call(hook, **named)


@pytest.mark.parametrize("name", [method.name for method in list_methods()])
def test_hugging_faces_trainer_is_refused_when_it_is_made(name):
    """Calls the event as its CallbackHandler does."""
    selector = next(method.cls for method in list_methods() if method.name == name)()
    with pytest.raises(RuntimeError, match=f"{name} is a callback of lightning.Trainer.*the Trainer of Hugging Face"):
        selector.on_init_end(object(), object(), object(), model=None, train_dataloader=None)
