"""Scores become alarms: the judgement against a slow mean, the state machine against a table made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.incident.alarm import Alarm, AlarmState, Judge, Level, Rule, Transition, levels
from dxad.types import Calibration

NAN = float("nan")
NORMAL, UNACK, ACK, RETURNED, LATCHED, SHELVED, SUPPRESSED, OUT = AlarmState


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


LIMIT, OFF = 10.0, 8.0
DELAYS = Rule(on_rows=3, off_rows=2)
LATCH = Rule(on_rows=3, off_rows=2, latch=True)
TWO_OF_FOUR = Rule(off_rows=2, on_count=2, on_of=4)
EVERY_FIFTH = Rule(on_rows=10, off_rows=10, hop=5)


def raised(slot: int, onset: int) -> Transition:
    return Transition("raised", slot, onset)


def cleared(slot: int, onset: int, reason: str = "") -> Transition:
    return Transition("cleared", slot, onset, reason)


def withheld(slot: int, onset: int) -> Transition:
    return Transition("withheld", slot, onset)


# After ISA-18.2-2016, clause 5.4, worked by hand. Each row: what it shows; the rule; the scores from slot 100
# on, with what people do in between; what is told; the state in the end. Limit 10, off-limit 8. A score is a
# number, NAN is a row that is not known, ("off", x) a row at which the machine's state inhibits the alarm.
TABLE = [
    ("nothing happens", DELAYS, [1, 10, 9], [], NORMAL),
    ("at the limit is not above it", DELAYS, [10, 10, 10, 10], [], NORMAL),
    ("a spike is shorter than the on-delay", DELAYS, [11, 11, 9, 11, 11], [], NORMAL),
    ("above for the on-delay", DELAYS, [1, 11, 12, 11], [raised(103, 101)], UNACK),
    ("a row that is not known takes its time all the same", DELAYS, [11, NAN, 11], [raised(102, 100)], UNACK),
    ("it is raised at a row that is known", DELAYS, [11, 11, NAN, NAN, 11], [raised(104, 100)], UNACK),
    ("a hole longer than the delay begins it anew", DELAYS, [11, *[NAN] * 4, 11, 11], [], NORMAL),
    ("and is waited for", DELAYS, [11, *[NAN] * 4, 11, 11, 11], [raised(107, 105)], UNACK),
    ("a fall in between begins anew", DELAYS, [11, 11, 5, 11, 11, 11], [raised(105, 103)], UNACK),
    ("raised once, however long it lasts", DELAYS, [11] * 20, [raised(102, 100)], UNACK),
    ("below for the off-delay", DELAYS, [11] * 3 + [7, 7], [raised(102, 100), cleared(104, 100)], RETURNED),
    ("between off-limit and limit it stays", DELAYS, [11] * 3 + [7, 9, 7, 8, 7], [raised(102, 100)], UNACK),
    ("at the off-limit is not below it", DELAYS, [11] * 3 + [8, 8, 8], [raised(102, 100)], UNACK),
    (
        "what is not known neither clears nor keeps from clearing", DELAYS,
        [11] * 3 + [7, NAN, NAN, 7], [raised(102, 100), cleared(106, 100)], RETURNED,
    ),
    (
        "nor does a hole longer than the off-delay clear", DELAYS,
        [11] * 3 + [7, NAN, NAN, NAN, 7], [raised(102, 100)], UNACK,
    ),
    ("acknowledged while it lasts", DELAYS, [11] * 3 + ["ack"], [raised(102, 100)], ACK),
    (
        "acknowledged, then back", DELAYS,
        [11] * 3 + ["ack", 7, 7], [raised(102, 100), cleared(104, 100)], NORMAL,
    ),
    (
        "back, then acknowledged", DELAYS,
        [11] * 3 + [7, 7, "ack"], [raised(102, 100), cleared(104, 100)], NORMAL,
    ),
    (
        "back and raised again before anybody saw it", DELAYS, [11] * 3 + [7, 7] + [12] * 3,
        [raised(102, 100), cleared(104, 100), raised(107, 105)], UNACK,
    ),
    (
        "acknowledged, back and raised again asks for a new acknowledgement", DELAYS,
        [11] * 3 + ["ack", 7, 7] + [12] * 3,
        [raised(102, 100), cleared(104, 100), raised(107, 105)], UNACK,
    ),
    # a score every fifth row: delays are times all the same
    ("two scores are ten rows", EVERY_FIFTH, ([NAN] * 4 + [11]) * 2, [raised(109, 104)], UNACK),
    ("one is not", EVERY_FIFTH, [NAN] * 4 + [11] + [NAN] * 4 + [9], [], NORMAL),
    (
        "nor does one clear", EVERY_FIFTH, ([NAN] * 4 + [11]) * 2 + [NAN] * 4 + [7],
        [raised(109, 104)], UNACK,
    ),
    (
        "two do", EVERY_FIFTH, ([NAN] * 4 + [11]) * 2 + ([NAN] * 4 + [7]) * 2,
        [raised(109, 104), cleared(119, 104)], RETURNED,
    ),
    # 2 of 4
    ("one of four", TWO_OF_FOUR, [11, 1, 1, 1, 11], [], NORMAL),
    ("two of four", TWO_OF_FOUR, [11, 1, 1, 11], [raised(103, 100)], UNACK),
    ("two in a row", TWO_OF_FOUR, [1, 11, 11], [raised(102, 101)], UNACK),
    ("rows that are not known take their place", TWO_OF_FOUR, [11, NAN, NAN, NAN, 11], [], NORMAL),
    (
        "it clears by the off-delay", TWO_OF_FOUR, [11, 11, 7, 7],
        [raised(101, 100), cleared(103, 100)], RETURNED,
    ),
    (
        "what raised it does not raise it again", TWO_OF_FOUR, [11, 11, 7, 7, 11],
        [raised(101, 100), cleared(103, 100)], RETURNED,
    ),
    # latch
    ("latched, it stays until somebody has seen it", LATCH, [11] * 3 + [7] * 9, [raised(102, 100)], LATCHED),
    (
        "and clears when somebody has", LATCH, [11] * 3 + [7] * 4 + ["ack"],
        [raised(102, 100), cleared(106, 100, "acknowledged")], NORMAL,
    ),
    (
        "seen before it was over, it clears by itself", LATCH, [11] * 3 + ["ack", 7, 7],
        [raised(102, 100), cleared(104, 100)], NORMAL,
    ),
    (
        "latched and above again is the same alarm", LATCH, [11] * 3 + [7, 7] + [11] * 3,
        [raised(102, 100)], UNACK,
    ),
    # shelved
    ("shelved, it only counts", DELAYS, ["shelve 120", *[11] * 4], [withheld(102, 100)], SHELVED),
    (
        "when the time has come, what lasts is told", DELAYS, ["shelve 105", *[11] * 7],
        [withheld(102, 100), raised(105, 100)], UNACK,
    ),
    (
        "and what is over is not", DELAYS, ["shelve 107", *[11] * 4, 7, 7, 7, 7],
        [withheld(102, 100)], NORMAL,
    ),
    (
        "by hand", DELAYS, ["shelve 120", *[11] * 4, "unshelve"],
        [withheld(102, 100), raised(103, 100)], UNACK,
    ),
    (
        "shelving ends what is told", DELAYS, [11, 11, 11, "shelve 120", 11],
        [raised(102, 100), cleared(102, 100, "shelved")], SHELVED,
    ),
    (
        "which is told anew if it lasts", DELAYS, [11, 11, 11, "shelve 105", 11, 11, 11],
        [raised(102, 100), cleared(102, 100, "shelved"), raised(105, 100)], UNACK,
    ),
    ("a quiet one comes back quietly", DELAYS, ["shelve 102", 1, 1, 1, 1], [], NORMAL),
    # out of service
    ("out of service it looks at nothing", DELAYS, ["out", *[11] * 9], [], OUT),
    (
        "what was told is over", DELAYS, [11, 11, 11, "out", 11],
        [raised(102, 100), cleared(102, 100, "out_of_service")], OUT,
    ),
    ("back in service it begins anew", DELAYS, [11, 11, "out", 11, 11, "in", 11, 11], [], NORMAL),
    ("and finds what there is", DELAYS, ["out", 11, 11, "in", 11, 11, 11], [raised(104, 102)], UNACK),
    # inhibited by the machine's state
    ("inhibited, nothing is raised", DELAYS, [("off", 11)] * 9, [], SUPPRESSED),
    ("nor does anything stay pending", DELAYS, [11, 11, ("off", 11), 11, 11], [], NORMAL),
    ("nor of two of four", TWO_OF_FOUR, [11, ("off", 1), 11], [], NORMAL),
    ("afterwards it takes the whole delay", DELAYS, [("off", 11)] * 3 + [11] * 3, [raised(105, 103)], UNACK),
    (
        "what is active clears after the off-delay", DELAYS, [11, 11, 11, ("off", 11), ("off", NAN)],
        [raised(102, 100), cleared(104, 100)], RETURNED,
    ),
    (
        "a state that flickers does not clear it", DELAYS, [11, 11, 11, ("off", 11), 11, ("off", 11), 11],
        [raised(102, 100)], UNACK,
    ),
]  # fmt: skip


def play(alarm: Alarm, script: Sequence, cut: int) -> list[Transition]:
    """Hand the rows over, `cut` at a time."""
    told: list[Transition] = []
    waiting: list[tuple[bool, float]] = []
    slot = 100

    def flush() -> None:
        nonlocal slot
        scores = np.array([score for _, score in waiting], dtype=np.float64)
        inhibited = np.array([held for held, _ in waiting], dtype=np.bool_)
        told.extend(alarm.update(slot, levels(scores, LIMIT, OFF), inhibited))
        slot += len(waiting)
        waiting.clear()

    for step in script:
        if isinstance(step, str):
            flush()
            told.extend(do(alarm, step, slot - 1))
            continue
        waiting.append((True, float(step[1])) if isinstance(step, tuple) else (False, float(step)))
        if len(waiting) == cut:
            flush()
    flush()
    return told


def do(alarm: Alarm, what: str, slot: int) -> list[Transition]:
    """What somebody does after row `slot`."""
    match what.split():
        case ["ack"]:
            assert alarm.unseen
            return alarm.acknowledge(slot)
        case ["shelve", until]:
            return alarm.shelve(slot, int(until))
        case ["unshelve"]:
            return alarm.unshelve(slot)
        case ["out"]:
            return alarm.take_out_of_service(slot)
    alarm.put_into_service()
    return []


@pytest.mark.parametrize("cut", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("rule", "script", "told", "state"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_table_of_transitions(rule, script, told, state, cut):
    alarm = Alarm(rule)
    assert play(alarm, script, cut) == told
    assert alarm.state is state
    assert alarm.active == (state in (UNACK, ACK, LATCHED))


def test_a_level_is_beyond_a_limit_or_at_it():
    found = levels(np.array([11, 10, 9, 8, 7, NAN, np.inf]), LIMIT, OFF).tolist()
    unknown, below, between, above = Level
    assert found == [above, between, between, between, below, unknown, above]


def test_there_is_nothing_to_acknowledge_in_normal_running_or_twice():
    alarm = Alarm(Rule())
    assert not alarm.unseen
    assert alarm.acknowledge(0) == []
    play(alarm, [11], 1)
    assert alarm.unseen
    alarm.acknowledge(100)
    assert not alarm.unseen


def test_an_excursion_is_pending_from_its_first_row_until_it_is_raised_or_forgotten():
    alarm = Alarm(DELAYS)
    play(alarm, [1, 11, 11], 1)
    assert (alarm.pending, alarm.active, alarm.onset) == (True, False, 101)
    alarm.forget_pending()
    assert not alarm.pending


@pytest.mark.parametrize("rule", [DELAYS, LATCH, TWO_OF_FOUR, EVERY_FIFTH])
def test_two_alarms_of_which_one_was_saved_and_restored_go_on_alike(rule):
    rng = np.random.default_rng(3)
    scores = rng.uniform(0, 20, 400)
    for at in range(0, 400, 17):
        one, other = Alarm(rule), Alarm(rule)
        one.update(100, levels(scores[:at], LIMIT, OFF))
        other.restore(one.save(lambda slot: 1000 * slot), lambda time: time // 1000, 100 + at)
        later = levels(scores[at:], LIMIT, OFF)
        assert one.update(100 + at, later) == other.update(100 + at, later)
        assert one.state is other.state


def slowly(rule: Rule, found: list[int], held: list[bool]) -> list[tuple[str, int]]:
    """Without latch and without people, looking back from each row as far as the rule may ask for."""
    told, lasts, floor = [], False, 0
    for row, level in enumerate(found):
        if lasts:
            seen = [Level.BELOW if held[at] else found[at] for at in range(row + 1)]
            if seen[row] == Level.BELOW and _held_for(seen, floor, row, rule.off_rows, rule.hop):
                told.append(("cleared", row))
                lasts, floor = False, row + 1
        elif held[row]:
            floor = row + 1
        elif level == Level.ABOVE:
            if rule.on_count:
                behind = range(max(floor, row - rule.on_of * rule.hop + 1), row + 1)
                enough = sum(found[at] == Level.ABOVE for at in behind) >= rule.on_count
            else:
                enough = _held_for(found, floor, row, rule.on_rows, rule.hop)
            if enough:
                told.append(("raised", row))
                lasts, floor = True, row + 1
    return told


def _held_for(found: list[int], floor: int, row: int, delay: int, hop: int) -> bool:
    """Whether all known rows back from `row` are as it is, for long enough and without a long hole."""
    first = last = row
    for at in range(row - 1, floor - 1, -1):
        if found[at] == Level.UNKNOWN:
            continue
        if found[at] != found[row] or last - at - hop > delay:
            break
        first = last = at
    return row - first + hop >= delay


rules = st.builds(
    Rule,
    on_rows=st.integers(1, 6), off_rows=st.integers(1, 6), hop=st.integers(1, 3),
    on_count=st.integers(0, 3), on_of=st.integers(3, 5),
)  # fmt: skip


@settings(max_examples=300)
@given(
    rule=rules,
    rows=st.lists(
        st.tuples(st.sampled_from([*Level, Level.ABOVE, Level.BELOW]), st.sampled_from([False, False, True])),
        max_size=50,
    ),
    cuts=st.lists(st.integers(0, 15), max_size=6),
)
def test_the_machine_is_the_slow_one_and_no_cut_changes_it(rule, rows, cuts):
    found = np.array([level for level, _ in rows], dtype=np.uint8)
    held = np.array([each for _, each in rows], dtype=np.bool_)
    alarm, told, first = Alarm(rule), [], 0
    places = np.minimum(np.cumsum(cuts, dtype=int), len(found))
    for piece, holds in zip(np.split(found, places), np.split(held, places), strict=True):
        told += alarm.update(first, piece, holds)
        first += len(piece)
    assert [(each.kind, each.slot) for each in told] == slowly(rule, found.tolist(), held.tolist())
