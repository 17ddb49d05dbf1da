import errno
import io
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_dataselect.numerics.placement import IN_MEMORY, OnDisk, check_folder, placement, placement_in
from lightning_dataselect.numerics.sampling import top_k, uniform_subset, weighted_subset
from lightning_dataselect.numerics.shuffle import random_order
from lightning_dataselect.utils.errors import DataSelectError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at the mappings of a process as Linux shows them")


def n_mapped(folder):
    """How many files of the folder this process has mapped."""
    return sum(f" {folder}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


@on_linux
def test_values_lie_in_a_file_without_a_name_that_goes_with_the_tensor(tmp_path):
    column = OnDisk(tmp_path).full((1000, 2), 0.5, torch.float32)
    part = column[10:20]
    assert n_mapped(tmp_path) == 1 and not list(tmp_path.iterdir())
    del column
    assert n_mapped(tmp_path) == 1 and (part == 0.5).all()
    del part
    assert n_mapped(tmp_path) == 0


def test_what_is_made_on_disk_is_what_is_made_in_memory(tmp_path):
    on_disk = OnDisk(tmp_path)
    for dtype in (torch.bool, torch.float16, torch.float32, torch.int32, torch.int64):
        for shape in ((0,), (1,), (7,), (7, 3)):
            found = on_disk.full(shape, 1, dtype)
            assert torch.equal(found, IN_MEMORY.full(shape, 1, dtype)) and found.dtype == dtype
            assert torch.equal(on_disk.copy(found), found)
    assert torch.equal(on_disk.arange(9), IN_MEMORY.arange(9))
    assert not on_disk.empty((9,), torch.int64).any()


def test_what_is_saved_is_the_tensor_alone(tmp_path):
    file = io.BytesIO()
    torch.save(OnDisk(tmp_path).arange(5), file)
    file.seek(0)
    assert torch.load(file, weights_only=True).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "choose",
    [
        lambda generator: random_order(3_000_000, generator),
        lambda generator: random_order(5_000_000, generator),
        lambda generator: uniform_subset(3_000_000, 1_000_000, generator),
        lambda generator: top_k(torch.rand(3_000_000, generator=generator), 1_000_000, generator),
        lambda generator: weighted_subset(torch.rand(3_000_000, generator=generator), 1_000_000, generator),
    ],
    ids=["order", "order of many", "uniform", "top", "weighted"],
)
def test_choices_on_disk_are_those_in_memory(choose, tmp_path):
    in_memory = choose(torch.Generator().manual_seed(0))
    with OnDisk(tmp_path).active():
        on_disk = choose(torch.Generator().manual_seed(0))
    assert torch.equal(in_memory, on_disk)
    if sys.platform == "linux":
        assert n_mapped(tmp_path) == 1


def test_the_placement_is_as_before_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), OnDisk(tmp_path).active():
        assert placement() == OnDisk(tmp_path)
        _ = 1 / 0
    assert placement() is IN_MEMORY


def test_no_folder_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"scratch_dir='.*missing' is no folder: make it"):
        placement_in(tmp_path / "missing")
    with pytest.raises(TypeError, match="scratch_dir=3 is no path"):
        check_folder(3)
    assert placement_in(None) is IN_MEMORY


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(DataSelectError, match=r"scratch_dir='.*' cannot take a file of .* \(Permission denied\)"):
        placement_in(tmp_path)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is set aside by writing")
def test_a_disk_without_room_is_said_before_a_page_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"cannot take a file of .* \(.*\): give a folder on a local disk"):
        OnDisk(tmp_path).empty((2**50,), torch.float32)
    assert not list(tmp_path.iterdir())


def test_room_is_set_aside_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    large = OnDisk(tmp_path).full((3_000_001,), 2, torch.uint8)
    assert large.sum(dtype=torch.int64) == 6_000_002


def test_room_is_asked_for_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000_000))
    OnDisk(tmp_path).check_room(2_000_000_000, "choosing")
    with pytest.raises(ValueError, match="has 2 GB free, and choosing takes 3 GB: give a folder on a disk with more"):
        OnDisk(tmp_path).check_room(3_000_000_000, "choosing")
