"""In a steady step no method makes the host wait for the device; counted on a CPU, where a wait would not show."""

import warnings

import lightning as L
import pytest
import torch
from device_waits import Close, Open, SyncWarnings, Waits, waits_of_steady_steps
from helpers import trainer
from matrix_settings import EPOCHS, SETTINGS, Tiny, loader

WAITING = {
    "item": lambda x: x.sum().item(),
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "index by a mask": lambda x: x[x > 0],
    "assignment by a mask": lambda x: x.index_put_((x > -1,), x.clone()),
    "bincount": lambda x: x.bincount(),
}
FREE = {
    "arithmetic": lambda x: (x + 1).sum().clamp(min=2),
    "index by positions": lambda x: x[torch.tensor([0, 2])],
    "fill by a mask": lambda x: x.masked_fill(x > 1, 0),
    "assignment of one value by a mask": lambda x: x.__setitem__(x > 1, 0),
    "topk": lambda x: x.topk(2),
}
# The number of samples that they take is an outcome, so the host must learn it once a step.
DOCUMENTED = {
    "DBPD": {"item": 1},
    "SMRD": {"item": 1},
    "SelectiveBackprop": {"item": 1},
    "SelectiveBackprop, every second batch scored": {"item": 1},
    "SelectiveBackprop, batches of constant size": {"item": 1},
    # Its losses have been copied without waiting, and an event tells when; the call is of a tensor on the CPU.
    "AutoAssist, asynchronous": {"cpu": 1},
}
BY_DESIGN = "AutoAssist"  # synchronous=True: the step waits for the Assistant


@pytest.mark.parametrize("name", WAITING)
def test_counter_finds_what_waits(name):
    with Waits() as waits:
        WAITING[name](torch.arange(4))
    assert [found for found, _ in waits.found] == [name]


@pytest.mark.parametrize("name", FREE)
def test_counter_passes_what_does_not_wait(name):
    with Waits() as waits:
        FREE[name](torch.arange(4))
    assert not waits.found


def steady_waits(selector, n_epochs=EPOCHS):
    def fit(callbacks):
        trainer(*callbacks, max_epochs=EPOCHS).fit(Tiny(), loader())

    found, n_steps = waits_of_steady_steps(selector, {n_epochs - 2, n_epochs - 1}, fit)
    assert n_steps > 2
    return found, n_steps


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != BY_DESIGN])
def test_steady_step_waits_for_nothing(name, tmp_path):
    setting = SETTINGS[name]
    found, n_steps = steady_waits(setting.make(tmp_path), len(setting.selected))
    by_kind = {}
    for (kind, _), count in found.items():
        by_kind[kind] = by_kind.get(kind, 0) + count
    assert by_kind == {kind: count * n_steps for kind, count in DOCUMENTED.get(name, {}).items()}, found


def test_steady_step_of_a_balanced_selection_waits_for_nothing(tmp_path):
    found, _ = steady_waits(SETTINGS["InfoBatch"].make(tmp_path, balance="class"))
    assert not found


def on_a_gpu(**options):
    return L.Trainer(**options | {"accelerator": "gpu", "devices": 1})


def cuda_warnings_of_a_step(selector):
    """Count the warnings of CUDA itself that a steady step waited."""
    opened = Open({EPOCHS - 2, EPOCHS - 1}, modes=[SyncWarnings()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callbacks = [opened, *([] if selector is None else [selector]), Close(opened)]
        trainer(*callbacks, max_epochs=EPOCHS, cls=on_a_gpu).fit(Tiny(), loader())
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught) / opened.n_steps


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in SETTINGS if not name.startswith("AutoAssist")])
def test_steady_step_waits_for_nothing_on_a_gpu(name, tmp_path):
    expected = cuda_warnings_of_a_step(None) + sum(DOCUMENTED.get(name, {}).values())
    assert cuda_warnings_of_a_step(SETTINGS[name].make(tmp_path)) <= expected
