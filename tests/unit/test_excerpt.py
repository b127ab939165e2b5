"""Rows by cursor: bounded, in order, and honest about what was overwritten."""

import numpy as np
import orjson
import pytest

from dxad.excerpt import BYTES_MOST, excerpt
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock
from dxad.types import Channel, State

PERIOD = 100_000_000


def ring(channels: int = 2, slots: int = 50, rows: int = 0, start: int = 1000) -> RingBuffer:
    made = RingBuffer(
        [Channel(f"s.c{n}", "mm") for n in range(channels)], period=PERIOD, slots=slots, start=start
    )
    for row in range(rows):
        values = np.full((1, channels), float(row))
        made.append(start + row, values, np.full((1, channels), State.GOOD, dtype=np.uint8))
    return made


def ask(found: RingBuffer, start: int | None = None, limit: int = 10_000):
    raw = excerpt(found, start=start, limit=limit, clock=SteppedClock(utc_offset=7), boot="b")
    encoded = orjson.dumps(raw, option=orjson.OPT_SERIALIZE_NUMPY)
    assert len(encoded) <= BYTES_MOST
    return orjson.loads(encoded)


def test_rows_come_with_their_slots_states_and_times():
    found = ring(rows=3)
    found.append(1004, np.array([[np.nan, 5.0]]), np.array([[State.BAD, State.HELD]], dtype=np.uint8))
    answer = ask(found, 1001)
    assert answer["values"] == [[1.0, 1.0], [2.0, 2.0], [None, None], [None, 5.0]]
    assert answer["states"] == ["11", "11", "00", "42"]
    assert (answer["first"], answer["next"], answer["sealed"], answer["lost"]) == (1001, 1005, 1005, 0)
    assert (answer["utc_ns"], answer["period_ns"], answer["boot"]) == (1001 * PERIOD + 7, PERIOD, "b")
    assert answer["channels"] == [{"id": "s.c0", "unit": "mm"}, {"id": "s.c1", "unit": "mm"}]


def test_going_on_where_the_answer_ended_gives_each_row_once():
    found = ring(rows=30)
    seen, cursor = [], None
    while len(answer := ask(found, cursor, limit=7)) and answer["values"]:
        seen += [row[0] for row in answer["values"]]
        cursor = answer["next"]
    assert seen == list(range(30))


@pytest.mark.parametrize("limit", [5, 10_000])
def test_rows_that_were_overwritten_are_counted_and_the_rest_comes(limit):
    answer = ask(ring(rows=80), 1010, limit)
    assert (answer["lost"], answer["first"]) == (20, 1030)
    assert answer["values"][0] == [30.0, 30.0]
    assert len(answer["values"]) == min(limit, 50)


def test_without_rows_it_says_where_the_ring_stands():
    answer = ask(ring(rows=3), limit=0)
    assert (answer["values"], answer["oldest"], answer["sealed"], answer["next"]) == ([], 1000, 1003, 1000)


def test_a_cursor_ahead_of_the_ring_waits():
    answer = ask(ring(rows=3), 2000)
    assert (answer["values"], answer["lost"], answer["next"]) == ([], 0, 2000)


@pytest.mark.parametrize("channels", [1, 50, 500])
def test_however_wide_and_long_the_ring_the_answer_stays_small(channels):
    found = ring(channels, slots=20_000 // channels + 10, start=0)
    values = np.full((found.slots, channels), -1.2345678901234567e-300)
    found.append(0, values, np.full(values.shape, State.GOOD, dtype=np.uint8))
    assert ask(found)["values"]
