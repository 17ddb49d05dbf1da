"""Numbers show as many digits as their spread allows."""

import math

import pytest

from lightning_dataselect.comparison.plans.numbers import Spread, shown


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (-0.0123, 0.0031, "-0.0123 ± 0.0031"),  # two digits from 10 to 35
        (-0.0123, 0.0038, "-0.012 ± 0.004"),  # one from 36 on
        (0.00004, 0.004, "0.000 ± 0.004"),
        (-0.0004, 0.04, "0.00 ± 0.04"),  # no minus before nothing
        (94.283, 0.0952, "94.28 ± 0.10"),
        (12345.6, 789.0, "12,346 ± 789"),
        (16553505.0, 120000.0, "(1.655 ± 0.012)e7"),
        (0.00001234, 0.000001, "(1.23 ± 0.10)e-5"),
        (0.95, math.nan, "0.95"),
        (16553505.0, math.nan, "1.655e7"),
        (0.0, math.nan, "0"),
        (1234.5678, math.nan, "1,235"),
        (0.5, 0.0, "0.5 ± 0"),
        (-543.21, 1e-12, "-543.2 ± 0"),  # which rounding alone makes
        (-3.999999, 4.2e-6, "-4 ± 0"),  # a difference of accuracies in single precision
        (math.inf, math.nan, "inf"),
    ],
)
def test_digits_follow_the_spread(mean, std, text):
    assert shown(Spread(mean, std, 1 if math.isnan(std) else 3)) == text


def test_differences_carry_their_sign():
    assert shown(Spread(0.5, 0.2, 3), signed=True) == "+0.50 ± 0.20"
    assert shown(Spread(-0.5, 0.2, 3), signed=True) == "-0.50 ± 0.20"
    assert shown(Spread(0.001, 0.2, 3), signed=True) == "0.00 ± 0.20"
    assert shown(Spread(2e7, 1e6, 3), signed=True) == "(+2.00 ± 0.10)e7"
    assert shown(None, signed=True) == "-"
