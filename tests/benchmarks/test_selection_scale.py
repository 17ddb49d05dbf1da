"""Choosing an epoch of ten million samples stays within its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the benchmarks of the repository")
# what was measured and some four bytes more: what a process has besides differs from run to run
@pytest.mark.parametrize(
    ("method", "most"), [("InfoBatch", 36), ("ESWP", 37), ("KAKURENBO", 39), ("SeTa", 32), ("EpsilonGreedy", 30)]
)
def test_choosing_takes_no_more_bytes_a_sample_than_it_did(method, most):
    command = [sys.executable, "-m", "benchmarks.selection_scale", "--single", method, str(10**7)]
    measured = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert 0 < measured["kept"] < 10**7
    assert 4 < measured["bytes_per_sample"] <= most, "the order alone has eight bytes for each sample that is kept"
