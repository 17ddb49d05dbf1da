"""The check on a GPU, as far as a machine without one can tell."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu_check
from benchmarks.image_data import READERS
from benchmarks.images import parts


def test_without_a_gpu_one_sentence_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--out", str(tmp_path / "found.json")]) == 2
    said = capsys.readouterr()
    assert said.err == "benchmarks.gpu_check needs a CUDA GPU, and torch finds none on this machine.\n"
    assert not said.out and not (tmp_path / "found.json").exists()


def test_comparison_takes_cifar10_where_there_is_a_folder_and_made_up_images_where_not(tmp_path):
    made_up, _ = gpu_check.sections(tmp_path, None)["comparison"]
    cifar10, _ = gpu_check.sections(tmp_path, tmp_path)["comparison"]
    assert "made_up_short" in made_up and "--data-dir" not in made_up
    assert "cifar10_short" in cifar10 and cifar10[-2:] == ["--data-dir", str(tmp_path)]
    (part,) = parts(Namespace(quick=False, only=["made_up_short"], data_dir=None))
    assert part.config["data"]["init_args"]["name"] == "made_up" and part.seeds == 1


def test_made_up_images_can_be_learnt_and_are_of_cifar10s_shape():
    arrays = READERS["made_up"](Path("."), 600, 200)
    assert arrays["x_train"].shape == (600, 32, 32, 3) and arrays["x_train"].dtype == np.uint8
    means = np.stack([arrays["x_train"][arrays["y_train"] == c].mean(0) for c in range(10)])
    nearest = np.abs(arrays["x_test"][:, None] - means).mean((2, 3, 4)).argmin(1)
    assert (nearest == arrays["y_test"]).mean() > 0.9


def test_sections_fit_into_twelve_minutes():
    assert sum(gpu_check.LIMITS.values()) <= 700


def test_section_that_takes_too_long_is_stopped_with_its_children(tmp_path):
    # The child opens the pipe before the limit or never: either way nobody holds it open afterwards.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    child = f"import subprocess; subprocess.run('sleep 600 > {pipe}', shell=True)"
    found = gpu_check.run_section([sys.executable, "-c", child], limit=2)
    assert found["exit_code"] is None and found["seconds"] < 300
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b"", "the end of the pipe: no child is left"
    os.close(reader)
    assert gpu_check.run_section([sys.executable, "-c", "raise SystemExit(3)"], limit=60)["exit_code"] == 3


def test_tests_that_failed_are_named(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={tmp_path / 'report.xml'}"]
    subprocess.run([*command, str(tmp_path)], cwd=tmp_path, check=False, capture_output=True)
    found = gpu_check.read_tests(tmp_path / "report.xml")
    assert found == {"passed": 1, "failed": ["test_some::test_b"], "skipped": ["test_some::test_c"]}
    assert gpu_check.read_tests(tmp_path / "nothing.xml") == {"passed": 0, "failed": [], "skipped": []}


@pytest.fixture
def every_section(monkeypatch, tmp_path):
    """A GPU that is not there, and commands that write what those of a real check would."""

    def sections(folder, data_dir):
        (folder / "rows.json").write_text("{}")
        return {name: ([sys.executable, "-c", f"raise SystemExit({code})"], lambda: {"read": True})
                for name, code in (("tests", 0), ("overhead", 0), ("comparison", 1))}  # fmt: skip

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setattr(gpu_check, "sections", sections)
    return tmp_path / "found.json"


def test_one_json_holds_every_section(every_section):
    assert gpu_check.main(["--out", str(every_section)]) == 1, "the comparison failed"
    found = json.loads(every_section.read_text())
    assert [found[name]["exit_code"] for name in gpu_check.LIMITS] == [0, 0, 1]
    assert all(found[name]["read"] for name in gpu_check.LIMITS) and found["environment"]["gpu"] == "none"
