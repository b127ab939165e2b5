"""A sensor that is stuck or silent is told from one that stands still by nature."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.incident.channelcheck import ChannelCheck, Trouble
from dxad.types import Channel, Rows, State

NAN = float("nan")
CHANNELS = (Channel("s.a"), Channel("s.b"))


def rows_from(first: int, values, states=None) -> Rows:
    values = np.array(values, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if states is None:
        states = np.where(np.isnan(values), State.EMPTY, State.GOOD)
    return Rows(first, 100, values, np.array(states, dtype=np.uint8).reshape(values.shape))


def check_of(n: int = 1, *, missing_rows: int = 5) -> ChannelCheck:
    return ChannelCheck(CHANNELS[:n], missing_rows=missing_rows)


def test_a_channel_that_stands_still_for_longer_than_it_may_is_stuck_from_its_last_change_on():
    check = check_of()
    check.expect({"s.a": 4})
    doubtful = check.apply(rows_from(100, [1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]))
    assert doubtful[:, 0].tolist() == [False] * 6 + [True] * 2
    assert check.troubles == [Trouble("s.a", "stuck", since=103)]


def test_one_change_makes_it_well_again():
    check = check_of()
    check.expect({"s.a": 3})
    doubtful = check.apply(rows_from(0, [3.0] * 6 + [3.0001, 3.0001]))
    assert doubtful[:, 0].tolist() == [False] * 3 + [True] * 3 + [False] * 2
    assert check.troubles == []


def test_only_what_a_model_has_learned_may_be_called_stuck():
    check = check_of()
    assert not check.apply(rows_from(0, [3.0] * 1000)).any()
    check.expect({"s.b": 3})
    assert not check.apply(rows_from(1000, [3.0] * 1000)).any()


def test_rows_without_a_new_sample_do_not_make_a_channel_stuck():
    check = check_of(missing_rows=1000)
    check.expect({"s.a": 3})
    states = [State.GOOD, *[State.HELD] * 50]
    assert not check.apply(rows_from(0, [3.0] * 51, states)).any()


@pytest.mark.parametrize("state", [State.EMPTY, State.BAD])
def test_a_channel_without_a_valid_value_for_long_enough_is_missing(state):
    check = check_of(missing_rows=3)
    states = [State.GOOD, *[state] * 4]
    doubtful = check.apply(rows_from(10, [1.0, NAN, NAN, NAN, NAN], states))
    assert doubtful[:, 0].tolist() == [False] * 3 + [True] * 2
    assert check.troubles == [Trouble("s.a", "missing", since=11)]
    check.apply(rows_from(15, [1.0]))
    assert check.troubles == []


@pytest.mark.parametrize("state", [State.HELD, State.UNCERTAIN])
def test_a_held_or_uncertain_value_is_not_missing(state):
    check = check_of(missing_rows=2)
    assert not check.apply(rows_from(0, [1.0] * 10, [State.GOOD] + [state] * 9)).any()


def test_a_slow_channel_whose_rows_only_ever_hold_it_can_be_missing_too():
    check = check_of(missing_rows=2)
    states = [State.HELD] * 5 + [State.EMPTY] * 3
    doubtful = check.apply(rows_from(0, [1.0] * 5 + [NAN] * 3, states))
    assert doubtful[:, 0].tolist() == [False] * 6 + [True] * 2


def test_a_channel_that_never_came_is_its_source_s_trouble():
    check = check_of(missing_rows=2)
    assert not check.apply(rows_from(0, [NAN] * 100)).any()


def test_a_stuck_channel_that_falls_silent_is_missing():
    check = check_of(missing_rows=2)
    check.expect({"s.a": 2})
    check.apply(rows_from(0, [3.0] * 5 + [NAN] * 4))
    assert check.troubles == [Trouble("s.a", "missing", since=5)]


def test_the_longest_trouble_comes_first():
    check = check_of(2, missing_rows=2)
    check.expect({"s.a": 2, "s.b": 2})
    check.apply(rows_from(0, [[1.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]))
    assert [each.channel for each in check.troubles] == ["s.b", "s.a"]


def test_a_measurement_learns_five_times_its_longest_stillness_and_ten_rows_at_least():
    check = check_of(2)
    steps = np.arange(40.0)
    check.apply(rows_from(0, np.column_stack((np.repeat(np.arange(10.0), 4)[:40], steps))))
    assert check.learned() == {"s.b": 10}, "s.a stands still in three rows of four: a state, a set-point"
    check.forget()
    with_pauses = np.concatenate((steps, np.full(7, 40.0), 50 + steps))
    check.apply(rows_from(40, np.column_stack((with_pauses, np.arange(87.0)))))
    assert check.learned() == {"s.a": 30, "s.b": 10}, "six rows in a row were equal to the one before"


def test_too_few_rows_teach_nothing():
    check = check_of()
    check.apply(rows_from(0, np.arange(10.0)))
    assert check.learned() == {}


def told_slowly(values, states, stuck_rows: int, missing_rows: int) -> list[bool]:
    """One channel, looking back from each row over all that came before."""
    doubtful = []
    for row in range(len(values)):
        fresh = [n for n in range(row + 1) if states[n] in (State.GOOD, State.UNCERTAIN)]
        valid = [n for n in range(row + 1) if n in fresh or states[n] == State.HELD]
        equal = 0
        for earlier, later in zip(reversed(fresh[:-1]), reversed(fresh[1:]), strict=True):
            if values[earlier] != values[later]:
                break
            equal += 1
        absent = row - valid[-1] if valid else row + 1
        stuck = equal >= stuck_rows and absent == 0
        doubtful.append(stuck or (bool(valid) and absent >= missing_rows))
    return doubtful


@given(
    cells=st.lists(st.tuples(st.sampled_from([1.0, 1.0, 2.0]), st.sampled_from(State)), max_size=40),
    stuck_rows=st.integers(1, 5),
    missing_rows=st.integers(1, 5),
    cuts=st.lists(st.integers(0, 15), max_size=5),
)
def test_it_tells_the_same_however_rows_are_cut(cells, stuck_rows, missing_rows, cuts):
    values = [value if state not in (State.EMPTY, State.BAD) else NAN for value, state in cells]
    states = [state for _, state in cells]
    check = check_of(missing_rows=missing_rows)
    check.expect({"s.a": stuck_rows})
    told: list[bool] = []
    for begin, end in zip([0, *np.cumsum(cuts)], [*np.cumsum(cuts), len(cells)], strict=True):
        piece = slice(int(begin), max(int(begin), min(int(end), len(cells))))
        told += check.apply(rows_from(int(begin), values[piece], states[piece])).ravel().tolist()
    assert told == told_slowly(values, states, stuck_rows, missing_rows)[: len(told)]


class Slow:
    """What the check promises, cell by cell."""

    def __init__(self, *, missing_rows: int, stuck_rows: int) -> None:
        self.missing_rows, self.stuck_rows = missing_rows, stuck_rows
        self.value, self.still, self.absent, self.seen = NAN, 0, 0, False

    def doubts(self, value: float, state: int) -> bool:
        fresh = state in {State.GOOD, State.UNCERTAIN}
        if fresh:
            self.still = self.still + 1 if value == self.value else 0
            self.value = value
        valid = fresh or state == State.HELD
        self.absent = 0 if valid else self.absent + 1
        self.seen |= valid
        stuck = self.still >= self.stuck_rows and self.absent == 0
        return stuck or (self.seen and self.absent >= self.missing_rows)


@given(
    cells=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(State)), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    missing_rows=st.integers(1, 5),
    stuck_rows=st.integers(1, 5),
)
def test_it_doubts_what_a_slow_check_doubts_however_the_rows_are_cut(cells, cuts, missing_rows, stuck_rows):
    slow = Slow(missing_rows=missing_rows, stuck_rows=stuck_rows)
    values = [NAN if state in {State.EMPTY, State.BAD} else float(value) for value, state in cells]
    states = [int(state) for _, state in cells]
    expected = [slow.doubts(value, state) for value, state in zip(values, states, strict=True)]
    check = check_of(missing_rows=missing_rows)
    check.expect({"s.a": stuck_rows})
    edges = [0, *sorted(min(cut, len(cells)) for cut in cuts), len(cells)]
    found: list[bool] = []
    for begin, end in pairwise(edges):
        doubtful = check.apply(rows_from(begin, values[begin:end], states[begin:end]))
        found += doubtful[:, 0].tolist()
        for row in range(end - begin):
            assert bool(check.troubles_at(row)) == expected[begin + row]
    assert found == expected


@given(cuts=st.lists(st.integers(0, 1400), max_size=5), seed=st.integers(0, 99))
def test_it_teaches_itself_at_one_row_however_the_rows_are_cut(cuts, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=1400)
    values[1100:1200] = 5.0
    running = rng.random(1400) < 0.95
    whole, pieces = (ChannelCheck(CHANNELS[:1], missing_rows=5, self_taught=True) for _ in range(2))
    expected = whole.apply(rows_from(0, values), running)
    assert not expected[:1100].any()
    assert expected[1150, 0] or not running[1100:1150].all()
    edges = [0, *sorted(cuts), 1400]
    found = [
        pieces.apply(rows_from(begin, values[begin:end]), running[begin:end])
        for begin, end in pairwise(edges)
    ]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert pieces.troubles == whole.troubles


def test_what_a_model_has_learned_counts_for_more():
    check = ChannelCheck(CHANNELS[:1], missing_rows=5, self_taught=True)
    check.expect({"s.a": 500})
    values = np.random.default_rng(1).normal(size=1100)
    check.apply(rows_from(0, values))
    assert not check.apply(rows_from(1100, [3.0] * 400)).any()
    assert check.apply(rows_from(1500, [3.0] * 200)).any()
