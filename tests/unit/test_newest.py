"""What a row finer than a ring's slots sees of it: the newest sample from before its end, sealed or not."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.frame import Feed, Frame
from dxad.ring.newest import Newest
from dxad.ring.ringbuffer import RingBuffer
from dxad.ring.sealer import Sealer
from dxad.types import SAMPLE, Channel, Quality, Reason, State

ROW = 10
"""The frame's period."""
SLOT = 100
"""The slow ring's."""
HOLD = 300


@dataclass(frozen=True)
class Sample:
    time: int
    column: int
    value: float
    quality: Quality = Quality.GOOD


def samples_of(taken: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    made = np.zeros(len(taken), dtype=SAMPLE)
    for place, each in enumerate(taken):
        made[place] = (place, 0, each.time, each.value, each.column, each.quality, Reason.NONE)
    return made, np.array([each.time for each in taken], dtype=np.int64)


def expected(taken: list[Sample], column: int, end: int) -> tuple[float, State]:
    """One cell, from all samples that there were."""
    mine = [each for each in taken if each.column == column and each.time < end]
    if not mine:
        return np.nan, State.EMPTY
    newest = mine[-1]
    if ((end - 1) // SLOT - newest.time // SLOT) * SLOT > HOLD:
        return np.nan, State.EMPTY
    if newest.quality is Quality.BAD:
        return np.nan, State.BAD
    return newest.value, State.HELD if newest.quality is Quality.GOOD else State.UNCERTAIN


class Plant:
    """A fast ring that paces the rows, and a slow one of two channels."""

    def __init__(self) -> None:
        self.fast = RingBuffer([Channel("f.a")], period=ROW, slots=1000, start=0)
        self.slow = RingBuffer([Channel("s.a"), Channel("s.b")], period=SLOT, slots=100, start=0)
        self.sealer = Sealer(self.slow, folds=["last", "last"], holds_ns=[HOLD, HOLD])
        self.frame = Frame([Feed(self.fast, (0,)), Feed(self.slow, (0, 1))], period=ROW)

    def advance(self, now: int, taken: list[Sample]) -> None:
        if taken:
            self.sealer.accept(*samples_of(taken))
        self.sealer.seal(now - SLOT)
        rows = now // ROW - self.fast.sealed
        if rows > 0:
            self.fast.append(self.fast.sealed, np.zeros((rows, 1)), np.ones((rows, 1), dtype=np.uint8))


taken = st.lists(
    st.builds(
        Sample,
        time=st.integers(0, 999),
        column=st.integers(0, 1),
        value=st.floats(-10, 10),
        quality=st.sampled_from([Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN, Quality.BAD]),
    ),
    max_size=15,
).map(lambda found: sorted(found, key=lambda each: each.time))


@settings(max_examples=60)
@given(taken=taken, pauses=st.lists(st.integers(1, 150), min_size=1, max_size=30))
def test_a_row_has_the_newest_sample_from_before_its_end_however_ticks_are_cut(taken, pauses):
    plant, now = Plant(), 0
    for pause in [*pauses, 1000]:
        before, now = now, min(1000, now + pause)
        plant.advance(now, [each for each in taken if before <= each.time < now])
        while (rows := plant.frame.read(7)) is not None:
            for place in range(len(rows)):
                for column in (0, 1):
                    value, state = expected(taken, column, (rows.first + place + 1) * ROW)
                    np.testing.assert_array_equal(rows.values[place, 1 + column], value)
                    assert rows.states[place, 1 + column] == state
    assert plant.frame.next == 100


def test_a_pipeline_that_lags_behind_what_is_kept_sees_the_slots_that_had_ended():
    plant = Plant()
    taken = [Sample(time, 0, float(time)) for time in range(0, 4000, SLOT)]
    for each in taken:
        plant.advance(each.time + 1, [each])
    plant.advance(4000, [])
    rows = plant.frame.read(1000)
    kept = taken[-Newest.DEPTH :]
    for place in range(len(rows)):
        end = (rows.first + place + 1) * ROW
        if end > kept[0].time:
            value = expected(taken, 0, end)[0]
        else:
            value = (end // SLOT - 1) * SLOT if end >= SLOT else np.nan
        np.testing.assert_array_equal(rows.values[place, 1], value)


def test_of_a_channel_that_counts_its_samples_a_row_has_the_count_of_the_last_whole_slot():
    fast = RingBuffer([Channel("f.a")], period=ROW, slots=1000, start=0)
    slow = RingBuffer([Channel("s.a", fold="count")], period=SLOT, slots=100, start=0)
    sealer = Sealer(slow, folds=["count"], holds_ns=[HOLD])
    frame = Frame([Feed(fast, (0,)), Feed(slow, (0,))], period=ROW)
    sealer.accept(*samples_of([Sample(time, 0, 7.0) for time in (5, 15, 120)]))
    sealer.seal(300)
    fast.append(0, np.zeros((30, 1)), np.ones((30, 1), dtype=np.uint8))
    np.testing.assert_array_equal(frame.read(30).values[:, 1], [np.nan] * 9 + [2.0] * 10 + [1.0] * 10 + [0.0])


def test_what_a_session_held_ends_with_it_and_the_next_does_not_bring_it_back():
    ring = RingBuffer([Channel("s.a")], period=SLOT, slots=10, start=0)
    sealer = Sealer(ring, folds=["last"], holds_ns=[-1])
    newest = ring.keep_newest()
    sealer.accept(*samples_of([Sample(10, 0, 7.0)]))
    sealer.seal(100, valid_until=250)
    ends = np.array([15, 150, 350])
    assert newest.look(slice(None)).at(ends)[1][:, 0].tolist() == [State.HELD, State.HELD, State.EMPTY]
    sealer.seal(500, valid_until=250)
    sealer.seal(600, valid_until=900)
    assert newest.look(slice(None)).at(np.array([650]))[1][0, 0] == State.EMPTY
    sealer.accept(*samples_of([Sample(610, 0, 8.0)]))
    assert newest.look([0]).at(np.array([650]))[0].tolist() == [[8.0]]


def test_a_sample_older_than_the_newest_changes_nothing():
    newest = Newest([HOLD], period=SLOT)
    newest.add(*samples_of([Sample(50, 0, 1.0)]))
    newest.add(*samples_of([Sample(40, 0, 2.0)]))
    assert newest.look(slice(None)).at(np.array([60]))[0].tolist() == [[1.0]]
    assert not newest.look(slice(None)).at(np.array([45]))[2].any()


@pytest.mark.parametrize("channels", [1, 7])
def test_its_size_is_known_before_it_is_made(channels):
    made = Newest([0] * channels, period=SLOT)
    arrays = [each for each in vars(made).values() if isinstance(each, np.ndarray)]
    assert Newest.size_bytes(channels) == sum(each.nbytes for each in arrays)
