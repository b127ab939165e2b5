"""A ring gives back what it was given, or says what it lost; compared with a dict that forgets nothing."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dxad.ring.ringbuffer import RingBuffer
from dxad.types import Channel, Reason, State

CHANNELS = (Channel("s.a"), Channel("s.b"))


def rows_of(first: int, n: int) -> np.ndarray:
    """Rows that tell their own slot: (slot, -slot)."""
    slots = np.arange(first, first + n, dtype=np.float64)
    return np.column_stack((slots, -slots))


def append(ring: RingBuffer, first: int, n: int) -> None:
    ring.append(first, rows_of(first, n), np.full((n, 2), State.GOOD, dtype=np.uint8))


@dataclass(frozen=True)
class Append:
    gap: int
    rows: int


@dataclass(frozen=True)
class Read:
    back: int
    """How far before the newest sealed slot."""
    rows: int


steps = st.lists(
    st.one_of(
        st.builds(Append, st.integers(0, 25), st.integers(0, 12)),
        st.builds(Read, st.integers(-5, 40), st.integers(0, 40)),
    ),
    max_size=30,
)


@given(slots=st.integers(1, 12), start=st.integers(0, 100), script=steps)
def test_a_read_gives_what_was_appended_and_counts_what_was_overwritten(slots, start, script):
    ring = RingBuffer(CHANNELS, period=10, slots=slots, start=start)
    written: dict[int, float] = {}
    for step in script:
        if isinstance(step, Append):
            first, n = ring.sealed + step.gap, step.rows
            append(ring, first, n)
            written |= {slot: float(slot) for slot in range(first, first + n)}
            assert ring.sealed == first + n
            assert ring.oldest == max(start, ring.sealed - slots)
        else:
            asked = ring.sealed - step.back
            reading = ring.read(asked, asked + step.rows)
            held = [slot for slot in range(asked, asked + step.rows) if ring.oldest <= slot < ring.sealed]
            gone = [slot for slot in range(asked, asked + step.rows) if slot < min(ring.oldest, ring.sealed)]
            assert reading.lost == len(gone)
            assert list(range(reading.first, reading.first + len(reading.values))) == held
            for row, slot in enumerate(held):
                expected = written.get(slot, np.nan)
                np.testing.assert_array_equal(reading.values[row], [expected, -expected])
                assert (reading.states[row] == (State.GOOD if slot in written else State.EMPTY)).all()


def test_slots_that_were_skipped_are_empty_and_without_reason():
    ring = RingBuffer(CHANNELS, period=10, slots=4, start=0)
    bad = np.full((4, 2), State.BAD, dtype=np.uint8)
    ring.append(0, np.full((4, 2), 7.0), bad, np.full((4, 2), Reason.TIMEOUT, dtype=np.uint8))
    append(ring, 6, 1)
    reading = ring.read(3, 7)
    np.testing.assert_array_equal(reading.states[:, 0], [State.BAD, State.EMPTY, State.EMPTY, State.GOOD])
    assert [ring.reasons_at(slot)[0] for slot in range(3, 7)] == [Reason.TIMEOUT, 0, 0, 0]


def test_a_reader_owns_what_it_was_given():
    ring = RingBuffer(CHANNELS, period=10, slots=3, start=0)
    append(ring, 0, 3)
    reading = ring.read(0, 3)
    append(ring, 3, 3)
    np.testing.assert_array_equal(reading.values, rows_of(0, 3))
    reading.values[:] = 99.0
    np.testing.assert_array_equal(ring.read(3, 6).values, rows_of(3, 3))


def test_its_size_is_known_before_it_is_made():
    ring = RingBuffer(CHANNELS, period=10, slots=100, start=0)
    taken = sum(part.nbytes for part in (ring._values, ring._states, ring._reasons))
    assert RingBuffer.size_bytes(len(CHANNELS), 100) == taken


class Interrupted(np.ndarray):
    """An array during whose copying something happens, once."""

    happens: Callable[[], None] | None = None

    def __getitem__(self, key):
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return np.asarray(self)[key]


def test_what_the_writer_overwrites_while_a_reader_copies_is_lost_and_not_torn():
    ring = RingBuffer(CHANNELS, period=10, slots=8, start=0)
    append(ring, 0, 8)
    ring._values = ring._values.view(Interrupted)
    ring._values.happens = lambda: append(ring, 8, 3)
    reading = ring.read(0, 8)
    assert (reading.first, reading.lost) == (3, 3)
    np.testing.assert_array_equal(reading.values, rows_of(3, 5))


def test_a_reader_that_is_lapped_while_it_copies_loses_all_it_asked_for():
    ring = RingBuffer(CHANNELS, period=10, slots=4, start=0)
    append(ring, 0, 4)
    ring._values = ring._values.view(Interrupted)
    ring._values.happens = lambda: [append(ring, first, 4) for first in (4, 8)]
    reading = ring.read(1, 4)
    assert (len(reading.values), reading.lost, reading.first) == (0, 3, 4)


def test_a_reader_in_another_thread_never_sees_a_slot_that_is_not_its_own():
    ring = RingBuffer(CHANNELS, period=10, slots=16, start=0)
    wrong: list[str] = []
    accounted = 0

    def follow() -> None:
        nonlocal accounted
        cursor = 0
        while cursor < 5000:
            reading = ring.read(cursor, ring.sealed)
            if not np.array_equal(reading.values, rows_of(reading.first, len(reading.values))):
                wrong.append(f"torn at {reading.first}")
            accounted += reading.lost + len(reading.values)
            cursor = reading.first + len(reading.values)

    reader = threading.Thread(target=follow)
    reader.start()
    for first in range(0, 5000, 5):
        append(ring, first, 5)
    reader.join()
    assert not wrong
    assert accounted == 5000


def test_a_filling_that_happens_while_a_reader_copies_is_seen_whole():
    ring = RingBuffer(CHANNELS, period=10, slots=4, start=0)
    ring.append(0, np.full((4, 2), np.nan), np.zeros((4, 2), dtype=np.uint8))
    both = np.array([0, 1])
    ring._states = ring._states.view(Interrupted)
    ring._states.happens = lambda: ring.fill(
        np.array([1, 1]), both, np.array([5.0, 6.0]), np.full(2, State.GOOD, dtype=np.uint8)
    )
    reading = ring.read(0, 4)  # the values had been copied when it happened
    assert reading.values[1].tolist() == [5.0, 6.0]
    assert reading.states[1].tolist() == [State.GOOD, State.GOOD]
    assert np.isnan(reading.values[[0, 2, 3]]).all()
    assert ring.revision == 1


def test_only_what_is_empty_or_held_is_filled_and_nothing_counts_as_a_revision_without():
    ring = RingBuffer(CHANNELS, period=10, slots=5, start=0)
    states = np.array([[State(state), State.GOOD] for state in State], dtype=np.uint8)
    ring.append(0, np.where(states == State.EMPTY, np.nan, 1.0), states)
    slots, good = np.arange(5), np.full(5, State.GOOD, dtype=np.uint8)
    filled = ring.fill(slots, np.zeros(5, dtype=np.int64), np.full(5, 9.0), good)
    assert [State(slot) for slot in slots[filled]] == [State.EMPTY, State.HELD]
    assert not ring.fill(slots, np.ones(5, dtype=np.int64), np.full(5, 9.0), good).any()
    assert (ring.revision, ring.sealed) == (1, 5)
    np.testing.assert_array_equal(ring.backfilled(0, 5), np.column_stack((filled, np.zeros(5, dtype=bool))))
    append(ring, 5, 1)
    assert not ring.backfilled(5, 6).any(), "a new slot is not marked by what its place held before"


@given(
    slots=st.integers(1, 12),
    rows=st.integers(0, 30),
    columns=st.sampled_from([slice(None), slice(1, 2), [1, 0], [1]]),
    start=st.integers(0, 30),
    n=st.integers(0, 12),
)
def test_columns_are_those_that_were_asked_for(slots, rows, columns, start, n):
    ring = RingBuffer(CHANNELS, period=10, slots=slots, start=0)
    for slot in range(rows):
        append(ring, slot, 1)
    whole, some = ring.read(start, start + n), ring.read(start, start + n, columns)
    np.testing.assert_array_equal(some.values, whole.values[:, columns])
    np.testing.assert_array_equal(some.states, whole.states[:, columns])
    assert (some.first, some.lost) == (whole.first, whole.lost)
