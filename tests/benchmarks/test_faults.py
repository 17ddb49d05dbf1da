"""Faults that are come through, in their short form; ``python -m benchmarks.faults`` has more of them."""

import pytest

from benchmarks.faults.__main__ import main


@pytest.mark.filterwarnings("ignore")
def test_files(capfd):
    assert main(["--only", "files"]) == 0
    assert "8 of 8 faults come through" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", ["kills", "workers", "ranks"])
def test_processes(part):
    assert main(["--only", part, "--kills", "12"]) == 0
