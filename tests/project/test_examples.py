"""Every example runs, and says what it is meant to show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables import ROOT

EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.docs


def run(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_there_are_no_other_examples():
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__") == [
        "fabric.py",
        "hugging_face.py",
        "lightning_cli",
        "train.py",
    ]


def test_train(tmp_path):
    assert "without the callback it would have been 14,000" in run(str(EXAMPLES / "train.py"), cwd=tmp_path)


def test_lightning_cli(tmp_path):
    for name in ("train.py", "project.py", "exp.yaml"):
        (tmp_path / name).write_text((EXAMPLES / "lightning_cli" / name).read_text())
    run("train.py", "fit", "--config", "exp.yaml", "--trainer.max_epochs=3", cwd=tmp_path)


def test_hugging_face(tmp_path):
    assert "kept by epoch: [512, " in run(str(EXAMPLES / "hugging_face.py"), cwd=tmp_path)


def test_fabric(tmp_path):
    out = run(str(EXAMPLES / "fabric.py"), cwd=tmp_path)
    trained = [int(line.split()[4]) for line in out.splitlines() if line.startswith("epoch ")]
    assert trained[0] == 1797 and all(n < 1797 for n in trained[1:])
