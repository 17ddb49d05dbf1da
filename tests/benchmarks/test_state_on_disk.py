"""The cost of state on the disk is measured by a small form of the study."""

import sys

import pytest

from benchmarks.scratch import Footprint, measure
from benchmarks.selection_scale import METHODS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at a process as Linux shows it")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_chooses_on_the_disk_as_in_memory(method, tmp_path):
    in_memory, on_disk = (measure(method, 2000, folder) for folder in (None, str(tmp_path)))
    assert in_memory["kept"] == on_disk["kept"] > 0 and in_memory["disk_bytes"] == 0
    # a page at least for the score or the loss, four of the history and one of losses that are not finite
    assert on_disk["disk_bytes"] >= 6 * 8192
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_memory_for_a_choice_is_a_few_bytes_a_sample_and_none_for_the_state(tmp_path):
    n = 10**7
    measured = measure("InfoBatch", n, str(tmp_path))
    assert measured["state_own_bytes"] < 2 * n and measured["own_bytes"] < 7 * n
    assert measured["disk_bytes"] > 30 * n


def test_the_peak_of_memory_is_seen():
    with Footprint(None) as footprint:
        held = bytearray(b"1") * 50_000_000
        assert len(held) == 50_000_000
    assert footprint.own_bytes - footprint.before > 40_000_000
