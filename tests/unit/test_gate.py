"""Rows count while the machine runs as it is to be watched, and has done so for a while."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dxad.expression import compile_expression
from dxad.gate import Gate, stretches
from dxad.types import Channel, Rows, State

CHANNELS = (Channel("plc.flow"), Channel("plc.running"))


def rows_of(running: list[float], first: int = 0) -> Rows:
    values = np.column_stack((np.zeros(len(running)), np.array(running, dtype=np.float64)))
    return Rows(first, 100, values, np.full(values.shape, State.GOOD, dtype=np.uint8))


def gate(settle_rows: int = 0) -> Gate:
    return Gate(compile_expression("plc.running == 1"), CHANNELS, settle_rows=settle_rows)


def test_without_a_condition_every_row_counts():
    assert Gate(None, CHANNELS, settle_rows=5).apply(rows_of([0, 1, 0])).all()


def test_a_run_counts_from_the_row_after_it_has_settled():
    found = gate(settle_rows=3).apply(rows_of([0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1]))
    assert "".join(".x"[each] for each in found.tolist()) == ".....xxx....xx"


def test_what_is_not_known_does_not_run():
    assert gate().apply(rows_of([1, np.nan, 1])).tolist() == [True, False, True]


@given(
    running=st.lists(st.sampled_from([0.0, 1.0, 1.0, 1.0, np.nan]), max_size=50),
    cuts=st.lists(st.integers(0, 50), max_size=6),
    settle_rows=st.integers(0, 5),
)
def test_it_counts_what_a_slow_gate_counts_however_the_rows_are_cut(running, cuts, settle_rows):
    expected, run = [], 0
    for value in running:
        run = run + 1 if value == 1.0 else 0
        expected.append(run > settle_rows)
    made, found = gate(settle_rows), []
    edges = [0, *sorted(min(cut, len(running)) for cut in cuts), len(running)]
    for begin, end in pairwise(edges):
        found += made.apply(rows_of(running[begin:end], begin)).tolist()
        assert not expected or made.open == ([False, *expected][end])
    assert found == expected


@given(mask=st.lists(st.booleans(), max_size=30))
def test_stretches_are_whole_and_alternate(mask):
    found = list(stretches(np.array(mask, dtype=np.bool_)))
    assert [value for begin, end, value in found for _ in range(end - begin)] == mask
    assert all(one[2] != other[2] for one, other in pairwise(found))
