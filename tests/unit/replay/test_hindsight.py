"""A hand-worked recording: what is right, wrong, found and late."""

import numpy as np
import pytest

from dxad.replay.hindsight import compare
from dxad.types import NS_PER_S


def flags(text: str) -> np.ndarray:
    return np.array([each == "1" for each in text])


def times(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64) * 2 * NS_PER_S


def test_rows_are_counted_as_the_leaderboard_counts_them():
    #        row  0123456789
    wrong = flags("0011110000")
    alarm = flags("0100111000")
    # Hits: rows 4 and 5. Missed: 2 and 3. False: 1 and 6. Right: 0, 7, 8, 9.
    score = compare(times(10), wrong, alarm)
    assert (score.true_positive, score.false_negative, score.false_positive, score.true_negative) == (
        2,
        2,
        2,
        4,
    )
    assert score.f1 == pytest.approx(2 / (2 + (2 + 2) / 2))  # 0.5
    assert score.far_pct == pytest.approx(100 * 2 / 6)
    assert score.mar_pct == pytest.approx(100 * 2 / 4)


def test_an_episode_is_found_by_one_row_and_its_delay_runs_from_its_first():
    #               0         1         2
    #               0123456789012345678901
    wrong = flags("0001111000000111110011")
    alarm = flags("0000010000000000000001")
    score = compare(times(22), wrong, alarm)
    assert score.episodes == 3
    assert score.delays_s == (4.0, 2.0)  # row 5 of the stretch from 3, row 21 of the one from 20; 2 s a row
    assert score.document()["missed"] == 1


def test_false_alarms_near_each_other_are_one_and_the_time_after_an_episode_is_not_quiet():
    wrong, alarm = np.zeros(400, dtype=bool), np.zeros(400, dtype=bool)
    wrong[100:110] = True
    alarm[[10, 70]] = True  # 60 rows apart: one episode
    alarm[105:170] = True  # found, and until 60 rows after the stretch it is the plant's
    alarm[[171, 232]] = True  # the second lies 61 rows behind the first: two more
    score = compare(times(400), wrong, alarm)
    assert score.false_episodes == 3
    assert score.quiet_s == (400 - 10 - 60) * 2
    assert score.document()["false_per_day"] == round(3 / (330 * 2 / 86_400), 3)


def test_where_nothing_is_labelled_and_nothing_told_there_is_nothing_to_divide_by():
    nothing = np.zeros(5, dtype=bool)
    document = compare(times(5), nothing, nothing).document()
    assert (document["f1"], document["far_pct"], document["mar_pct"]) == (0.0, 0.0, 0.0)
    assert document["delay_median_s"] is None
    assert compare(times(0), nothing[:0], nothing[:0]).document()["false_per_day"] is None
