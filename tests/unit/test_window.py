"""Windows are stretches of consecutive rows, however the rows were cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.types import Rows, State
from dxad.window import WindowBuffer


def rows_from(first: int, values: np.ndarray) -> Rows:
    return Rows(first, 100, values, np.full(values.shape, State.GOOD, dtype=np.uint8))


@given(
    rows=st.integers(1, 7),
    hop=st.integers(1, 9),
    channels=st.integers(1, 3),
    first=st.integers(0, 10**9),
    cuts=st.lists(st.integers(0, 12), max_size=10),
    seed=st.integers(0, 2**32),
)
def test_a_window_ends_every_hop_rows_and_holds_the_rows_before(*, rows, hop, channels, first, cuts, seed):
    rng = np.random.default_rng(seed)
    total = sum(cuts)
    values = rng.normal(size=(total, channels))
    values[rng.random(values.shape) < 0.2] = np.nan
    buffer = WindowBuffer(rows=rows, channels=channels, hop=hop)
    last, windows, bad, at = [], [], [], 0
    for n in cuts:
        found = buffer.push(rows_from(first + at, values[at : at + n]))
        at += n
        last += found.last.tolist()
        windows += list(found.values.copy())
        bad += found.bad.tolist()
        assert found.values.dtype == np.float32
        assert found.values.shape[1:] == (rows, channels)
        if found.base is not None:
            assert found.base.flags.c_contiguous
            for place, window in enumerate(found.values):
                begin = place * found.step
                np.testing.assert_array_equal(window, found.base[begin : begin + rows])
    ends = list(range(rows - 1, total, hop))
    assert last == [first + end for end in ends]
    for end, window, share in zip(ends, windows, bad, strict=True):
        expected = values[end - rows + 1 : end + 1].astype(np.float32)
        np.testing.assert_array_equal(window, expected)
        assert share == pytest.approx(np.isnan(expected).mean(), abs=1e-6)


def test_what_single_precision_cannot_hold_stands_at_its_edge():
    values = np.array([[1e300, -1e300, np.nan, 1.5]])
    (window,) = WindowBuffer(rows=1, channels=4).push(rows_from(0, values)).values
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(window, [[largest, -largest, np.nan, 1.5]])


def test_windows_are_views_that_nobody_can_write_into():
    found = WindowBuffer(rows=2, channels=1).push(rows_from(0, np.arange(3.0)[:, None]))
    assert np.shares_memory(found.values[0], found.values[1])
    with pytest.raises(ValueError, match="read-only"):
        found.values[:] = 99.0


def test_more_rows_at_once_than_ever_before_find_room():
    buffer = WindowBuffer(rows=3, channels=1)
    buffer.push(rows_from(0, np.arange(2.0)[:, None]))
    found = buffer.push(rows_from(2, np.arange(2.0, 2000.0)[:, None]))
    assert found.values[0].ravel().tolist() == [0.0, 1.0, 2.0]
    assert found.values[-1].ravel().tolist() == [1997.0, 1998.0, 1999.0]
    assert len(found) == 1998
