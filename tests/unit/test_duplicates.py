"""A sample that came before is told by its channel, its stamp and its value."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dxad.ring.duplicates import Duplicates
from dxad.types import SAMPLE


def samples(*readings: tuple[int, int, float]) -> np.ndarray:
    """Of columns, stamps and values."""
    made = np.zeros(len(readings), SAMPLE)
    for place, (column, stamp, value) in enumerate(readings):
        made[["column", "stamp", "value"]][place] = (column, stamp, value)
    return made


def again(found: Duplicates, *readings) -> list[bool]:
    among = found.among(samples(*readings))
    return [False] * len(readings) if among is None else among.tolist()


def watching(columns: int = 2) -> Duplicates:
    return Duplicates(np.ones(columns, dtype=np.bool_))


def test_what_came_before_is_told_in_the_same_block_and_later():
    found = watching()
    assert again(found, (0, 5, 1.0), (1, 5, 1.0), (0, 5, 1.0)) == [False, False, True]
    assert again(found, (1, 5, 1.0), (0, 6, 1.0), (0, 5, 1.0)) == [True, False, True]


def test_a_device_that_stamps_in_whole_seconds_sends_no_duplicates_unless_nothing_differs():
    found = watching()
    assert again(found, (0, 5, 1.0), (0, 5, 1.1), (0, 5, 1.2), (0, 5, 1.1)) == [False, False, False, True]


def test_samples_out_of_order_are_none():
    assert again(watching(), (0, 5, 1.0), (0, 3, 1.0), (0, 4, 1.0)) == [False] * 3


def test_what_has_no_stamp_is_never_a_duplicate():
    assert again(watching(), (0, 0, 1.0), (0, 0, 1.0)) == [False, False]


def test_columns_that_are_not_watched_pass_by():
    found = Duplicates(np.array([True, False]))
    assert again(found, (0, 5, 1.0), (1, 5, 1.0)) == [False, False]
    assert again(found, (0, 5, 1.0), (1, 5, 1.0)) == [True, False]


def test_not_a_number_comes_twice_too():
    found = watching()
    assert again(found, (0, 5, float("nan")), (0, 5, float("nan"))) == [False, True]


def test_it_remembers_so_many_and_takes_no_more_memory():
    found = watching()
    stream = [(0, stamp, 0.5) for stamp in range(1, 10 * Duplicates.DEPTH)]
    assert not any(again(found, *stream))
    assert again(found, *stream[-Duplicates.DEPTH :]) == [True] * Duplicates.DEPTH
    assert again(found, stream[0]) == [False]
    assert sum(each.nbytes for each in vars(found).values()) <= Duplicates.size_bytes(2) + 2


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9), st.sampled_from([0.0, 1.0])), max_size=60),
    st.lists(st.integers(1, 9), max_size=8),
)
def test_how_samples_are_cut_into_blocks_does_not_matter(readings, cuts):
    seen: set = set()
    expected = []
    for each in readings:
        expected.append(each in seen)
        seen.add(each)
    found, parts, begin = watching(), [], 0
    for cut in [*cuts, len(readings)]:
        parts += again(found, *readings[begin : begin + cut])
        begin += cut
    assert parts == expected
