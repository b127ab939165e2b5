"""A moving sum is the sum of its own rows, whatever stands around them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.signal.moving import moving_sum

SEEDS = st.integers(0, 2**32)


@given(
    width=st.integers(1, 70), more=st.integers(0, 80), columns=st.integers(1, 4), seed=st.integers(0, 2**32)
)
def test_it_is_the_sum_of_each_stretch(width, more, columns, seed):
    rows = np.random.default_rng(seed).normal(size=(width - 1 + more, columns))
    found = moving_sum(rows, width)
    assert found.shape == (more, columns)
    for place in range(more):
        np.testing.assert_allclose(
            found[place], rows[place : place + width].sum(axis=0), rtol=1e-9, atol=1e-9
        )


@given(width=st.integers(1, 40), begin=st.integers(0, 30), seed=SEEDS)
def test_no_bit_of_it_depends_on_the_rows_around(width, begin, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=width + 60) * 10.0 ** rng.integers(-6, 7, size=width + 60)
    alone = moving_sum(rows[begin : begin + width], width)
    assert alone[0] == moving_sum(rows, width)[begin]


def test_a_number_too_large_to_add_to_does_not_stay():
    rows = np.array([1e300, 1.0, 1.0, 1.0])
    assert moving_sum(rows, 2).tolist() == [1e300, 2.0, 2.0]


@pytest.mark.parametrize("width", [1, 2, 3, 30, 64])
def test_whole_numbers_stay_whole(width):
    found = moving_sum(np.arange(100), width)
    assert found.dtype == np.int64
    assert found[0] == sum(range(width))
