"""Staged samples become rows; compared with a fold that is written as one would explain it."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.ring.ringbuffer import RingBuffer
from dxad.ring.sealer import Accepted, Sealed, Sealer
from dxad.types import SAMPLE, Channel, Quality, Reason, State

PERIOD = 10
SLOTS = 20
START = 100
SESSION = -1


@dataclass(frozen=True)
class Reading:
    """One sample; the tests number the messages by their place in a list."""

    time: int
    column: int
    value: float
    quality: Quality = Quality.GOOD
    stamp: int = 0


def samples_of(readings: list[Reading], first_message: int = 0) -> np.ndarray:
    samples = np.zeros(len(readings), dtype=SAMPLE)
    for place, each in enumerate(readings):
        reason = Reason.DEVICE if each.quality is Quality.BAD else Reason.NONE
        samples[place] = (
            first_message + place, each.stamp, each.time, each.value, each.column, each.quality, reason,
        )  # fmt: skip
    return samples


def times_of(readings: list[Reading]) -> np.ndarray:
    return np.array([each.time for each in readings], dtype=np.int64)


def make(folds, holds, *, slots=SLOTS, start=START) -> tuple[RingBuffer, Sealer]:
    channels = [Channel(f"s.c{column}") for column in range(len(folds))]
    ring = RingBuffer(channels, period=PERIOD, slots=slots, start=start)
    return ring, Sealer(ring, folds=folds, holds_ns=holds)


@dataclass
class Cell:
    value: float
    state: State
    reason: Reason
    folded: int


def expected_cell(fold: str, mine: list[Reading]) -> Cell:
    """What the samples of one slot and channel become, before anything is held; in the order of arrival."""
    good = [each for each in mine if each.quality is not Quality.BAD]
    folded = max(0, len(mine) - 1)
    if not good:
        found = (State.BAD, Reason.DEVICE) if mine else (State.EMPTY, Reason.NONE)
        return Cell(np.nan, *found, folded)
    newest = max(enumerate(good), key=lambda each: (each[1].stamp, each[0]))[1]
    total = 0.0
    for each in good:
        total += each.value
    value = {
        "last": newest.value,
        "mean": total / len(good),
        "min": min(each.value for each in good),
        "max": max(each.value for each in good),
        "count": float(len(good)),
    }[fold]
    state = State.GOOD if newest.quality is Quality.GOOD else State.UNCERTAIN
    return Cell(value, state, Reason.NONE, folded)


def expected_column(column, fold, hold, readings, *, slots, valid_until) -> list[Cell]:
    cells: list[Cell] = []
    last: tuple[int, float] | None = None
    for slot in slots:
        mine = [each for each in readings if each.column == column and each.time // PERIOD == slot]
        cell = expected_cell(fold, mine)
        by_session = hold == SESSION
        if cell.state in (State.GOOD, State.UNCERTAIN):
            last = (slot, cell.value)
        elif cell.state is State.BAD:
            last = None if by_session else last
        elif last is not None:
            fresh = slot * PERIOD <= valid_until if by_session else (slot - last[0]) * PERIOD <= hold
            if fresh:
                cell.value, cell.state = 0.0 if fold == "count" else last[1], State.HELD
            elif by_session:
                last = None
        cells.append(cell)
    return cells


values = st.floats(-1e6, 1e6)
readings = st.lists(
    st.builds(
        Reading,
        time=st.integers(START * PERIOD, (START + SLOTS) * PERIOD - 1),
        column=st.integers(0, 2),
        value=values,
        quality=st.sampled_from([Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN, Quality.BAD]),
        stamp=st.integers(0, 2),
    ),
    max_size=40,
)
folds = st.tuples(*[st.sampled_from(["last", "mean", "min", "max", "count"])] * 3)
holds = st.tuples(*[st.sampled_from([SESSION, 0, PERIOD, 2 * PERIOD, 5 * PERIOD, 1000 * PERIOD])] * 3)


@given(
    readings=readings,
    folds=folds,
    holds=holds,
    session=st.integers(START - 1, START + SLOTS),
    data=st.data(),
)
def test_rows_are_the_fold_of_their_samples_however_blocks_and_ticks_are_cut(
    readings, folds, holds, session, data
):
    valid_until = session * PERIOD
    ring, sealer = make(folds, holds)
    folded = accepted = 0
    while accepted < len(readings):
        block = readings[accepted : accepted + data.draw(st.integers(1, 8))]
        assert sealer.accept(samples_of(block, accepted), times_of(block)) == Accepted()
        accepted += len(block)
        still_to_come = times_of(readings[accepted:]).min(initial=(START + SLOTS) * PERIOD)
        until = data.draw(st.integers(START * PERIOD, int(still_to_come)))
        folded += sealer.seal(until, valid_until=valid_until).folded
    folded += sealer.seal((START + SLOTS) * PERIOD, valid_until=valid_until).folded

    found = ring.read(START, START + SLOTS)
    assert ring.sealed == START + SLOTS
    told = 0
    for column, (fold, hold) in enumerate(zip(folds, holds, strict=True)):
        slots = range(START, START + SLOTS)
        cells = expected_column(column, fold, hold, readings, slots=slots, valid_until=valid_until)
        np.testing.assert_array_equal(found.values[:, column], [each.value for each in cells])
        np.testing.assert_array_equal(found.states[:, column], [each.state for each in cells])
        np.testing.assert_array_equal(
            [ring.reasons_at(slot)[column] for slot in slots], [each.reason for each in cells]
        )
        told += sum(each.folded for each in cells)
    assert folded == told, "each sample is in a cell, or counted as folded"


@given(readings=readings, folds=folds, holds=holds, at_once=st.integers(1, 30), session=st.integers(0, 200))
def test_rows_do_not_depend_on_how_many_are_sealed_at_once(readings, folds, holds, at_once, session):
    found = []
    for cells_at_once in (Sealer._CELLS_AT_ONCE, at_once):
        ring, sealer = make(folds, holds)
        sealer._CELLS_AT_ONCE = cells_at_once
        sealer.accept(samples_of(readings), times_of(readings))
        sealer.seal((START + SLOTS) * PERIOD, valid_until=session * PERIOD)
        found.append(ring.read(START, START + SLOTS))
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].states, found[1].states)


@given(readings=readings, sealed=st.integers(START, START + SLOTS), folds=folds, until=st.integers(0, SLOTS))
def test_a_sample_of_a_sealed_slot_fills_an_empty_cell_and_no_other_cell_changes(
    readings, sealed, folds, until
):
    in_time = [each for each in readings if each.time // PERIOD >= sealed]
    late = [each for each in readings if each.time // PERIOD < sealed]
    useful = [each for each in late if each.quality is not Quality.BAD]
    cells = {(each.time // PERIOD, each.column) for each in useful}
    rings = []
    for offered in (readings, in_time):
        ring, sealer = make(folds, (0, 0, 0), slots=3 * SLOTS)
        sealer.seal(sealed * PERIOD)
        found = sealer.accept(samples_of(offered), times_of(offered))
        if offered is readings:
            assert found == Accepted(
                backfilled=len(cells), folded=len(useful) - len(cells), late=len(late) - len(useful)
            )
            assert ring.revision == bool(cells)
        sealer.seal((sealed + until) * PERIOD)
        rings.append(ring)
    first, second = (ring.read(START, ring.sealed) for ring in rings)
    for slot in range(START, rings[0].sealed):
        for column in range(3):
            value, state = first.values[slot - START, column], State(first.states[slot - START, column])
            flagged = rings[0].backfilled(slot, slot + 1)[0, column]
            if (slot, column) in cells:
                mine = [each for each in useful if (each.time // PERIOD, each.column) == (slot, column)]
                wanted = expected_cell(folds[column], mine)
                np.testing.assert_array_equal(value, wanted.value)
                assert (state, flagged) == (wanted.state, True)
            else:
                np.testing.assert_array_equal(value, second.values[slot - START, column])
                assert (state, flagged) == (second.states[slot - START, column], False)


def test_what_comes_late_replaces_what_was_held_and_nothing_that_was_measured():
    ring, sealer = make(["last"], [5 * PERIOD], slots=6)
    sealer.accept(samples_of([at(0)]), times_of([at(0)]))
    sealer.seal((START + 3) * PERIOD)
    late = [Reading((START + place) * PERIOD, 0, 9.0) for place in (0, 1)]
    assert sealer.accept(samples_of(late), times_of(late)) == Accepted(backfilled=1, late=1)
    sealer.seal((START + 5) * PERIOD)
    found = ring.read(START, ring.sealed)
    assert found.values[:, 0].tolist() == [5.0, 9.0, 5.0, 9.0, 9.0], "held on is the newest that is known"
    assert [State(state) for state in found.states[:, 0]] == [
        State.GOOD, State.GOOD, State.HELD, State.HELD, State.HELD,
    ]  # fmt: skip
    assert ring.backfilled(START, ring.sealed)[:, 0].tolist() == [False, True, False, False, False]
    assert (ring.revision, ring.reasons_at(START + 1)[0]) == (1, Reason.BACKFILLED)


def test_what_is_older_than_the_ring_is_lost():
    ring, sealer = make(["last"], [0], slots=4)
    sealer.seal((START + 10) * PERIOD)
    late = [at(5), at(6), at(9)]
    assert sealer.accept(samples_of(late), times_of(late)) == Accepted(backfilled=2, too_old=1)
    assert sealer.accept(samples_of([at(6, Quality.BAD)]), times_of([at(6)])) == Accepted(late=1)
    assert ring.sealed == START + 10


def test_a_count_of_slots_in_which_nothing_came_is_zero_while_it_holds():
    ring, sealer = make(["count"], [2 * PERIOD])
    sealer.accept(samples_of([at(0), at(0)]), times_of([at(0), at(0)]))
    sealer.seal((START + 4) * PERIOD)
    found = ring.read(START, START + 4)
    np.testing.assert_array_equal(found.values[:, 0], [2.0, 0.0, 0.0, np.nan])
    assert found.states[:, 0].tolist() == [State.GOOD, State.HELD, State.HELD, State.EMPTY]


def test_only_so_many_samples_may_wait_for_their_slots():
    channels = [Channel("s.c0")]
    ring = RingBuffer(channels, period=PERIOD, slots=SLOTS, start=START)
    sealer = Sealer(ring, folds=["last"], holds_ns=[0], waiting_most=3)
    ahead = [at(place) for place in range(5)]
    assert sealer.accept(samples_of(ahead), times_of(ahead)) == Accepted(waiting=2)
    assert sealer.accept(samples_of(ahead), times_of(ahead)) == Accepted(waiting=5)
    assert sealer.seal((START + 3) * PERIOD) == Sealed(rows=3, stored=3)
    assert sealer.accept(samples_of([at(4)]), times_of([at(4)])) == Accepted()


def test_nothing_is_sealed_before_its_slot_has_ended():
    ring, sealer = make(["last"], [0])
    assert sealer.seal((START + 1) * PERIOD - 1) == Sealed()
    assert sealer.seal((START + 1) * PERIOD) == Sealed(rows=1)
    assert sealer.seal((START + 1) * PERIOD) == Sealed(), "a slot is sealed once"
    assert ring.sealed == START + 1


def test_a_held_value_lasts_as_long_as_its_hold_and_not_a_slot_longer():
    ring, sealer = make(["last"], [2 * PERIOD])
    sealer.accept(samples_of([Reading(START * PERIOD, 0, 7.0)]), times_of([Reading(START * PERIOD, 0, 7.0)]))
    for slot in range(START, START + 5):
        sealer.seal((slot + 1) * PERIOD)
    np.testing.assert_array_equal(
        ring.read(START, START + 5).states[:, 0],
        [State.GOOD, State.HELD, State.HELD, State.EMPTY, State.EMPTY],
    )


def sealed_states(script: list[tuple[Reading | None, int]]) -> list[State]:
    """One slot after the other: what came in it, and up to which slot the session is proved alive then."""
    ring, sealer = make(["last"], [SESSION])
    for place, (reading, alive) in enumerate(script):
        if reading is not None:
            sealer.accept(samples_of([reading]), times_of([reading]))
        sealer.seal((START + place + 1) * PERIOD, valid_until=(START + alive) * PERIOD)
    return [State(state) for state in ring.read(START, ring.sealed).states[:, 0]]


def at(place: int, quality: Quality = Quality.GOOD) -> Reading:
    return Reading((START + place) * PERIOD, 0, 5.0, quality)


def test_what_is_held_by_session_lasts_while_the_session_is_proved_alive():
    assert sealed_states([(at(0), 9), (None, 9), (None, 9), (None, 2)]) == [
        State.GOOD, State.HELD, State.HELD, State.EMPTY,
    ]  # fmt: skip


def test_a_new_session_does_not_bring_back_what_the_old_one_held():
    script = [(at(0), 1), (None, 1), (None, 1), (None, 9), (at(4), 9), (None, 9)]
    assert sealed_states(script) == [
        State.GOOD, State.HELD, State.EMPTY, State.EMPTY, State.GOOD, State.HELD,
    ]  # fmt: skip


def test_a_bad_sample_takes_back_what_was_held_by_session():
    script = [(at(0), 9), (None, 9), (at(2, Quality.BAD), 9), (None, 9), (at(4), 9), (None, 9)]
    assert sealed_states(script) == [
        State.GOOD, State.HELD, State.BAD, State.EMPTY, State.GOOD, State.HELD,
    ]  # fmt: skip


def test_after_a_sleep_longer_than_the_ring_the_newest_slots_are_sealed_and_older_samples_are_counted():
    ring, sealer = make(["last"], [1000 * PERIOD], slots=4)
    readings = [at(0), at(1), at(37), at(38)]
    sealer.accept(samples_of(readings), times_of(readings))
    assert sealer.seal((START + 40) * PERIOD) == Sealed(rows=4, stored=2, late=2)
    found = ring.read(ring.oldest, ring.sealed)
    assert found.first == START + 36
    np.testing.assert_array_equal(found.states[:, 0], [State.EMPTY, State.GOOD, State.GOOD, State.HELD])


@pytest.mark.parametrize("stamped", [False, True])
def test_samples_that_others_will_hide_do_not_wait_and_the_rows_are_the_same(stamped, monkeypatch):
    rng = np.random.default_rng(3)
    readings = samples_of([at(0)] * 4000)
    readings["column"] = rng.integers(0, 2, len(readings))
    readings["value"] = rng.normal(size=len(readings))
    readings["quality"] = rng.choice([0, 1, 2], len(readings), p=[0.4, 0.2, 0.4])
    readings["stamp"] = rng.integers(1, 50, len(readings)) if stamped else 0
    times = (START + rng.integers(0, 12, len(readings))) * PERIOD
    rows = []
    for merged_from in (1 << 30, 64):
        monkeypatch.setattr("dxad.ring.sealer._MERGED_FROM", merged_from)
        ring, sealer = make(["last", "mean"], [PERIOD, PERIOD], slots=20)
        found = [
            sealer.accept(readings[begin : begin + 100], times[begin : begin + 100])
            for begin in range(0, len(readings), 100)
        ]
        merged = sum(each.merged for each in found)
        assert (merged > 1500) == (merged_from == 64)
        assert sealer.waiting == len(readings) - merged
        sealed = sealer.seal((START + 12) * PERIOD)
        assert sealed.stored + sealed.folded + merged == len(readings)
        reading = ring.read(START, START + 12)
        rows.append(
            (reading.values.tobytes(), reading.states.tobytes(), ring.reasons_at(START + 3).tobytes())
        )
    assert rows[0] == rows[1]


def test_a_flood_of_one_slot_takes_no_more_memory_than_a_trickle():
    _, sealer = make(["last"], [PERIOD], slots=20)
    for _ in range(200):
        sealer.accept(samples_of([at(0)] * 1000), times_of([at(0)] * 1000))
        assert sealer.waiting < 10_000
    sealed = sealer.seal((START + 1) * PERIOD)
    assert sealed.stored == 1
