"""Choosing an epoch of ten million samples stays within its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the benchmarks of the repository")
@pytest.mark.parametrize("method", ["InfoBatch", "ESWP", "KAKURENBO", "SeTa", "EpsilonGreedy"])
def test_no_more_than_40_bytes_a_sample(method):
    command = [sys.executable, "-m", "benchmarks.selection_scale", "--single", method, str(10**7)]
    measured = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert 0 < measured["kept"] < 10**7
    assert 4 < measured["bytes_per_sample"] <= 40, "the order alone has eight bytes for each sample that is kept"
