"""A stage keeps what a source puts, in order; full, it loses what its policy says, and counts it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.ring.stage import Stage
from dxad.types import Quality, Reason


def test_the_stage_keeps_the_order_and_numbers_the_messages_from_zero():
    stage = Stage(10)
    stage.begin(1000, stamp=5)
    stage.put(0, 1.5)
    stage.put(1, float("nan"), Quality.BAD, Reason.TYPE)
    stage.begin(2000)
    stage.put(0, 2.5, Quality.UNCERTAIN)
    assert len(stage) == 3
    samples = stage.take()
    assert samples["message"].tolist() == [0, 0, 1]
    assert samples["stamp"].tolist() == [5, 5, 0]
    assert samples["arrival"].tolist() == [1000, 1000, 2000]
    assert samples["column"].tolist() == [0, 1, 0]
    assert samples["quality"].tolist() == [Quality.GOOD, Quality.BAD, Quality.UNCERTAIN]
    assert samples["reason"].tolist() == [Reason.NONE, Reason.TYPE, Reason.NONE]
    np.testing.assert_array_equal(samples["value"], [1.5, np.nan, 2.5])
    assert len(stage) == 0


def test_what_was_taken_is_not_overwritten_by_what_comes_next():
    stage = Stage(2)
    for value in (1.0, 2.0):
        stage.begin(0)
        stage.put(0, value)
    taken = stage.take()
    stage.begin(0)
    stage.put(0, 3.0)
    assert taken["value"].tolist() == [1.0, 2.0]
    assert stage.take()["message"].tolist() == [2], "messages are numbered on"


@pytest.mark.parametrize(("put", "kept", "dropped"), [(3, 3, 0), (4, 3, 1), (10, 3, 7)])
def test_a_full_stage_counts_what_it_drops(put, kept, dropped):
    stage = Stage(3)
    for value in range(put):
        stage.begin(0)
        stage.put(0, float(value))
    assert stage.overflowed == dropped
    assert stage.take()["value"].tolist() == list(range(kept))


def overflowing(
    overflow: str, messages: int, *, capacity: int = 8, columns: int = 1
) -> tuple[list[int], int]:
    """Of so many messages put without being read, those that are kept; and how many samples were lost."""
    stage = Stage(capacity, overflow)
    for value in range(messages):
        stage.begin(0)
        for column in range(columns):
            stage.put(column, float(value))
    samples = stage.take()
    assert len(samples) + stage.overflowed == messages * columns, "each sample is kept or counted"
    stage.begin(0)
    stage.put(0, 1e9)
    assert stage.take()["value"].tolist() == [1e9], "once it was taken, all is kept again"
    return samples["value"].astype(int).tolist(), stage.overflowed


def test_a_full_stage_loses_what_its_policy_says():
    assert overflowing("drop_newest", 11) == (list(range(8)), 3)
    assert overflowing("block", 11) == (list(range(8)), 3)
    assert overflowing("drop_oldest", 11) == (list(range(3, 11)), 3)
    assert overflowing("drop_oldest", 100) == (list(range(92, 100)), 92)
    assert overflowing("thin", 8) == (list(range(8)), 0)
    assert overflowing("thin", 16) == (list(range(0, 16, 2)), 8)
    assert overflowing("thin", 100) == (list(range(0, 100, 16)), 93)


def test_messages_are_thinned_whole():
    kept, lost = overflowing("thin", 20, capacity=8, columns=2)
    assert (kept, lost) == ([0, 0, 8, 8, 16, 16], 34)


def test_a_message_that_is_larger_than_the_stage_is_cut_whatever_the_policy():
    for overflow in ("drop_newest", "drop_oldest", "thin", "block"):
        kept, lost = overflowing(overflow, 1, capacity=4, columns=9)
        assert (len(kept), lost) == (4, 5)


@given(
    overflow=st.sampled_from(["drop_newest", "drop_oldest", "thin", "block"]),
    capacity=st.integers(1, 9),
    script=st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=60),
)
def test_what_is_put_is_taken_in_order_or_counted(overflow, capacity, script):
    stage = Stage(capacity, overflow)
    put, taken = 0, []
    for columns in script:
        if columns is None:
            taken += stage.take()["value"].tolist()
            continue
        stage.begin(0)
        for column in range(columns):
            stage.put(column, float(put))
            put += 1
        assert len(stage) + stage.room == capacity
    taken += stage.take()["value"].tolist()
    assert taken == sorted(set(taken))
    assert len(taken) + stage.overflowed == put


@given(st.lists(st.integers(1, 4), max_size=8), st.sampled_from(["drop_newest", "drop_oldest", "thin"]))
def test_many_at_once_are_what_they_are_one_by_one_or_find_no_room(sizes, overflow):
    many, singly, value = Stage(16, overflow), Stage(16, overflow), 0.0
    for turn, messages in enumerate(sizes):
        rows = np.arange(value, value + 2 * messages).reshape(-1, 2)
        rows[0, 1] = np.nan
        value += 2 * messages
        for stage in (many, singly):
            if stage is many and stage.put_many(turn, rows):
                continue
            for row in rows.tolist():
                stage.begin(turn)
                for column, each in enumerate(row):
                    bad = (Quality.BAD, Reason.TYPE) if np.isnan(each) else ()
                    stage.put(column, each, *bad)
        if turn % 3 == 2:
            assert many.take(5).tobytes() == singly.take(5).tobytes()
    assert many.overflowed == singly.overflowed
    assert many.take().tobytes() == singly.take().tobytes()
