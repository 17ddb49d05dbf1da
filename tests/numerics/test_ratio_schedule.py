"""The ratio that changes from epoch to epoch: its course against NumPy, and what cannot be one."""

import math

import numpy as np
import pytest

from lightning_dataselect import InfoBatch, RandomPruning, RatioSchedule
from lightning_dataselect.numerics.ratio_schedule import read_prune_ratio


@pytest.mark.parametrize(("start", "end"), [(0.2, 0.8), (0.9, 0.0), (0.3, 0.3)])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_course_of_each_shape(start, end, n):
    t = np.linspace(0, 1, n)
    expected = {
        "linear": np.interp(t, [0, 1], [start, end]),
        "cosine": end + (start - end) * 0.5 * (1 + np.cos(np.pi * t)),
        "exponential": 1 - np.exp(np.interp(t, [0, 1], np.log([1 - start, 1 - end]))),
    }
    for shape, ratios in expected.items():
        schedule = RatioSchedule(start=start, end=end, shape=shape)
        found = [schedule.ratio(epoch, n) for epoch in range(n)]
        np.testing.assert_allclose(found, ratios, atol=1e-9)
        assert found[0] == start and found[-1] == schedule.ratio(n + 7, n) == end
        fine = RatioSchedule(start=start, end=end, shape=shape).average()
        assert math.isclose(fine, np.mean([schedule.ratio(e, 2000) for e in range(2000)]), abs_tol=1e-3)


def test_a_length_of_its_own_and_one_of_a_single_epoch():
    schedule = RatioSchedule(start=0.2, end=0.8, n_epochs=3)
    assert [schedule.ratio(epoch, 100) for epoch in range(5)] == [0.2, 0.5, 0.8, 0.8, 0.8]
    assert [schedule.ratio(epoch, None) for epoch in range(3)] == [0.2, 0.5, 0.8]
    assert [RatioSchedule(start=0.2, end=0.8).ratio(epoch, 1) for epoch in range(2)] == [0.2, 0.8]


def of_epoch(epoch):
    return 0.1 * epoch


not_callable = 3


@pytest.mark.parametrize(
    "given",
    [
        "cosine(start=0.2, end=0.7)",
        {"start": 0.2, "end": 0.7, "shape": "cosine"},
        RatioSchedule(start=0.2, end=0.7, shape="cosine"),
    ],
)
def test_ways_to_write_a_schedule(given):
    assert InfoBatch(prune_ratio=given).ratio_schedule == RatioSchedule(start=0.2, end=0.7, shape="cosine")


def test_a_function_or_its_import_path():
    assert RandomPruning(prune_ratio=of_epoch, warmup_epochs=2).prune_ratio == 0.2
    assert read_prune_ratio("math.sqrt") is math.sqrt
    assert RandomPruning(prune_ratio=0.3).ratio_schedule is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("liner(start=0.2, end=0.7)", "is neither a number nor a schedule. Did you mean linear"),
        ("linear", "lacks start and end: give both ends"),
        ("linear(start=0.2)", "lacks end: give both ends"),
        ("linear(0.2, 0.7)", "is neither a number nor a schedule"),
        ("linear(start=0.2, end=1)", "end=1 is outside \\[0, 1\\)"),
        ("linear(start=0.2, end=0.7, epochs=3)", "takes no argument 'epochs'. Did you mean n_epochs"),
        ({"start": 0.2, "end": 0.7, "shape": "square"}, "shape='square' is unknown: give one of 'linear'"),
        ({"start": 0.2, "end": 0.7, "n_epochs": 0}, "n_epochs=0 is too small"),
        ("no_such_module.ratio", "cannot be imported"),
        (f"{__name__}.not_callable", "is 3, which cannot be called"),
        (lambda: 0.3, "takes \\(\\), but is called with one argument: the 0-based epoch"),
        (lambda epoch: 1.5, "prune_ratio\\(0\\)=1.5 is outside"),
        (lambda epoch: "a lot", "prune_ratio\\(0\\)='a lot' is not a number"),
        (None, "prune_ratio=None is not a number"),
        ([0.1, 0.5], "as in lambda epoch: ratios\\[epoch\\] for a ratio of each epoch"),
    ],
)
def test_what_is_no_ratio_is_told_at_once(given, said):
    with pytest.raises((ValueError, TypeError), match=said):
        RandomPruning(prune_ratio=given)
