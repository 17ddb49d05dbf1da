import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_dataselect.numerics.sizes import keep_count


@given(n=st.integers(1, 10**9), percent=st.integers(0, 100))
def test_keep_count_rounds_half_up_in_decimal(n, percent):
    exact = ((100 - percent) * n * 2 + 100) // 200
    assert keep_count(n, percent / 100) == min(n, max(exact, 1))


def test_keep_count_edges():
    assert keep_count(0, 0.5) == 0
    assert keep_count(5, 0.9) == 1  # 0.5 up; in binary (1 - 0.9) * 5 is below one half
    assert keep_count(15, 0.9) == 2
    assert keep_count(10, np.float64(0.3)) == 7
    with pytest.raises(ValueError, match=r"-0\.1"):
        keep_count(5, -0.1)
    with pytest.raises(ValueError, match="nan"):
        keep_count(5, float("nan"))
    with pytest.raises(ValueError, match="-3"):
        keep_count(-3, 0.1)
