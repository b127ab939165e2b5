"""Rings of several rates, joined; compared with a join that looks at one cell after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.frame import Feature, Feed, Frame
from dxad.plugin import load
from dxad.ring.ringbuffer import RingBuffer
from dxad.types import Channel, Fold, Reason, Rows, Schema, State

PERIOD = 100
"""Of the frame, in nanoseconds."""


def ring_of(
    name: str, columns: int, *, period: int, slots: int, start: int = 0, folds: Sequence[Fold] = ()
) -> RingBuffer:
    channels = [Channel(f"{name}.c{n}", fold=folds[n] if folds else "last") for n in range(columns)]
    return RingBuffer(channels, period=period, slots=slots, start=start)


@dataclass(frozen=True)
class Cell:
    value: float
    state: State


Table = list[list[Cell]]
"""Every slot a ring ever sealed, from its start."""


def seal(ring: RingBuffer, table: Sequence[Sequence[Cell]]) -> None:
    for row in table:
        values = np.array([[cell.value for cell in row]])
        ring.append(ring.sealed, values, np.array([[cell.state for cell in row]], dtype=np.uint8))


def good(*values: float) -> list[Cell]:
    return [Cell(value, State.GOOD) for value in values]


EMPTY = Cell(np.nan, State.EMPTY)


def random_table(rng: np.random.Generator, rows: int, columns: int) -> Table:
    """Half of the cells hold a value."""

    def cell() -> Cell:
        if rng.random() < 0.5:
            return Cell(np.nan, State(rng.choice([State.EMPTY, State.BAD])))
        return Cell(rng.normal(), State(rng.choice([State.GOOD, State.HELD, State.UNCERTAIN])))

    return [[cell() for _ in range(columns)] for _ in range(rows)]


def combined(fold: str, mine: Sequence[Cell]) -> Cell:
    """What finer slots become in one row."""
    known = [cell for cell in mine if not np.isnan(cell.value)]
    if not known:
        return mine[-1]
    values = [cell.value for cell in known]
    value = {
        "last": values[-1],
        "mean": sum(values) / len(values),
        "min": min(values),
        "max": max(values),
        "count": sum(values),
    }[fold]
    return Cell(value, known[-1].state)


def expected(ring: RingBuffer, table: Table, start: int, column: int, row: int) -> Cell:
    """One cell of the join, from all that the ring has sealed so far."""
    begin, end = row * PERIOD, (row + 1) * PERIOD
    if ring.period <= PERIOD:
        begun = [slot for slot in range(end // ring.period + 1) if begin <= slot * ring.period < end]
        mine = [table[slot - start][column] if start <= slot < ring.sealed else EMPTY for slot in begun]
        return combined(ring.channels[column].fold, mine)
    ended = [slot for slot in range(start, ring.sealed) if (slot + 1) * ring.period <= end]
    if not ended:
        return EMPTY
    cell = table[ended[-1] - start][column]
    return Cell(cell.value, State.HELD if cell.state is State.GOOD else cell.state)


class Plant:
    """A few rings, whose slots are sealed as their time comes."""

    def __init__(
        self,
        periods: Sequence[int],
        tables: Sequence[Table],
        *,
        slots: int,
        begin: int,
        folds: Sequence[Fold] = ("last", "last"),
    ) -> None:
        self.starts = [begin * PERIOD // period for period in periods]
        self.tables = tables
        self.rings = [
            ring_of(f"r{n}", len(tables[n][0]), period=period, slots=slots, start=start, folds=folds)
            for n, (period, start) in enumerate(zip(periods, self.starts, strict=True))
        ]
        self.frame = Frame(
            [Feed(ring, tuple(range(len(ring.channels)))) for ring in self.rings], period=PERIOD
        )

    def advance(self, now: int) -> None:
        for ring, table, start in zip(self.rings, self.tables, self.starts, strict=True):
            stop = min(now // ring.period, start + len(table))
            seal(ring, table[ring.sealed - start : max(ring.sealed, stop) - start])

    def check(self, rows: Rows) -> None:
        column = 0
        for ring, table, start in zip(self.rings, self.tables, self.starts, strict=True):
            for own in range(len(ring.channels)):
                for place in range(len(rows)):
                    cell = expected(ring, table, start, own, rows.first + place)
                    np.testing.assert_allclose(rows.values[place, column], cell.value, rtol=1e-12, atol=1e-12)
                    assert rows.states[place, column] == cell.state
                column += 1


periods = st.lists(st.integers(7, 350), min_size=1, max_size=3).filter(lambda found: min(found) <= PERIOD)
any_folds = st.tuples(*[st.sampled_from(["last", "mean", "min", "max", "count"])] * 2)


@settings(max_examples=60)
@given(
    periods=periods,
    folds=any_folds,
    begin=st.integers(0, 6),
    seed=st.integers(0, 2**32),
    cuts=st.lists(
        st.tuples(st.integers(PERIOD // 4, 3 * PERIOD), st.integers(1, 4)), min_size=24, max_size=24
    ),
)
def test_rows_are_the_join_of_all_that_is_sealed_each_row_once_and_in_order(
    periods, folds, begin, seed, cuts
):
    rows = 6
    rng = np.random.default_rng(seed)
    tables = [random_table(rng, rows * PERIOD // period + 1, 2) for period in periods]
    plant = Plant(periods, tables, slots=rows * PERIOD, begin=begin, folds=folds)
    next_row, now = None, begin * PERIOD
    for pause, most in cuts:
        now = min(now + pause, (begin + rows) * PERIOD)
        plant.advance(now)
        while (found := plant.frame.read(most)) is not None:
            assert next_row in (None, found.first)
            next_row = found.first + len(found)
            plant.check(found)
        paced = [ring for ring in plant.rings if ring.period <= PERIOD]
        done = min(ring.sealed * ring.period // PERIOD for ring in paced)
        assert next_row in (None, done), "a slow ring delays no fast one, and no row waits that is complete"
        assert plant.frame.waiting == 0
    assert plant.frame.lost == 0


@settings(max_examples=50)
@given(
    period=st.integers(3, 100),
    columns=st.integers(1, 3),
    fold=st.sampled_from(["mean", "count", "max"]),
    cuts=st.lists(st.integers(1, 9), min_size=30, max_size=30),
    seed=st.integers(0, 2**32),
)
def test_folded_rows_are_the_same_to_the_bit_however_they_are_cut(period, columns, fold, cuts, seed):
    rng = np.random.default_rng(seed)
    ring = ring_of("s", columns, period=period, slots=2000, folds=[fold] * columns)
    frames = [Frame([Feed(ring, tuple(range(columns)))], period=PERIOD) for _ in range(2)]
    rows = 20 * PERIOD // period
    values = np.where(rng.random((rows, columns)) < 0.9, rng.normal(size=(rows, columns)) * 1e3, np.nan)
    ring.append(0, values, np.where(np.isnan(values), 0, 1).astype(np.uint8))
    whole = frames[0].read(1000)
    pieces = [found.values for cut in cuts if (found := frames[1].read(cut)) is not None]
    assert len(whole) == ring.sealed * period // PERIOD
    np.testing.assert_array_equal(np.concatenate(pieces), whole.values)


def test_a_frame_begins_with_the_first_row_that_all_rings_can_fill():
    fine = ring_of("fine", 1, period=10, slots=100, start=15)
    coarse = ring_of("coarse", 1, period=200, slots=100, start=1)
    frame = Frame([Feed(fine, (0,)), Feed(coarse, (0,))], period=PERIOD)
    seal(fine, [good(float(slot)) for slot in range(15, 40)])
    rows = frame.read(10)
    assert (rows.first, rows.values[:, 0].tolist()) == (2, [29.0, 39.0])


def test_only_the_columns_of_a_feed_are_joined_in_its_order():
    ring = ring_of("s", 3, period=PERIOD, slots=10)
    seal(ring, [good(1.0, 2.0, 3.0)])
    frame = Frame([Feed(ring, (2, 0))], period=PERIOD)
    frame._next = 0
    assert [channel.id for channel in frame.schema.channels] == ["s.c2", "s.c0"]
    assert frame.read(1).values.tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize("period", [10, 100])
def test_rows_that_were_overwritten_are_counted_and_the_rest_is_read(period):
    ring = ring_of("s", 1, period=period, slots=5 * PERIOD // period)
    frame = Frame([Feed(ring, (0,))], period=PERIOD)
    seal(ring, [good(float(slot)) for slot in range(20 * PERIOD // period)])
    rows = frame.read(100)
    assert (rows.first, len(rows), frame.lost) == (15, 5, 15)
    assert not np.isnan(rows.values).any()


def shedding(overflow: str, *, most: int = 4, batch: int = 2) -> tuple[list[float], int]:
    """Of ten rows that wait, those that are read, and how many were lost."""
    ring = ring_of("s", 1, period=PERIOD, slots=50)
    frame = Frame([Feed(ring, (0,))], period=PERIOD)
    seal(ring, [good(float(slot)) for slot in range(10)])
    frame.shed(most, overflow)
    frame.shed(most, overflow)
    found: list[float] = []
    while (rows := frame.read(batch)) is not None:
        found += rows.values[:, 0].tolist()
    assert frame.losses == {"overwritten": 0, "backlog": frame.lost}
    assert len(found) + frame.lost == 10
    seal(ring, [good(10.0)])
    assert frame.read(batch).values.tolist() == [[10.0]]
    return found, frame.lost


def test_of_too_many_waiting_rows_those_are_passed_over_that_the_policy_says():
    assert shedding("drop_oldest") == ([6.0, 7.0, 8.0, 9.0], 6)
    assert shedding("drop_newest") == ([0.0, 1.0, 2.0, 3.0], 6)
    assert shedding("thin") == ([0.0, 1.0, 6.0, 7.0], 6), "of three stretches of rows, one"
    assert shedding("thin", most=10) == ([float(slot) for slot in range(10)], 0)


def test_a_coarse_ring_that_has_sealed_nothing_is_empty_and_delays_nobody():
    fast = ring_of("fast", 1, period=PERIOD, slots=10)
    slow = ring_of("slow", 1, period=10 * PERIOD, slots=10)
    frame = Frame([Feed(fast, (0,)), Feed(slow, (0,))], period=PERIOD)
    seal(fast, [good(1.0)] * 3)
    rows = frame.read(10)
    assert rows.values[:, 0].tolist() == [1.0] * 3
    assert (rows.states[:, 1] == State.EMPTY).all()


def test_a_pipeline_of_coarse_rings_alone_goes_at_the_pace_of_the_slowest():
    slow = ring_of("slow", 1, period=3 * PERIOD, slots=10)
    frame = Frame([Feed(slow, (0,))], period=PERIOD)
    seal(slow, [good(1.0), good(2.0)])
    rows = frame.read(10)
    np.testing.assert_array_equal(rows.values[:, 0], [np.nan, np.nan, 1.0, 1.0, 1.0, 2.0])


def summarized(ring: RingBuffer, *, every: int, slots: int = 100) -> Feature:
    plugin = load("transforms", "summarize")
    section = plugin.config(type="summarize", stat="mean", every=f"{every}ns", channels=("s.*",))
    transform = plugin.build(section)
    schema = transform.outputs(Schema(ring.channels, ring.period))
    return Feature(Feed(ring, tuple(range(len(ring.channels)))), transform, schema, slots=slots)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_what_is_made_of_a_stuck_channel_is_bad_and_called_stuck_whatever_is_made_of_others(cut):
    ring = RingBuffer((Channel("s.a"), Channel("s.b")), period=10, slots=1000, start=0)
    feature = summarized(ring, every=50)
    frame = Frame([Feed(feature.ring, (0, 1))], period=50)
    values = np.arange(200.0).reshape(100, 2)
    states = np.full((100, 2), State.GOOD, dtype=np.uint8)
    reasons = np.zeros((100, 2), dtype=np.uint8)
    values[53:, 0], states[53:, 0], reasons[53:, 0] = np.nan, State.BAD, Reason.STUCK
    values[80:, 1], states[80:, 1], reasons[80:, 1] = np.nan, State.BAD, Reason.TIMEOUT
    for at in range(0, 100, cut):
        piece = slice(at, at + cut)
        ring.append(at, values[piece], states[piece], reasons[piece])
        feature.advance()
    made = feature.ring.read(0, 20)
    assert made.states[:, 0].tolist() == [State.GOOD] * 10 + [State.UNCERTAIN] + [State.BAD] * 9
    assert made.states[:, 1].tolist() == [State.GOOD] * 16 + [State.BAD] * 4
    assert [frame.stuck_at(row).tolist() for row in (10, 11, 19)] == [
        [False, False], [True, False], [True, False],
    ]  # fmt: skip


@given(start=st.integers(0, 30), cuts=st.lists(st.integers(0, 17), min_size=1, max_size=8))
def test_a_feature_is_a_ring_at_the_rate_of_its_results_however_its_source_is_cut(start, cuts):
    ring = ring_of("s", 1, period=10, slots=1000, start=start)
    feature = summarized(ring, every=50)
    for n in cuts:
        seal(ring, [good(float(slot)) for slot in range(ring.sealed, ring.sealed + n)])
        feature.advance()
        assert not feature.behind
    for result in range(start // 5, ring.sealed // 5):
        reading = feature.ring.read(result, result + 1)
        known = [float(slot) for slot in range(max(start, 5 * result), 5 * result + 5)]
        expected = sum(known) / len(known) if len(known) >= 2.5 else np.nan
        np.testing.assert_array_equal(reading.values, [[expected]])
    assert feature.ring.sealed == ring.sealed // 5


def test_a_feature_that_was_overtaken_mixes_nothing_from_before_with_what_came_after():
    ring = ring_of("s", 1, period=10, slots=20)
    feature = summarized(ring, every=50)
    seal(ring, [good(1000.0)] * 3)
    feature.advance()
    seal(ring, [good(1.0)] * 100)
    feature.advance()
    made = feature.ring.read(feature.ring.start, feature.ring.sealed)
    assert feature.ring.sealed == ring.sealed // 5
    assert feature.lost == 80
    np.testing.assert_array_equal(made.values[:-3], np.nan)
    np.testing.assert_array_equal(made.values[-3:], 1.0)


@pytest.mark.parametrize("period", [PERIOD // 10, PERIOD // 3, PERIOD, 3 * PERIOD])
def test_what_a_source_calls_stuck_is_told_on_the_frame_s_grid(period):
    channels = (Channel("s.a"), Channel("s.b"))
    ring = RingBuffer(channels, period=period, slots=200, start=0)
    frame = Frame([Feed(ring, (1, 0))], period=PERIOD)
    ring.append(0, np.ones((50, 2)), np.full((50, 2), State.GOOD, dtype=np.uint8))
    assert frame.stuck_at(49 * period // PERIOD).tolist() == [False, False], "nothing has a reason"
    reasons = np.zeros((50, 2), dtype=np.uint8)
    reasons[:, 1] = Reason.STUCK
    ring.append(50, np.ones((50, 2)), np.full((50, 2), State.BAD, dtype=np.uint8), reasons)
    assert frame.stuck_at(100 * period // PERIOD - 1).tolist() == [True, False]
    assert frame.stuck_at(50 * period // PERIOD - 2).tolist() == [False, False], "not yet"
    assert frame.stuck_at(10_000).tolist() == [True, False], "what is known last"
