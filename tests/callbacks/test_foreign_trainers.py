"""Fabric and Hugging Face's Trainer take callbacks, but not these: the message says what they are for."""

import pytest
import torch
from lightning.fabric import Fabric

from lightning_dataselect import InfoBatch, list_methods
from lightning_dataselect.utils.errors import UnsupportedTrainerError


def test_fabric_is_refused_when_it_sets_up_a_module():
    fabric = Fabric(accelerator="cpu", devices=1, callbacks=[InfoBatch()])
    with pytest.raises(UnsupportedTrainerError, match=r"InfoBatch is a callback of lightning.Trainer.*in Fabric"):
        fabric.setup(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", [method.name for method in list_methods()])
def test_hugging_faces_trainer_is_refused_when_it_is_made(name):
    """Calls the event as its CallbackHandler does."""
    selector = next(method.cls for method in list_methods() if method.name == name)()
    with pytest.raises(RuntimeError, match=f"{name} is a callback of lightning.Trainer.*the Trainer of Hugging Face"):
        selector.on_init_end(object(), object(), object(), model=None, train_dataloader=None)
