"""The state of the samples lies on the disk, and is what it is in memory."""

import gc
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from helpers import N, Net, fit, loader, same_weights
from ranks import on_ranks
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from lightning_dataselect import InfoBatch, SelectiveBackprop
from lightning_dataselect.fit.scratch import check_scratch
from lightning_dataselect.state.changed_samples import grow


def make(folder=None):
    return InfoBatch(prune_ratio=0.7, anneal=0.0, scratch_dir=folder)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "scratch"
    made.mkdir()
    return made


def n_mapped(folder):
    """How many files of the folder this process has mapped."""
    return sum(f" {folder}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


class Looks(L.Callback):
    """Writes down, at the end of each epoch, how many files of the folder are mapped, and which have names."""

    def __init__(self, folder):
        self.folder = folder
        self.n_mapped, self.named = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        if sys.platform == "linux":
            self.n_mapped.append(n_mapped(self.folder))
        self.named += self.folder.iterdir()


class Fails(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("whole_batches", [False, True])
def test_a_fit_is_the_same_and_its_files_have_no_names(whole_batches, folder, tmp_path):
    in_memory, on_disk = make(), make(folder)
    for each in (in_memory, on_disk):
        each.whole_batches = whole_batches
    looks = Looks(folder)
    _, expected = fit(in_memory)
    _, found = fit(on_disk, callbacks=[looks])
    assert same_weights(found, expected)
    assert torch.equal(on_disk.losses, in_memory.losses) and torch.equal(on_disk.selected, in_memory.selected)
    assert torch.equal(on_disk.weights, in_memory.weights)
    exported = [each.export(tmp_path / f"{i}.csv").read_text() for i, each in enumerate((on_disk, in_memory))]
    assert exported[0] == exported[1]
    assert not looks.named
    if sys.platform == "linux":
        # loss, which is the score, four of the history, nine of classes, losses that are not finite, a plan
        assert min(looks.n_mapped) >= 17


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the mappings of a process as Linux shows them")
def test_room_comes_back_with_the_selector(folder):
    selector = make(folder)
    fit(selector, max_epochs=2)
    assert n_mapped(folder) > 0 and selector.losses.isfinite().all()
    del selector
    gc.collect()  # the Trainer and its callbacks know each other
    assert n_mapped(folder) == 0


def test_a_fit_that_fails_leaves_nothing(folder):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(make(folder), callbacks=[Fails()])
    assert not list(folder.iterdir())


def test_samplers_of_the_users_own_are_filtered_alike(folder):
    def weighted():
        sampler = WeightedRandomSampler(torch.ones(N), N, generator=torch.Generator().manual_seed(1))
        return loader(shuffle=False, sampler=sampler)

    (_, expected), (_, found) = fit(make(), train=weighted()), fit(make(folder), train=weighted())
    assert same_weights(found, expected)


def test_a_data_set_that_grows_goes_on(folder):
    def grown(selector):
        fit(selector, max_epochs=2)
        grow(selector.run_state, selector, N + 20)
        return selector.state_dict()["columns"], selector.selected

    (expected, chosen), (found, on_disk) = grown(make()), grown(make(folder))
    assert all(torch.equal(found[name].nan_to_num(-1), column.nan_to_num(-1)) for name, column in expected.items())
    assert torch.equal(chosen, on_disk)


def test_a_folder_that_there_is_not_ends_the_fit_before_it_begins(tmp_path):
    net = Net()
    with pytest.raises(FileNotFoundError, match=r"scratch_dir='.*missing' is no folder: make it, or give another one"):
        fit(make(tmp_path / "missing"), net)
    assert not net.steps


def test_a_disk_without_room_for_a_choice_ends_the_fit_before_it_begins(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    net = Net()
    with pytest.raises(ValueError, match=f"has 1e-06 GB free, and choosing among {N} samples takes"):
        fit(make(folder), net)
    assert not net.steps


def results_of_rank(scratch_dir, **spread):
    selector = make(scratch_dir)
    _, net = fit(selector, max_epochs=3, **spread)
    return net.state_dict(), selector.state_dict()["columns"], selector.selected


@pytest.mark.slow
def test_ranks_share_the_folder_and_no_file(folder, tmp_path):
    in_memory = on_ranks(results_of_rank, 2, tmp_path / "memory", scratch_dir=None)
    on_disk = on_ranks(results_of_rank, 2, tmp_path / "disk", scratch_dir=folder)
    for expected, found in zip(in_memory, on_disk, strict=True):
        for of_memory, of_disk in zip(expected[:2], found[:2], strict=True):
            assert of_memory.keys() == of_disk.keys()
            assert all(
                torch.equal(of_disk[name].nan_to_num(-1), part.nan_to_num(-1)) for name, part in of_memory.items()
            )
        assert torch.equal(expected[2], found[2])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(loader().dataset)


def test_a_stream_has_no_use_for_it(folder):
    with pytest.raises(ValueError, match=r"scratch_dir=.* is for state of samples that have an index.*Leave it out"):
        fit(SelectiveBackprop(scratch_dir=folder), train=DataLoader(Stream(), 10))


def test_state_stays_where_the_disk_is_whatever_the_device(folder):
    selector = make(folder)
    run = selector.run_state
    run.open(selector, N, 1, 0)
    run.to(torch.device("meta"))
    run.store.add_column("another", 1.0, torch.float32)
    assert {run.store[name].device.type for name in run.state_dict([])["columns"]} == {"cpu"}
    assert run.bad_losses.count() == 0


def test_on_a_gpu_methods_within_batches_and_nccl_are_refused(monkeypatch):
    device = torch.device("cuda")
    with pytest.raises(ValueError, match="chooses within each batch, by state that must be on the module's device"):
        check_scratch(SelectiveBackprop(scratch_dir="."), device)
    check_scratch(make("."), device)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    with pytest.raises(ValueError, match=r"nccl cannot do.*process_group_backend='cpu:gloo,cuda:nccl'"):
        check_scratch(make("."), device)
    check_scratch(make(), device)
