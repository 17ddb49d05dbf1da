"""Choosing an epoch of ten million samples stays within its memory."""

import pytest

from benchmarks.selection_scale import METHODS, measure_in_own_process, measure_merge, measure_seconds


@pytest.mark.slow
# What was counted, rounded up, and one byte more for another release of torch.
@pytest.mark.parametrize(
    ("method", "most"),
    [
        *(("InfoBatch", 18), ("ESWP", 19), ("KAKURENBO", 17), ("SeTa", 15), ("EpsilonGreedy", 13)),
        *(("Frontier", 11), ("RCAP", 13), ("CCS", 17), ("DUAL", 21), ("Forgetting", 13)),
    ],
)
def test_choosing_an_epoch_allocates_no_more_bytes_a_sample_than_it_did(method, most):
    n = 10**7
    measured = measure_in_own_process("memory", method, n)
    assert 4 < measured["bytes_per_sample"] <= most, "the order alone has eight bytes for each sample that is kept"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_is_timed(method):
    measured = measure_seconds(method, 1000)
    assert 0 < measured["select_seconds"] <= measured["seconds"] and 0 < measured["kept"] < 1000


@pytest.mark.slow
def test_ranks_are_timed_while_they_merge():
    measured = measure_merge(ranks=2, n=1000)  # asserts in each rank that the merge is right
    assert len(measured["every_merge"]) == 3 and measured["seconds"] == min(measured["every_merge"]) > 0
