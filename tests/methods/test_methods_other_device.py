"""Every method writes down what a batch has shown on a device that cannot be mixed with the CPU."""

import pytest
import torch
from matrix_settings import BATCH, CLASSES, SETTINGS, N
from other_device import Apart

from lightning_dataselect.state.recording import count_step, record
from lightning_dataselect.state.selection import Observation

# GraNd measures in passes of its own, and SwiftLearn needs a fit to say how wide its outputs are.
APART = ("GraNd", "SwiftLearn")
MEASURING = sorted(name for name, setting in SETTINGS.items() if setting.measures and setting.method not in APART)


@pytest.mark.parametrize("name", MEASURING)
def test_what_a_batch_has_shown_stays_on_its_device(name: str, tmp_path) -> None:
    selector = SETTINGS[name].make(tmp_path)
    run, device = selector.run_state, torch.device("meta")
    run.open(selector, N, 1, 0)
    run.to(device)
    logits, targets = torch.zeros(BATCH, CLASSES, device=device), torch.zeros(BATCH, device=device).long()
    seen = Observation(torch.arange(BATCH, device=device), logits[:, 0], logits, targets, 0)
    with Apart():
        for _ in range(2):
            record(run, seen, selector)
            count_step(run, seen.indices)
        run.store.flush()
    assert all(run.store[column].device == device for column in ("loss", "score", "margin"))
