"""Scores become alarms: the judgement against a slow mean, the state machine against a table made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.alarm import Alarm, AlarmState, Judge, Transition
from dxad.types import Calibration

NAN = float("nan")
NORMAL, UNACK, ACK, RETURNED = AlarmState


def judged_slowly(scores: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Row by row: the largest mean of the scored rows in each span, over its scale."""
    judged = []
    for row in range(len(scores)):
        means = []
        for span, scale in zip(calibration.spans, calibration.scales, strict=True):
            behind = scores[max(0, row - span + 1) : row + 1]
            known = behind[~np.isnan(behind)]
            if len(known) >= span / 2:
                means.append(known.mean() / scale)
        judged.append(max(means) if means and not np.isnan(scores[row]) else NAN)
    return np.array(judged)


scores = st.lists(st.one_of(st.floats(0, 1e3), st.just(NAN)), max_size=60)
calibrations = st.lists(
    st.tuples(st.integers(1, 12), st.floats(0.1, 10)), min_size=1, max_size=3, unique_by=lambda each: each[0]
).map(lambda found: Calibration(1.0, tuple(each[0] for each in found), tuple(each[1] for each in found)))


@given(scores=scores, calibration=calibrations, cuts=st.lists(st.integers(0, 20), max_size=6))
def test_a_judged_score_is_the_largest_mean_and_no_cut_changes_a_bit_of_it(scores, calibration, cuts):
    scores = np.array(scores)
    whole = Judge(calibration).apply(scores)
    np.testing.assert_allclose(whole, judged_slowly(scores, calibration), rtol=1e-12)
    judge = Judge(calibration)
    pieces = np.split(scores, np.minimum(np.cumsum(cuts, dtype=int), len(scores)))
    np.testing.assert_array_equal(np.concatenate([judge.apply(piece) for piece in pieces]), whole)


def test_a_judge_that_starts_anew_remembers_no_score():
    calibration = Calibration(1.0, (1, 4), (1.0, 1.0))
    judge = Judge(calibration)
    judge.apply(np.full(10, 100.0))
    judge.restart()
    assert judge.apply(np.array([1.0, 1.0, 1.0])).tolist() == [1.0, 1.0, 1.0]


# Limit 10, off-limit 8 (0.8 of it), on-delay 3 rows, off-delay 2 rows. After ISA-18.2-2016, clause 5.4.
TABLE = [
    # what, scores from slot 100 on, with "ack" where somebody acknowledges; transitions; state
    ("nothing happens", [1, 10, 9], [], NORMAL),
    ("at the limit is not above it", [10, 10, 10, 10], [], NORMAL),
    ("a spike is shorter than the on-delay", [11, 11, 9, 11, 11], [], NORMAL),
    ("above for the on-delay", [1, 11, 12, 11], [("raised", 103, 101)], UNACK),
    ("rows that were not scored are not counted", [11, NAN, 11, NAN, 11], [("raised", 104, 100)], UNACK),
    ("a fall in between begins anew", [11, 11, 5, 11, 11, 11], [("raised", 105, 103)], UNACK),
    ("raised once, however long it lasts", [11] * 20, [("raised", 102, 100)], UNACK),
    ("below for the off-delay", [11] * 3 + [7, 7], [("raised", 102, 100), ("cleared", 104, 100)], RETURNED),
    ("between off-limit and limit it stays", [11] * 3 + [7, 9, 7, 8, 7], [("raised", 102, 100)], UNACK),
    ("at the off-limit is not below it", [11] * 3 + [8, 8, 8], [("raised", 102, 100)], UNACK),
    (
        "NaN neither clears nor keeps from clearing",
        [11] * 3 + [7, NAN, NAN, 7],
        [("raised", 102, 100), ("cleared", 106, 100)],
        RETURNED,
    ),
    ("acknowledged while it lasts", [11] * 3 + ["ack"], [("raised", 102, 100)], ACK),
    (
        "acknowledged, then back",
        [11] * 3 + ["ack", 7, 7],
        [("raised", 102, 100), ("cleared", 104, 100)],
        NORMAL,
    ),
    (
        "back, then acknowledged",
        [11] * 3 + [7, 7, "ack"],
        [("raised", 102, 100), ("cleared", 104, 100)],
        NORMAL,
    ),
    (
        "back and raised again before anybody saw it",
        [11] * 3 + [7, 7] + [12] * 3,
        [("raised", 102, 100), ("cleared", 104, 100), ("raised", 107, 105)],
        UNACK,
    ),
    (
        "acknowledged, back and raised again asks for a new acknowledgement",
        [11] * 3 + ["ack", 7, 7] + [12] * 3,
        [("raised", 102, 100), ("cleared", 104, 100), ("raised", 107, 105)],
        UNACK,
    ),
]


def play(alarm: Alarm, script: Sequence[float | str], cut: int) -> list[tuple[str, int, int]]:
    """Hand the scores over, `cut` at a time."""
    told: list[Transition] = []
    waiting: list[float] = []
    slot = 100

    def flush() -> None:
        nonlocal slot
        told.extend(alarm.update(slot, waiting, 10.0))
        slot += len(waiting)
        waiting.clear()

    for step in script:
        if step == "ack":
            flush()
            assert alarm.acknowledge()
        else:
            waiting.append(float(step))
            if len(waiting) == cut:
                flush()
    flush()
    return [(each.kind, each.slot, each.onset) for each in told]


@pytest.mark.parametrize("cut", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("script", "transitions", "state"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_table_of_transitions(script, transitions, state, cut):
    alarm = Alarm(off_share=0.8, on_rows=3, off_rows=2)
    assert play(alarm, script, cut) == transitions
    assert alarm.state is state
    assert alarm.active == (state in (UNACK, ACK))


def test_there_is_nothing_to_acknowledge_in_normal_running_or_twice():
    alarm = Alarm(off_share=0.8, on_rows=1, off_rows=1)
    assert not alarm.acknowledge()
    alarm.update(0, [11.0], 10.0)
    assert alarm.acknowledge()
    assert not alarm.acknowledge()


def test_an_excursion_is_pending_from_its_first_row_until_it_is_raised_or_forgotten():
    alarm = Alarm(off_share=0.8, on_rows=3, off_rows=1)
    alarm.update(7, [11.0, 11.0], 10.0)
    assert (alarm.pending, alarm.active, alarm.onset) == (True, False, 7)
    alarm.forget_pending()
    assert not alarm.pending
    alarm.update(9, [11.0, 11.0], 10.0)
    assert (alarm.pending, alarm.onset) == (True, 9), "it takes the whole on-delay again"
    alarm.update(11, [11.0], 10.0)
    assert (alarm.pending, alarm.active) == (False, True)


def test_a_limit_that_moves_counts_from_the_next_row_on():
    alarm = Alarm(off_share=0.8, on_rows=2, off_rows=1)
    alarm.update(0, [11.0], 10.0)
    assert [each.kind for each in alarm.update(1, [11.0], 12.0)] == []
    assert not alarm.pending
