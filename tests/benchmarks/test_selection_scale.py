"""Choosing an epoch of very many samples stays within its memory."""

import pytest

from benchmarks.selection_scale import METHODS, measure_in_own_process, measure_merge, measure_seconds

MOST = 24  # bytes a sample beyond the state; the order alone has eight for each that is kept


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_choosing_an_epoch_of_a_million_samples_stays_within_its_memory(method):
    assert 4 < measure_in_own_process("memory", method, 10**6)["bytes_per_sample"] <= MOST


@pytest.mark.slow
# What was counted, rounded up, and one byte more for another release of torch.
@pytest.mark.parametrize(
    ("method", "most"),
    [
        *(("InfoBatch", 21), ("ESWP", 18), ("KAKURENBO", 15), ("SeTa", 15), ("EpsilonGreedy", 13)),
        *(("Frontier", 11), ("RCAP", 14), ("CCS", 17), ("DUAL", 14), ("Forgetting", 14)),
    ],
)
def test_choosing_an_epoch_allocates_no_more_bytes_a_sample_than_it_did(method, most):
    assert 4 < measure_in_own_process("memory", method, 10**7)["bytes_per_sample"] <= most


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_is_timed(method):
    measured = measure_seconds(method, 1000)
    assert 0 < measured["select_seconds"] <= measured["seconds"] and 0 < measured["kept"] < 1000


@pytest.mark.slow
def test_ranks_are_timed_while_they_merge():
    measured = measure_merge(ranks=2, n=1000)  # asserts in each rank that the merge is right
    assert len(measured["every_merge"]) == 3 and measured["seconds"] == min(measured["every_merge"]) > 0
