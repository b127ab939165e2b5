"""Answers of a daemon become rows in the order of time, and what was written is read back."""

import numpy as np
import pytest

from dxad.excerpt import excerpt
from dxad.recording import open_recording
from dxad.recording.tape import Tape, Track, Wall
from dxad.recording.write import open_writer
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock
from dxad.types import Channel, State

FAST, SLOW = 20_000_000, 100_000_000
OFFSET = 1_700_000_000_123_456_789
GOOD, HELD, BAD, EMPTY = State.GOOD, State.HELD, State.BAD, State.EMPTY


class Daemon:
    """Two rings, and how they answer."""

    def __init__(self, *, boot: str = "b1", at: int = 50 * SLOW, slots: int = 1000) -> None:
        self.boot = boot
        self.clock = SteppedClock(utc_offset=OFFSET)
        self.rings = {
            "fast": RingBuffer([Channel("fast.x")], period=FAST, slots=slots, start=at // FAST),
            "slow": RingBuffer(
                [Channel("slow.a"), Channel("slow.b")], period=SLOW, slots=slots, start=at // SLOW
            ),
        }

    def seal(self, name: str, *rows, states=None) -> None:
        ring = self.rings[name]
        values = np.array(rows, dtype=float).reshape(len(rows), len(ring.channels))
        marks = np.where(np.isnan(values), EMPTY, GOOD) if states is None else np.array(states)
        ring.append(ring.sealed, values, marks.reshape(values.shape).astype(np.uint8))

    def ask(self, track: Track, limit: int = 10_000) -> int:
        return track.take(self.answer(track.name, track.cursor, limit))

    def answer(self, name: str, start: int | None, limit: int = 10_000):
        found = excerpt(self.rings[name], start=start, limit=limit, clock=self.clock, boot=self.boot)
        found["values"] = found["values"].tolist()
        return found

    def tape(self) -> Tape:
        wall = Wall()
        return Tape([Track(name, self.answer(name, None, 0), wall) for name in self.rings])


def test_all_tracks_begin_where_a_slot_of_each_begins():
    daemon = Daemon(at=50 * SLOW + 3 * FAST)
    tape = daemon.tape()
    assert [track.cursor * track.period for track in tape.tracks] == [51 * SLOW, 51 * SLOW]
    assert tape.begin_utc == 51 * SLOW + OFFSET


def test_rows_of_all_tracks_stand_side_by_side_at_their_times():
    daemon = Daemon()
    tape = daemon.tape()
    daemon.seal("fast", *range(12))
    daemon.seal("slow", [1, 2], [3, 4])
    for track in tape.tracks:
        daemon.ask(track)
    times, values, _ = tape.ready()
    assert tape.columns == ("fast.x", "slow.a", "slow.b")
    assert (times - tape.begin_utc).tolist() == [n * FAST for n in range(10)]  # the slow one is no further
    assert values[:, 0].tolist() == list(range(10))
    nan = np.nan
    np.testing.assert_array_equal(values[:, 1], [1, nan, nan, nan, nan, 3, nan, nan, nan, nan])
    daemon.seal("slow", [5, 6])
    daemon.ask(tape.tracks[1])
    times, values, _ = tape.ready()
    assert values[:, 0].tolist() == [10, 11]


def test_a_wall_clock_that_reads_a_little_differently_each_time_moves_no_row():
    daemon = Daemon()
    tape = daemon.tape()
    for jitter in (300, -700, 40):
        daemon.clock = SteppedClock(utc_offset=OFFSET + jitter)
        daemon.seal("fast", *range(5))
        daemon.seal("slow", [1, 2])
        for track in tape.tracks:
            daemon.ask(track)
    times, _, _ = tape.ready()
    assert np.diff(times).tolist() == [FAST] * 14


def test_rows_that_were_overwritten_and_rows_of_a_restart_are_counted():
    daemon = Daemon(slots=16)
    tape = daemon.tape()
    for at in (0, 15):
        daemon.seal("fast", *range(at, at + 15))
    daemon.ask(tape.tracks[0])
    assert tape.lost == 14
    again = Daemon(at=50 * SLOW + 40 * FAST)  # the same boot, ten slots later
    again.seal("fast", 1, 2)
    again.ask(tape.tracks[0])
    assert tape.lost == 14 + 10


def test_after_a_reboot_it_goes_on_with_the_new_slots():
    daemon = Daemon()
    tape = daemon.tape()
    daemon.seal("fast", *range(5))
    daemon.ask(tape.tracks[0])
    reboot = Daemon(boot="b2", at=2 * SLOW)
    reboot.clock = SteppedClock(utc_offset=OFFSET + 50 * SLOW)  # the machine came up at this wall time
    reboot.seal("fast", 7, 8)
    reboot.seal("slow", [1, 2], [1, 2])
    fast = tape.tracks[0]
    reboot.ask(fast)
    assert fast.cursor == 2 * SLOW // FAST
    assert fast.lost == 5  # from five slots after the begin to two slow ones after it
    reboot.ask(fast)
    times, values, _ = fast.until(2**62)
    assert values[:, 0].tolist() == [0, 1, 2, 3, 4, 7, 8]
    assert times[5] - times[0] == 2 * SLOW


@pytest.mark.parametrize("name", ["rec.csv", "rec.npz", "rec.jsonl"])
def test_what_is_written_is_read_back_to_the_bit(tmp_path, name):
    daemon = Daemon()
    tape = daemon.tape()
    values = np.random.default_rng(0).normal(size=(10, 2)) * 10.0 ** np.arange(-5, 5)[:, None]
    states = np.full(values.shape, GOOD)
    states[0, 0] = HELD  # what is held at the begin came before it, and is kept
    states[1, 1], values[1, 1] = BAD, np.nan
    states[2, 0] = HELD
    states[3, 1], values[3, 1] = EMPTY, np.nan
    daemon.seal("slow", *values, states=states)
    daemon.seal("fast", *range(50))
    writer = open_writer(tmp_path / name, tape.columns)
    for limit in (3, 1000):
        for track in tape.tracks:
            daemon.ask(track, limit)
        writer.rows(*tape.ready())
    writer.close()
    recording = open_recording(tmp_path / name)
    assert set(recording.columns) == set(tape.columns)
    pieces = list(recording.pieces(tape.columns))
    times = np.concatenate([piece.times for piece in pieces])
    read = np.concatenate([piece.values for piece in pieces])
    bad = np.concatenate([np.zeros_like(p.values, dtype=bool) if p.bad is None else p.bad for p in pieces])
    assert times.tolist() == [tape.begin_utc + n * FAST for n in range(50)]
    expected = values.copy()
    expected[2, 0] = np.nan
    np.testing.assert_array_equal(read[::5, 1:], expected)
    assert np.argwhere(bad).tolist() == [[5, 2]]
    assert recording.faults.lines == recording.faults.cells == 0
