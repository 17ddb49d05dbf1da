"""Every example runs, and says what it is meant to show."""

import runpy
import sys

import pytest

from benchmarks.tables import ROOT

EXAMPLES = ROOT / "examples"
pytestmark = [pytest.mark.docs, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder; what an example writes is no part of the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def run(name: str) -> None:
    # in this process, which has imported torch and Lightning already
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_there_are_no_other_examples():
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__") == [
        "fabric.py",
        "hugging_face.py",
        "lightning_cli",
        "train.py",
    ]


def test_train(capsys):
    run("train.py")
    assert "without the callback it would have been 14,000" in capsys.readouterr().out


def test_lightning_cli(monkeypatch):
    project = EXAMPLES / "lightning_cli"
    monkeypatch.syspath_prepend(str(project))
    config = ["--config", str(project / "exp.yaml")]
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", *config, "--trainer.max_epochs=3"])
    run("lightning_cli/train.py")


def test_hugging_face(capsys):
    run("hugging_face.py")
    assert "kept by epoch: [512, " in capsys.readouterr().out


def test_fabric(capsys):
    run("fabric.py")
    out = capsys.readouterr().out
    trained = [int(line.split()[4]) for line in out.splitlines() if line.startswith("epoch ")]
    assert trained[0] == 1797 and all(n < 1797 for n in trained[1:])
